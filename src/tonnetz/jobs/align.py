"""job=align: which moments of the versions of a work correspond; for the fine stage of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from tonnetz.alignment import (
    align,
    check_method,
    compose,
    lay,
    places,
    regular,
    same_work_pairs,
    similarities,
    stranger_pairs,
    write,
)
from tonnetz.build import restore
from tonnetz.device import choose_device
from tonnetz.embedding import embed_tracks, model_fingerprint, plan_of, step_of
from tonnetz.errors import UserError
from tonnetz.figures import save
from tonnetz.jobs.compare import similarity_figure
from tonnetz.manifest import Run
from tonnetz.quiet import quiet
from tonnetz.tracks import SPLITS
from tonnetz.transposition import turn_towards
from tonnetz.windows import extents

WHOLE_HOP = 5.0  # seconds between the windows of networks that make one vector of each
STRANGERS = 100  # pairs of different works, whose confidences say what is sure
LEAST = 0.1  # confidence, however little strangers have


def run(cfg: DictConfig, run: Run) -> None:
    """Align the recordings of each work of ``job.split``; writes alignment.jsonl and a picture."""
    quiet()
    job = cfg.job
    check_method(job.method)
    if job.window <= 0 or (job.hop is not None and job.hop <= 0) or job.minimum < 1 or not 0 <= job.overlap <= 1:
        given = f"job.window={job.window} hop={job.hop} minimum={job.minimum} overlap={job.overlap}"
        raise UserError(f"{given}: must be positive, and the overlap at most 1")
    if job.split not in SPLITS:
        raise UserError(f"job.split={job.split}: known are {', '.join(SPLITS)}")
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    task: Any = experiment.task
    frame = experiment.data.split(job.split)
    whole = getattr(task, "segment", None) is None
    plan = plan_of(experiment, job.window, job.hop or WHOLE_HOP) if whole else plan_of(experiment)
    found = embed_tracks(experiment, frame, plan, choose_device(cfg.trainer.accelerator))
    step = (job.hop or WHOLE_HOP) if whole else step_of(found["row"].numpy(), found["start"].numpy())
    found, step = thin(found, step, job.hop or step)
    window = round(float(found["length"][0]), 4)
    vectors = F.normalize(found["vectors"], dim=-1)
    first, count = extents(found["row"].numpy(), frame.height)
    turns = getattr(getattr(task, "matching", None), "turns", 1)
    work = (frame["work"].rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy()
    pairs = chosen(work, vectors, found["row"], job, turns)
    laid = lay(vectors, first, count, found["start"].numpy(), step)

    def find(pairs: np.ndarray) -> dict[str, np.ndarray]:
        return align(*laid, pairs, window, step, job.method, job.minimum, job.overlap, job.seed, turns=turns)

    result = find(pairs)
    floor = measured_floor(find, work, job.seed) if job.floor is None else job.floor
    if len(pairs):
        draw(*laid, pairs, result, window, step, turns, frame["id"].to_list(), run)
    if job.pairs == "medoid":
        pairs, result = compose(pairs, result)
    file = run.folder / "alignment.jsonl"
    facts = {"window": window, "hop": round(step, 6), "model": model_fingerprint(task), "floor": floor}
    write(file, frame["id"].to_list(), pairs, result, facts)
    sure = result["confidence"] >= floor
    print(f"{len(pairs)} pairs of {frame['work'].n_unique()} works, {sure.mean():.0%} with confidence >= {floor}")
    if advice := too_short(count, job.minimum, window, step, whole):
        print(advice)
    quartiles = ", ".join(f"{q:.1f}" for q in np.quantile(np.abs(result["shift"]), [0.25, 0.5, 0.75]))
    print(f"shifts in seconds (quartiles of their size): {quartiles}; model {facts['model']}: {file}")
    run.facts["alignment"] = {"pairs": len(pairs), "sure": float(sure.mean()), **facts}


def measured_floor(find: Callable[[np.ndarray], dict[str, np.ndarray]], work: np.ndarray, seed: int) -> float:
    """The confidence that 95 of 100 pairs of different works do not reach, told."""
    others = stranger_pairs(work, STRANGERS, seed)
    unsure = np.quantile(find(others)["confidence"], 0.95) if len(others) else 0.0
    floor = round(max(LEAST, float(unsure)), 4)
    print(f"floor {floor}: 95 % of {len(others)} pairs of different works are below")
    return floor


def too_short(count: np.ndarray, minimum: int, window: float, step: float, whole: bool) -> str | None:
    """What to say of recordings whose windows, (R,) so many, are too few for any confidence."""
    few = int((count < minimum).sum())
    if not few:
        return None
    remedy = "a smaller job.window and job.hop make more" if whole else "a smaller job.hop makes more"
    return (
        f"{few} of {len(count)} recordings have fewer than {minimum} windows of {window:g} s, {step:g} s apart: "
        f"nothing is sure of them; {remedy}"
    )


def thin(found: dict[str, Tensor], step: float, hop: float) -> tuple[dict[str, Tensor], float]:
    """The vectors on a grid of about `hop` seconds, from vectors `step` seconds apart, and the grid's step."""
    times = max(1, round(hop / step))
    start = found["start"].numpy()
    keep = regular(start, step) & (places(start, step) % times == 0)
    return {name: value[torch.from_numpy(keep)] for name, value in found.items()}, step * times


def chosen(work: np.ndarray, vectors: Tensor, row: Tensor, job: Any, turns: int) -> np.ndarray:
    """Pairs (P, 2) of recordings of a `work` (N,). A medoid is chosen by mean vectors, in the key of the first."""
    mean = torch.zeros(len(work), vectors.shape[1]).index_add_(0, row, vectors)
    place, inverse = np.unique(work, return_index=True, return_inverse=True)[1:]
    mean = turn_towards(mean, mean[torch.from_numpy(place[inverse])], turns)[0]
    pairs = same_work_pairs(work, job.pairs, job.budget, job.seed, F.normalize(mean, dim=-1))
    if not len(pairs):
        raise UserError(f"job.split={job.split}: no work has two recordings there; nothing can be aligned")
    return pairs


def draw(
    vectors: Tensor,
    first: np.ndarray,
    count: np.ndarray,
    pairs: np.ndarray,
    result: dict[str, np.ndarray],
    window: float,
    step: float,
    turns: int,
    ids: list[str],
    run: Run,
) -> None:
    """A picture of the pair with the median confidence."""
    middle = np.argsort(result["confidence"])[len(pairs) // 2]
    cells = similarities(vectors, first, count, pairs[[middle]], turns)[0][0].numpy()
    line = result["ratio"][middle], result["shift"][middle]
    picture = similarity_figure(cells, step, window, *line, [ids[r] for r in pairs[middle]])
    save(picture, run.folder / "figures" / "alignment.png")
