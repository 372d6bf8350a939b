"""Is the work there at all? How well a threshold on the nearest distance tells kin from strangers.

`genuine` (g,) are distances to the nearest recording of the own work, `impostor` (k,) to the nearest of another one:
what a recording without kin among the references would find.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from tonnetz.metrics.openset import auroc

TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)  # of the axes of a DET curve


def roc(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False accepts, true accepts and thresholds (n,) when distances up to the threshold are accepted."""
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    false, true = (accepted(values, thresholds) for values in (impostor, genuine))
    return np.r_[0.0, false], np.r_[0.0, true], np.r_[-np.inf, thresholds]


def accepted(distance: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Share of distances (n,) up to each threshold."""
    return np.searchsorted(np.sort(distance), threshold, side="right") / max(len(distance), 1)


def equal_error(genuine: np.ndarray, impostor: np.ndarray, tries: float = 1.0) -> tuple[float, float]:
    """Threshold at which as many kin are refused as strangers accepted, and that rate. NaN without either.

    With several `tries` a stranger is accepted when one of them is.
    """
    if not len(genuine) or not len(impostor):
        return float("nan"), float("nan")
    false, true, thresholds = roc(genuine, impostor)
    false = 1 - (1 - false) ** tries
    best = int(np.argmin(np.abs(false - (1 - true))))
    return float(thresholds[best]), float((false[best] + 1 - true[best]) / 2)


def area(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Probability that a kin is nearer than a stranger, ties counting half: the area under the ROC curve."""
    score = torch.from_numpy(-np.concatenate([genuine, impostor]).astype(np.float64))
    return auroc(score, torch.arange(len(score)) < len(genuine))


def curves(genuine: np.ndarray, impostor: np.ndarray, thresholds: Mapping[str, float], title: str) -> Any:
    """ROC and DET curves (Martin et al. 1997) of "is there a match?", with some thresholds marked by name."""
    from tonnetz.figures import Figure

    false, true, _ = roc(genuine, impostor)
    figure = Figure(figsize=(11, 5), layout="constrained")
    plain, normal = figure.subplots(1, 2)
    plain.step(false, true, where="post", c="k", lw=1.2)
    plain.plot([0, 1], [0, 1], "k:", lw=0.8)
    plain.set(xlim=(-0.01, 1), ylim=(0, 1.01), ylabel="versions that are accepted")
    ends = tuple(np.clip(0.5 / len(values), 1e-4, 0.2) for values in (impostor, genuine))  # no finer rate
    normal.plot(_probit(false, ends[0]), _probit(1 - true, ends[1]), c="k", lw=1.2)
    for setter, limit, low in (
        (normal.set_xticks, normal.set_xlim, ends[0]),
        (normal.set_yticks, normal.set_ylim, ends[1]),
    ):
        shown = [tick for tick in TICKS if tick >= low]
        setter(_probit(np.array(shown), low), [f"{tick:g}" for tick in shown])
        limit(*_probit(np.array([low, 0.95]), low))
    normal.set(ylabel="versions that are refused")
    for i, (name, limit) in enumerate(thresholds.items()):
        look = {"c": f"C{i}", "ms": max(9 - 3 * i, 4)}  # what lies on top of each other is seen
        x, y = (float(accepted(values, np.array(limit))) for values in (impostor, genuine))
        label = f"{name}: distance {limit:.3f}, {y:.0%} of the versions"
        plain.plot(x, y, "o", label=label, **look)
        normal.plot(*_probit(np.array([x]), ends[0]), *_probit(np.array([1 - y]), ends[1]), "o", **look)
    for axis in (plain, normal):
        axis.set_xlabel("strangers that are accepted")
        axis.grid(alpha=0.3)
    if thresholds:
        plain.legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    return figure


def picture(genuine: np.ndarray, impostor: np.ndarray, threshold: float | None, name: str, what: str) -> Any:
    """The curves with the threshold `name` and that of equal error; None without kin or strangers."""
    limit, rate = equal_error(genuine, impostor)
    if np.isnan(limit):
        return None
    marked = {} if threshold is None or not np.isfinite(threshold) else {name: threshold}
    title = f"{what}: {len(genuine):,} versions, {len(impostor):,} strangers; area {area(genuine, impostor):.3f}"
    return curves(genuine, impostor, {**marked, "equal error": limit}, f"{title}, equal error {rate:.3f}")


def _probit(rate: np.ndarray, low: float) -> np.ndarray:
    """Rates on the scale of the normal distribution, on which the DET curve of two normal ones is straight."""
    return np.array([NormalDist().inv_cdf(value) for value in np.clip(rate, low, 1 - low)])
