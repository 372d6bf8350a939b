"""Figures from arrays: the same go to TensorBoard and into the run's folder as PNG. Drawn without a display."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tonnetz.atomic import replacing

CELLS = 40  # classes up to which a matrix carries numbers and names


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making its folder."""
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def spectrogram_pairs(before: np.ndarray, after: np.ndarray, names: Sequence[str], step: float) -> Figure:
    """Spectrograms (B, F, T) of a few examples before (top) and after (bottom) augmentation, one scale a column.

    A frame lasts `step` seconds.
    """
    count = len(before)
    figure = _figure(3.2 * count, 5)
    axes = figure.subplots(2, count, squeeze=False, sharex=True, sharey=True)
    for i in range(count):
        low, high = np.percentile(before[i], [2, 99.8])
        for axis, values in zip(axes[:, i], (before[i], after[i]), strict=True):
            extent = (0, step * values.shape[1], 0, values.shape[0])
            axis.imshow(values, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma")
        axes[0, i].set_title(names[i], fontsize=9)
        axes[1, i].set_xlabel("seconds")
    axes[0, 0].set_ylabel("before\nbin")
    axes[1, 0].set_ylabel("after augmentation\nbin")
    return figure


def class_bars(values: Mapping[str, Sequence[float]], classes: Sequence[str], title: str) -> Figure:
    """Horizontal bars of per-class metrics, sorted by the first; NaN (undefined) is drawn as nothing."""
    order = np.argsort(np.nan_to_num(np.asarray(next(iter(values.values())), float)))
    figure = _figure(7, 1.2 + 0.28 * len(classes))
    axis = figure.subplots()
    height = 0.8 / len(values)
    for i, (name, scores) in enumerate(values.items()):
        places = np.arange(len(order)) + i * height
        axis.barh(places, np.nan_to_num(np.asarray(scores, float)[order]), height, label=name)
    axis.set_yticks(np.arange(len(order)) + 0.4 - height / 2, [classes[i] for i in order], fontsize=8)
    axis.set(xlim=(0, 1), title=title)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="lower right", fontsize=8)
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion counts (K true, K predicted) as a picture of row fractions."""
    size = max(5.0, 2 + 0.3 * len(classes))
    figure = _figure(size + 1, size)
    axis = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axis, shrink=0.7, label="fraction of the true class")
    axis.set(xlabel="predicted", ylabel="true", title=title)
    if len(classes) <= CELLS:
        axis.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axis.set_yticks(range(len(classes)), classes, fontsize=7)
        for i, j in zip(*np.nonzero(counts), strict=True):
            color = "w" if share[i, j] > 0.5 else "k"
            axis.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=6, color=color)
    return figure


def roc_curves(prob: np.ndarray, target: np.ndarray, classes: Sequence[str], area: Sequence[float]) -> Figure:
    """ROC curve of every class from (N, K) probabilities and targets (NaN = unknown), with its area."""
    figure = _figure(7.5, 6)
    axis = figure.subplots()
    order = np.argsort(np.nan_to_num(np.asarray(area, float)))
    for k in order:
        known = np.isfinite(target[:, k])
        hits = target[known, k][np.argsort(-prob[known, k], kind="stable")]
        if 0 < hits.sum() < len(hits):
            rate = np.r_[0, np.cumsum(hits) / hits.sum()], np.r_[0, np.cumsum(1 - hits) / (1 - hits).sum()]
            named = len(classes) <= CELLS or k in order[:10]
            axis.plot(rate[1], rate[0], lw=1, label=f"{classes[k]} {area[k]:.3f}" if named else None)
    axis.plot([0, 1], [0, 1], "k:", lw=0.8)
    axis.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        title="ROC per class, test files",
        xlim=(-0.01, 1),
        ylim=(0, 1.01),
    )
    figure.legend(loc="outside right center", fontsize=6, title="area", title_fontsize=7)
    return figure


def score_histogram(prob: np.ndarray, target: np.ndarray) -> Figure:
    """Probabilities of positive and of negative cells: how far apart are they?"""
    figure = _figure(6, 3.5)
    axis = figure.subplots()
    for value, name in ((0, "negative"), (1, "positive")):
        axis.hist(prob[target == value], bins=40, range=(0, 1), alpha=0.6, density=True, label=name)
    axis.set(xlabel="probability", ylabel="density", yscale="log", title="probabilities of test files")
    axis.legend()
    return figure


def curves(columns: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """Metrics over steps, losses on the left and scores on the right."""
    figure = _figure(11, 4)
    left, right = figure.subplots(1, 2)
    for name, points in columns.items():
        if points:
            axis = left if name.endswith("loss") else right
            axis.plot(*zip(*points, strict=True), label=name, lw=1.3)
    for axis, what in ((left, "loss"), (right, "score")):
        axis.set(xlabel="step", ylabel=what)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.suptitle(title)
    return figure


def box_figure(values: Mapping[str, Sequence[float]], label: str) -> Figure:
    """One box a setting, with its points, one below the other: names may be long."""
    names = [textwrap.fill(name, 44) for name in values]
    figure = _figure(8, 1.2 + sum(0.18 + 0.16 * (1 + name.count("\n")) for name in names))
    axis = figure.subplots()
    axis.boxplot(list(values.values()), tick_labels=names, widths=0.5, orientation="horizontal")
    for i, scores in enumerate(values.values(), 1):
        axis.plot(scores, [i] * len(scores), "o", ms=4, alpha=0.6)
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlabel(label)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    return figure


def works_histogram(sizes: Mapping[str, Sequence[int]], title: str) -> Figure:
    """How many works have how many performances: one histogram a split, stacked; wide ranges on a logarithmic axis."""
    figure = _figure(8, 4)
    axis = figure.subplots()
    most = max((max(values) for values in sizes.values() if len(values)), default=1)
    edges = np.arange(0.5, most + 1) if most <= CELLS else np.unique(np.geomspace(0.5, most + 1, 30).round(0) + 0.5)
    shown = {name: np.asarray(values) for name, values in sizes.items() if len(values)}
    labels = [f"{name}: {len(values)} works" for name, values in shown.items()]
    if shown:
        axis.hist(list(shown.values()), bins=edges.tolist(), stacked=True, label=labels, edgecolor="w", lw=0.3)
        axis.legend(fontsize=8)
    axis.set(xlabel="performances of a work", ylabel="works", title=title)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if most > CELLS:
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.3)
    return figure


def time_bars(seconds: Mapping[str, float], title: str) -> Figure:
    """Horizontal bars of milliseconds a batch."""
    figure = _figure(7, 1 + 0.4 * len(seconds))
    axis = figure.subplots()
    axis.barh(list(seconds)[::-1], [1000 * value for value in seconds.values()][::-1])
    axis.set(xlabel="milliseconds a batch", title=title)
    return figure


def works_map(points: np.ndarray, works: Sequence[str], unseen: Sequence[bool], title: str) -> Figure:
    """Tracks as points (N, 2) in the colour of their work; works that training never saw are crosses."""
    names = sorted(set(works))
    colours = matplotlib.colormaps["hsv"](np.linspace(0, 1, len(names) + 1)[:-1])
    colour = np.array([colours[names.index(work)] for work in works])
    new = np.asarray(unseen, bool)
    figure = _figure(8, 7)
    axis = figure.subplots()
    for chosen, mark, label in ((~new, "o", "works of the training split"), (new, "X", "unseen works")):
        if chosen.any():
            x, y = points[chosen].T
            axis.scatter(x, y, c=colour[chosen], marker=mark, s=45, lw=0.3, edgecolors="k", label=label)
    if len(names) <= CELLS:
        for name in names:
            middle = np.median(points[[work == name for work in works]], 0)
            axis.annotate(name, middle, fontsize=6, ha="center", alpha=0.8)
    for handle in axis.legend(fontsize=8).legend_handles:
        handle.set_color("0.5")  # type: ignore[union-attr]  # a colour stands for a work, the mark for the kind
    axis.set(xticks=[], yticks=[], title=title)
    return figure


def distance_histogram(within: np.ndarray, between: np.ndarray, title: str) -> Figure:
    """Distances of versions of one work and of recordings of different works, each as a density."""
    figure = _figure(7, 4)
    axis = figure.subplots()
    low, high = min(within.min(), between.min()), max(within.max(), between.max())
    edges = np.linspace(low, high + 1e-9, 60).tolist()
    for values, label in ((between, "different works"), (within, "same work")):
        axis.hist(values, edges, density=True, alpha=0.6, label=f"{label} ({len(values):,} pairs)")
    axis.legend(fontsize=8)
    axis.set(xlabel="distance", ylabel="density", title=title)
    axis.grid(alpha=0.3)
    return figure
