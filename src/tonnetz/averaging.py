"""Averages of the weights of checkpoints (Izmailov et al. 2018), and of the distances that several models find."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tonnetz.atomic import replacing
from tonnetz.checkpoint import load_checkpoint
from tonnetz.errors import UserError
from tonnetz.learned import joined
from tonnetz.metrics.ranking import Ranking, Retrieval, intervals


def average_weights(states: Sequence[dict[str, Tensor]], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Weighted mean of state dicts of one model, in float64; whole numbers are those of the first."""
    parts = torch.tensor(weights or [1.0] * len(states), dtype=torch.float64)
    parts = parts / parts.sum()
    mean = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            stacked = torch.stack([state[name] for state in states]).double()
            mean[name] = torch.tensordot(parts, stacked, 1).to(first.dtype)
        else:
            mean[name] = first
    return mean


def average_checkpoints(paths: Sequence[str | Path], out: Path, weights: Sequence[float] | None = None) -> None:
    """Write a checkpoint with the mean weights of others. Raises UserError when they are not of one model."""
    if len(paths) < 2:
        raise UserError("job.ckpts: name two checkpoints or more, job.ckpts=[A,B]")
    if weights is not None and (len(weights) != len(paths) or min(weights) < 0 or not sum(weights)):
        raise UserError(
            f"job.weights={list(weights)}: need a number, not negative, for each of {len(paths)} checkpoints"
        )
    checkpoints = [load_checkpoint(path) for path in paths]
    for path, checkpoint in zip(paths[1:], checkpoints[1:], strict=True):
        _check_alike(paths[0], checkpoints[0], path, checkpoint)
    mean = average_weights([checkpoint["state_dict"] for checkpoint in checkpoints], weights)
    kept = {key: checkpoints[0][key] for key in ("tonnetz", "epoch", "global_step", "pytorch-lightning_version")}
    about = {key: value for key, value in kept["tonnetz"].items() if key != "learned"}
    together = joined([checkpoint["tonnetz"].get("learned") for checkpoint in checkpoints])
    kept["tonnetz"] = about | ({"learned": together} if together else {})
    save({**kept, "state_dict": mean}, out)


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, atomically."""
    with replacing(path) as part:
        torch.save(checkpoint, part)


def _check_alike(first: str | Path, a: dict[str, Any], second: str | Path, b: dict[str, Any]) -> None:
    shapes = [{k: tuple(v.shape) for k, v in found["state_dict"].items()} for found in (a, b)]
    same = a["tonnetz"]["frontend"] == b["tonnetz"]["frontend"]
    same &= all(a["tonnetz"]["spec"][key] == b["tonnetz"]["spec"][key] for key in ("classes", "groups"))
    model = all(a["tonnetz"]["config"][key] == b["tonnetz"]["config"][key] for key in ("model", "pooling"))
    if shapes[0] != shapes[1] or not same or not model:
        raise UserError(
            f"{second}: is of another model, front-end or other classes than {first}; these have no average"
        )


@torch.no_grad()
def refresh(task: torch.nn.Module, batches: Iterable[dict[str, Tensor]], count: int) -> None:
    """Estimate the statistics of batch normalisation anew from `count` training batches; others stay as they are.

    The mean of several models' statistics are not those of the mean model.
    """
    norms = [module for module in task.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms or count < 1:
        return
    momenta = [norm.momentum for norm in norms]
    training = task.training
    task.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for batch in itertools.islice(batches, count):
        task(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    task.train(training)


def average_distances(
    results: Sequence[Retrieval], exclude: Tensor | None = None, compat: bool = False, rounds: int = 0
) -> Retrieval:
    """Score the mean of the distances that several models found between the same tracks."""
    first = results[0]
    if any(result.distance is None for result in results):
        raise UserError("job.average=distances: too many tracks to keep all distances; take job.average=weights")
    assert first.asked is not None
    assert first.references is not None
    assert first.groups is not None
    mean = torch.stack([result.distance for result in results if result.distance is not None]).mean(0)
    ranking = Ranking(first.groups, first.references, exclude, compat=compat)
    ranking.add(first.asked, mean)
    found = ranking.result()
    if rounds:
        found.values |= intervals(found, rounds)
    return found
