"""job=compare: how near are two recordings, what does it mean, and which moments correspond?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F

from tonnetz.alignment import align, check_method, lay, similarities, warp
from tonnetz.build import Experiment, restore
from tonnetz.calibration import typical_windows
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files, step_of
from tonnetz.errors import UserError
from tonnetz.figures import Figure, save
from tonnetz.index import Index
from tonnetz.jobs.index import UNCALIBRATED, check, facts_of, plan_for
from tonnetz.manifest import Run, write_json
from tonnetz.pieces import LONG
from tonnetz.quiet import quiet
from tonnetz.reductions import TINY


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
        result |= meaning(scale, result["windows"], result["distance"])
    write_json(run.folder / "compare.json", result)
    save(picture, run.folder / "figures" / "similarity.png")
    print("  ".join(f"{name} {value:.4g}" for name, value in result.items() if isinstance(value, int | float)))
    print(f"b = {result['ratio']:.3f} a {result['shift']:+.2f} s: {run.folder / 'figures' / 'similarity.png'}")
    run.facts["compare"] = result


def meaning(scale: Index, windows: Sequence[int], distance: float) -> dict[str, float]:
    """z and p of a distance of recordings with so many windows, where the index knows."""
    known = scale.calibration(windows[0])
    if known is None:
        print(UNCALIBRATED.format(index=scale.folder))
        return {}
    if max(windows) > LONG * typical_windows(scale):
        print(f"no z and p: one of the two is more than {LONG} times as long as recordings in {scale.folder} are")
        return {}
    return {name: getattr(known, name)(distance).item() for name in ("z", "p")}


def compare(experiment: Experiment, index: Index, cfg: DictConfig) -> tuple[dict[str, Any], Any]:
    """Distance, alignment and picture of the two recordings, matched as the index does."""
    device, paths = choose_device(cfg.trainer.accelerator), [str(cfg.job.a), str(cfg.job.b)]
    errors: dict[str, str] = {}
    found = embed_files(experiment, paths, plan_for(index, experiment), device, errors)
    if errors:
        raise UserError(next(iter(errors.values())))
    b = part(found, 1, index.tempo)
    tempi = sorted(index.tempi, key=lambda tempo: abs(tempo - 1))  # of equal ones the first counts
    asked = [part(found, 0, tempo) for tempo in tempi]
    tried = [float(index.matching.pairs(*_pair(a["vectors"], b["vectors"]))) for a in asked]
    distance, tempo, a = min(zip(tried, tempi, asked, strict=True), key=lambda one: one[0])
    units = [F.normalize(side["vectors"], dim=-1, eps=TINY) for side in (a, b)]
    start = torch.cat([a["start"] / tempo, b["start"]]).numpy()  # of a at the tempo that is heard
    count = np.array([len(side["start"]) for side in (a, b)])
    step, length = step_of(np.repeat([0, 1], count), start), float(b["length"][0])
    laid = lay(torch.cat(units), np.cumsum(count) - count, count, start, step)
    pair = np.array([[0, 1]])
    turns = index.matching.turns
    aligned = align(*laid, pair, length, step, cfg.job.method, cfg.job.minimum, cfg.job.overlap, turns=turns)
    aligned["ratio"] = aligned["ratio"] / tempo
    result = {"a": paths[0], "b": paths[1], "windows": count.tolist(), "distance": distance}
    result |= {"semitones": int(aligned.pop("semitones")[0])}
    result |= {name: float(value[0]) for name, value in aligned.items()}
    picture = similarities(*laid, pair, turns)[0]
    if cfg.job.method == "dtw":
        place = warp(picture, cfg.job.minimum, cfg.job.overlap)[3][0].numpy()  # (n,)
        middles = [pace * (step * i + length / 2) for pace, i in ((tempo, np.arange(len(place))), (1.0, place))]
        result["path"] = np.stack(middles, 1)[place >= 0].round(3).tolist()
    line = result["ratio"], result["shift"]
    return result, similarity_figure(picture[0].numpy(), step, length, *line, paths, tempo, result.get("path"))


def part(found: Mapping[str, Tensor], row: int, tempo: float) -> dict[str, Tensor]:
    """What was found of one recording at one tempo."""
    mine = (found["row"] == row) & ((found["tempo"] - tempo).abs() < 1e-4)
    return {name: value[mine] for name, value in found.items()}


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two sets of vectors as a batch of one pair, with masks."""
    real = (torch.ones(1, len(a), dtype=torch.bool), torch.ones(1, len(b), dtype=torch.bool))
    return a[None], b[None], *real


def similarity_figure(
    similarity: np.ndarray,
    step: float,
    window: float,
    ratio: float,
    shift: float,
    names: Sequence[str],
    tempo: float = 1.0,
    path: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """Cosines (n, m) of the windows of two recordings, `step` seconds apart, with the line t_b = ratio t_a + shift.

    Those of a are as many seconds apart when it is played `tempo` times as fast. `path` (p, 2) are seconds of a and b.
    """
    pace = np.array([tempo, 1.0])
    low = pace * (window - step) / 2  # windows stand for their middles
    high = low + pace * step * np.array(similarity.shape)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(
        similarity, origin="lower", aspect="auto", extent=(low[1], high[1], low[0], high[0]), cmap="magma"
    )
    figure.colorbar(image, ax=axis, shrink=0.8, label="cosine similarity")
    times = np.array([low[0], high[0]])
    axis.plot(ratio * times + shift, times, "c--", lw=1.2, label=f"b = {ratio:.3f} a {shift:+.1f} s")
    if path:
        axis.plot(*np.array(path).T[::-1], c="lime", lw=1.2, label="warping path")
    axis.set(xlim=(low[1], high[1]), ylim=(low[0], high[0]), xlabel=f"seconds of b: {names[1][-50:]}")
    axis.set_ylabel(f"seconds of a: {names[0][-50:]}")
    axis.legend(loc="upper right", fontsize=8)
    return figure
