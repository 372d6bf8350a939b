"""A tree of classes as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tonnetz.taxonomy import Taxonomy

INCH = 1.3  # width of a level, enough for the longest names
CROWDED = 60  # classes from which on lines move together
GREY = "0.55"


def draw_tree(
    taxonomy: Taxonomy,
    nodes: Sequence[str],
    values: Mapping[str, float] | None = None,
    title: str = "",
    *,
    label: str = "accuracy",
    parts: Mapping[str, str] | None = None,
) -> Figure:
    """Draw the tree above some classes, families at the left and class names at the right.

    Args:
        taxonomy: the tree that the nodes are of.
        nodes: the classes: leaves, groups, or inner nodes.
        values: a number in [0, 1] for nodes, classes or not; it gives them their colour. NaN is drawn as unknown.
        title: above the picture.
        label: what the values are, beside the colour bar.
        parts: instead of values: the name of the part that a class belongs to, a colour each in order of appearance.
    """
    tree = taxonomy.pruned(nodes)
    order = _order(tree)
    place = _places(tree, order)
    ends = {name for name in order if name not in tree.inner}
    rows = len(ends)
    space = 0.19 if rows <= CROWDED else 0.135
    columns = max((x for x, _ in place.values()), default=1)
    figure = Figure(figsize=(INCH * columns + 2.6, 1.1 + space * rows), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set(xlim=(-0.06, columns + 1.25), ylim=(rows - 0.4, -0.6))
    axis.set_title(title, fontsize=10)
    axis.add_collection(LineCollection(_lines(tree, place), colors="0.75", linewidths=0.9, zorder=1))
    colours = _part_colours(axis, parts) if parts else _value_colours(figure, axis, values or {}, label)
    marks = colours if not parts else {name: colours[part] for name, part in parts.items()}
    chosen = set(nodes)
    dots = [marks.get(name, GREY) for name in order]
    sizes = [20 if name in chosen else 12 for name in order]
    across, down = np.array([place[name] for name in order]).T
    axis.scatter(across, down, s=sizes, c=dots, edgecolors="0.3", linewidths=0.4, zorder=3)
    for name in order:
        _name(axis, name, place[name], name in ends, name in chosen, (values or {}).get(name))
    return figure


def _name(axis: Axes, name: str, at: tuple[float, float], end: bool, chosen: bool, value: float | None) -> None:
    """The name right of an end of the tree, and over the line to any other node; classes are darker."""
    known = value is not None and np.isfinite(value)
    text = name.replace("_", " ") + (f"  {value:.2f}" if known else "")
    size, colour = (7, "k") if chosen else (6, "0.35")
    offset, side, height = ((5, 0), "left", "center") if end else ((-5, 1), "right", "bottom")
    axis.annotate(
        text, at, offset, textcoords="offset points", ha=side, va=height, fontsize=size, color=colour, zorder=4
    )


def _order(tree: Taxonomy) -> list[str]:
    """All nodes from the top, depth first."""
    below: dict[str | None, list[str]] = {}
    for name in tree.nodes:
        below.setdefault(tree.parent(name), []).append(name)
    order, todo = [], below.get(None, [])[::-1]
    while todo:
        order.append(todo.pop())
        todo += below.get(order[-1], [])[::-1]
    return order


def _places(tree: Taxonomy, order: Sequence[str]) -> dict[str, tuple[float, float]]:
    """x: the level, leaves in one column; y: a row for each leaf, the middle of its children for other nodes."""
    columns = max((tree.level(name) for name in order), default=0) + 1
    leaves = {name: float(row) for row, name in enumerate(name for name in order if name not in tree.inner)}
    rows = dict(leaves)
    for name in reversed(order):
        if name not in leaves:
            own = [rows[child] for child in order if tree.parent(child) == name]
            rows[name] = (min(own) + max(own)) / 2
    return {name: (columns if name in leaves else tree.level(name) + 1.0, rows[name]) for name in order}


def _lines(tree: Taxonomy, place: Mapping[str, tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """From each node to the left, up or down to its parent's row."""
    tops = [y for name, (_, y) in place.items() if tree.parent(name) is None]
    root = (0.0, (min(tops) + max(tops)) / 2)
    lines = []
    for name, (x, y) in place.items():
        up = tree.parent(name)
        left, top = root if up is None else place[up]
        lines.append([(left, top), (left, y), (x, y)])
    return lines


def _value_colours(figure: Figure, axis: Axes, values: Mapping[str, float], label: str) -> dict[str, str]:
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    if not known:
        return {}
    shades = matplotlib.colormaps["viridis"]
    scale = ScalarMappable(Normalize(0, 1), shades)
    bar = figure.colorbar(scale, ax=axis, orientation="horizontal", aspect=40, pad=0.01, shrink=0.6)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return {name: to_hex(shades(float(value))) for name, value in known.items()}


def _part_colours(axis: Axes, parts: Mapping[str, str]) -> dict[str, str]:
    """A colour for each part, in order of appearance, and its legend."""
    names = list(dict.fromkeys(parts.values()))
    colours = {name: f"C{i % 10}" for i, name in enumerate(names)}
    marks = [Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in colours.items()]
    axis.figure.legend(handles=marks, loc="outside lower center", ncols=6, fontsize=8)
    return colours
