"""What the stack saves: a sweep on random features of a real corpus's size, against one probe at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, groups
from tonnetz.probing.serial import fit_alone
from tonnetz.probing.stack import Examples, fit


def learnable(sizes: Sequence[int], seed: int = 0) -> tuple[list[Examples], Goal]:
    """Random features (M, D) of three splits, and labels of K classes, rare to frequent, that depend on them."""
    *tracks, width, classes = sizes
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(tracks), width, generator=g) * torch.linspace(0.2, 2, width)
    direction = torch.randn(width, classes, generator=g) / width**0.5
    value = x @ direction + torch.randn(sum(tracks), classes, generator=g)
    share = torch.linspace(0.01, 0.2, classes)
    limit = torch.stack([value[:, k].quantile(1 - share[k]) for k in range(classes)])
    target = (value > limit).float()
    parts = zip(x.split(tracks), target.split(tracks), strict=True)
    return [Examples(a.clone(), b.T.contiguous()) for a, b in parts], Goal(
        "multilabel", tuple(map(str, range(classes)))
    )


class SlowMetrics:
    """Macro ROC AUC and average precision of scikit-learn, as jukemir judges every validation; keeps their seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, score: Tensor, target: Tensor) -> float:
        """ROC AUC of scores (K, N)."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        start = time.perf_counter()
        truth, value = target.T.numpy(), score.T.numpy()
        average_precision_score(truth, value, average="macro")
        found = roc_auc_score(truth, value, average="macro")
        self.seconds += time.perf_counter() - start
        return float(found)


def bench(
    probes: Sequence[Probe],
    protocol: Protocol,
    sizes: Sequence[int],
    budget: float,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Seconds of the sweep, and of the slow way, extrapolated from probes timed for `budget` seconds in the same run.

    The slow way is timed on the CPU, on at least one probe of every group, for a few validations each, and is charged
    with the validations that each probe took in the sweep.
    """
    (train, valid, _), goal = learnable(sizes)
    parts = groups(probes)
    there = train.to(device), valid.to(device)
    rows: list[dict[str, Any]] = []
    share = []
    for group in parts:
        some = [probes[i] for i in group]
        start = clocks()
        fitted = fit(some, goal, *there, protocol)
        fast = clocks() - start
        each, metrics = slow_validation(some, goal, train, valid, protocol, budget / len(parts))
        slow = each * fitted.validations
        share.append(metrics)
        row: dict[str, Any] = {"hidden": list(some[0].hidden), "batch": some[0].batch, "probes": len(some)}
        row |= {"validations": fitted.validations, "best": float(fitted.score.max())}
        row |= {"seconds": fast[0], "cpu_seconds": fast[1], "slow_seconds": slow[0], "slow_cpu_seconds": slow[1]}
        rows.append(row)
        say(
            f"hidden {row['hidden']} batch {row['batch']}: {len(some)} probes, {fitted.validations:,} validations in "
            f"{fast[0]:,.1f} s (CPU {fast[1]:,.1f} s), one by one {slow[0]:,.0f} s (CPU {slow[1]:,.0f} s)"
        )
    result: dict[str, Any] = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "probes": len(probes),
        "groups": rows,
    }
    for name in ("seconds", "cpu_seconds", "slow_seconds", "slow_cpu_seconds", "validations"):
        result[name] = sum(row[name] for row in rows)
    result |= {"ratio": result["slow_seconds"] / result["seconds"]}
    result |= {"cpu_ratio": result["slow_cpu_seconds"] / result["cpu_seconds"]}
    return result | {"slow_share_of_metrics": float(np.mean(share)), "max_steps": protocol.max_steps}


def clocks() -> np.ndarray:
    """Seconds on the wall, and of this process on all cores: other work on the machine stretches the first only."""
    return np.array([time.perf_counter(), time.process_time()])


def slow_validation(
    probes: Sequence[Probe], goal: Goal, train: Examples, valid: Examples, protocol: Protocol, budget: float
) -> tuple[np.ndarray, float]:
    """Seconds of one validation with the steps to the next, of probes trained alone, and the share of the metrics."""
    judge, seconds, count = SlowMetrics(), np.zeros(2), 0
    order = np.random.default_rng(0).permutation(len(probes))
    fit_alone(probes[order[0]], goal, train, valid, protocol, metric=judge, validations=2)  # warm
    judge.seconds = 0.0
    for i in order:
        start = clocks()
        found = fit_alone(probes[i], goal, train, valid, protocol, metric=judge, validations=12)
        seconds += clocks() - start
        count += found["validations"]
        if seconds[0] > budget:
            break
    return seconds / count, judge.seconds / seconds[0]
