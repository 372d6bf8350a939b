"""job=compare: how near are two recordings, what does it mean, and which moments correspond?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tonnetz.alignment import align, check_method, lay, similarities
from tonnetz.build import Experiment, restore
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files, step_of
from tonnetz.errors import UserError
from tonnetz.figures import Figure, save
from tonnetz.index import Index
from tonnetz.jobs.index import UNCALIBRATED, check, facts_of, plan_for
from tonnetz.manifest import Run, write_json
from tonnetz.quiet import quiet
from tonnetz.windows import extents, gather


def run(cfg: DictConfig, run: Run) -> None:
    """Compare ``job.a`` and ``job.b``; writes compare.json and a picture of their similarity."""
    quiet()
    for key in ("a", "b"):
        if OmegaConf.is_missing(cfg.job, key):
            raise UserError(f"job.{key} is missing: name two recordings, job.a=FILE job.b=FILE")
    check_method(cfg.job.method)
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    scale = Index.open(cfg.job.index) if cfg.job.index else None
    if scale is not None:
        check(scale, experiment)
    index = scale or Index(run.folder / "index", facts_of(experiment, cfg.job))
    if cfg.job.reduction:
        index.match_by(cfg.job.reduction)
    result, picture = compare(experiment, index, cfg)
    if scale is not None and not cfg.job.reduction:
        known = scale.calibration(result["windows"][0])
        if known is None:
            print(UNCALIBRATED.format(index=scale.folder))
        result |= {name: getattr(known, name)(result["distance"]).item() for name in ("z", "p") if known}
    write_json(run.folder / "compare.json", result)
    save(picture, run.folder / "figures" / "similarity.png")
    print("  ".join(f"{name} {value:.4g}" for name, value in result.items() if isinstance(value, int | float)))
    print(f"b = {result['ratio']:.3f} a {result['shift']:+.2f} s: {run.folder / 'figures' / 'similarity.png'}")
    run.facts["compare"] = result


def compare(experiment: Experiment, index: Index, cfg: DictConfig) -> tuple[dict[str, Any], Any]:
    """Distance, alignment and picture of the two recordings, matched as the index does."""
    device, paths = choose_device(cfg.trainer.accelerator), [str(cfg.job.a), str(cfg.job.b)]
    errors: dict[str, str] = {}
    found = embed_files(experiment, paths, plan_for(index, experiment), device, errors)
    if errors:
        raise UserError(next(iter(errors.values())))
    row, start = found["row"].numpy(), found["start"].numpy()
    first, count = extents(row, 2)
    (a, real_a), (b, real_b) = (gather(found["vectors"], first[[i]], count[[i]]) for i in (0, 1))
    distance = float(index.matching.pairs(a, b, real_a, real_b))
    turned = index.turned(a[0])  # (turns, S, D)
    unit = [vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-8) for vectors in (turned, b[0])]
    key = int((unit[0] @ unit[1].mT).amax(-1).sum(-1).argmax())
    step, length = step_of(row, start), float(found["length"][0])
    laid = lay(torch.cat([unit[0][key], unit[1]]), first, count, start, step)
    pair = np.array([[0, 1]])
    aligned = align(*laid, pair, length, step, cfg.job.method, cfg.job.minimum, cfg.job.overlap)
    result = {"a": paths[0], "b": paths[1], "windows": count.tolist(), "distance": distance}
    result |= {"semitones": key - 12 if key > 6 else key, **{name: float(value[0]) for name, value in aligned.items()}}
    cells = similarities(*laid, pair)[0].numpy()
    return result, similarity_figure(cells, step, length, result["ratio"], result["shift"], paths)


def similarity_figure(
    similarity: np.ndarray, step: float, window: float, ratio: float, shift: float, names: Sequence[str]
) -> Figure:
    """Cosines (n, m) of the windows of two recordings, `step` seconds apart, with the line t_b = ratio t_a + shift."""
    n, m = similarity.shape
    low, high = window / 2 - step / 2, window / 2 + step * (np.array([n, m]) - 0.5)  # windows stand for their middles
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(similarity, origin="lower", aspect="auto", extent=(low, high[1], low, high[0]), cmap="magma")
    figure.colorbar(image, ax=axis, shrink=0.8, label="cosine similarity")
    times = np.array([low, high[0]])
    axis.plot(ratio * times + shift, times, "c--", lw=1.2, label=f"b = {ratio:.3f} a {shift:+.1f} s")
    axis.set(xlim=(low, high[1]), ylim=(low, high[0]), xlabel=f"seconds of b: {names[1][-50:]}")
    axis.set_ylabel(f"seconds of a: {names[0][-50:]}")
    axis.legend(loc="upper right", fontsize=8)
    return figure
