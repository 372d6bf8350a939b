"""The picture of a tree: every name once, in order, in the colours of its values."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from tonnetz.taxonomy import Taxonomy
from tonnetz.tree_figure import draw_tree


@pytest.fixture(scope="module")
def tree() -> Taxonomy:
    return Taxonomy.load("hornbostel_sachs")


def drawn(figure):
    """Text -> (x, y), and the dots (N, 2) with their colours."""
    axis = figure.axes[0]
    dots = axis.collections[1]
    return {text.get_text(): text.xy for text in axis.texts}, dots.get_offsets(), dots.get_facecolors()


@pytest.mark.parametrize("count", [1, 35, 136])
def test_every_class_and_what_is_above_it(tree, count):
    classes = tree.leaves()[:: 136 // count][:count]
    figure = draw_tree(tree, classes, title="all of them")
    texts, dots, _ = drawn(figure)
    above = {name for leaf in classes for name in (leaf, *tree.ancestors(leaf))}
    assert set(texts) == {name.replace("_", " ") for name in above}
    assert len(dots) == len(above)
    rows = [texts[name.replace("_", " ")][1] for name in classes]
    assert rows == list(range(count))  # in the order of the tree, a row each
    assert len({texts[name.replace("_", " ")][0] for name in classes}) == 1
    width, height = figure.get_size_inches()
    assert width < 9
    assert height < 1.2 + 0.2 * count


def test_values_are_colours(tree):
    values = {"violin": 0.0, "viola": 1.0, "gong": float("nan"), "lutes": 0.5}
    texts, dots, colours = drawn(draw_tree(tree, ["violin", "viola", "gong", "saxophones"], values))
    shades = matplotlib.colormaps["viridis"]
    for text, expected in (
        ("violin  0.00", shades(0.0)),
        ("viola  1.00", shades(1.0)),
        ("lutes  0.50", shades(0.5)),
        ("gong", to_rgba("0.55")),
        ("saxophones", to_rgba("0.55")),
    ):
        (row,) = np.flatnonzero((dots == texts[text]).all(1))
        np.testing.assert_allclose(colours[row], expected, atol=0.01)


def test_parts_have_a_colour_and_a_legend(tree):
    figure = draw_tree(tree, ["violin", "viola", "gong"], parts={"violin": "train", "viola": "test", "gong": "train"})
    texts, dots, colours = drawn(figure)
    found = {
        name: tuple(colours[np.flatnonzero((dots == texts[name]).all(1))[0]]) for name in ("violin", "viola", "gong")
    }
    assert found["violin"] == found["gong"] != found["viola"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "test"]


def test_a_class_above_another(tree):
    texts, _, _ = drawn(draw_tree(tree, ["saxophones", "alto_saxophone"], {"saxophones": 0.25}))
    assert texts["saxophones  0.25"][0] < texts["alto saxophone"][0]
