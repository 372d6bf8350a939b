"""Pictures of few-shot tests side by side: boxes over episodes, bars of instruments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Boxes = Mapping[str, Mapping[int, Sequence[float]]]  # setting -> shots -> values of episodes
COLUMNS = 4  # panels in a row


def shots_boxes(values: Boxes, label: str) -> Figure:
    """Boxes over episodes by number of shots, one colour a setting."""
    shots = sorted({n for mine in values.values() for n in mine})
    figure = Figure(figsize=(max(6.0, 1.6 + 0.45 * len(shots) * len(values)), 4.5), layout="constrained")
    axis = figure.subplots()
    colours = _colours(len(values))
    width = 0.8 / len(values)
    for i, (mine, colour) in enumerate(zip(values.values(), colours, strict=True)):
        places = np.arange(len(shots)) + (i - (len(values) - 1) / 2) * width
        kept = [(at, _clean(mine[n])) for at, n in zip(places, shots, strict=True) if n in mine]
        _boxes(axis, [each for _, each in kept], [at for at, _ in kept], 0.85 * width, colour)
    axis.set_xticks(np.arange(len(shots)), [str(n) for n in shots])
    axis.set(xlabel="shots", ylabel=label, title="episodes, means over seeds")
    axis.grid(axis="y", alpha=0.3)
    handles = [Patch(facecolor=colour, label=name) for name, colour in zip(values, colours, strict=True)]
    figure.legend(handles=handles, fontsize=7, loc="outside lower center", ncols=max(1, min(COLUMNS, len(values))))
    return figure


def settings_boxes(values: Mapping[str, Sequence[float]], runs: Mapping[str, Sequence[float]], label: str) -> Figure:
    """A horizontal box over episodes for every setting; points are the means of its runs."""
    names = list(values)[::-1]
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(names)), layout="constrained")
    axis = figure.subplots()
    for i, name in enumerate(names):
        _boxes(axis, [_clean(values[name])], [i], 0.6, "0.85", upright=False)
        axis.plot(runs[name], [i] * len(runs[name]), "o", ms=5, color="tab:red", zorder=3)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlabel=label, title="episodes, means over seeds; points: runs")
    axis.grid(axis="x", alpha=0.3)
    return figure


def instrument_bars(values: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    """Bars of every instrument, one panel a setting, in the order of the first; gains and losses in two colours."""
    names = sorted(next(iter(values.values())), key=lambda name: next(iter(values.values()))[name])
    columns = min(COLUMNS, len(values))
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(1.8 + 2.9 * columns, (1.3 + 0.22 * len(names)) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (setting, mine) in zip(axes.flat, values.items(), strict=False):
        widths = np.array([mine.get(name, np.nan) for name in names], float)
        axis.barh(range(len(names)), np.nan_to_num(widths), color=np.where(widths < 0, "tab:red", "tab:blue").tolist())
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(setting, fontsize=8, wrap=True)
        axis.axvline(0, color="k", lw=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="x", alpha=0.3)
    for axis in axes.flat[len(values) :]:
        axis.set_visible(False)
    figure.supxlabel(label, fontsize=9)
    return figure


def _boxes(
    axis: Axes,
    values: Sequence[np.ndarray],
    places: Sequence[float],
    width: float,
    colour: Any,
    upright: bool = True,
) -> None:
    shown = axis.boxplot(
        list(values),
        positions=places,
        widths=width,
        orientation="vertical" if upright else "horizontal",
        manage_ticks=False,
        patch_artist=True,
        flierprops={"ms": 2, "alpha": 0.4},
        medianprops={"color": "k"},
    )
    for box in shown["boxes"]:
        box.set_facecolor(colour)


def _clean(values: Sequence[float]) -> np.ndarray:
    numbers = np.array(values, float)
    return numbers[np.isfinite(numbers)]


def _colours(count: int) -> list[Any]:
    """Steps of one scale, so that neighbours in a sweep look alike."""
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.4, 0.95, count)]
