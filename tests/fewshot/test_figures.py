"""Pictures of few-shot answers show what loops count; the page of an episode plays every clip."""

import json
import re

import numpy as np
import pytest
import torch

from tests.fewshot.test_judging import EPISODES, NAMES, everything, made, queries
from tonnetz.fewshot.figures import (
    PROTOTYPE,
    RIGHT,
    SUPPORT,
    WRONG,
    coloured_tree,
    confusions,
    episode_space,
    head_boxes,
    level_weights,
    space_figure,
    space_page,
)
from tonnetz.fewshot.judging import Ladder
from tonnetz.taxonomy import Taxonomy

REFERENCE = "hornbostel_sachs"


@pytest.fixture(scope="module")
def ladder():
    return Ladder.of(NAMES, REFERENCE)


def drawn_counts(figure):
    """Cell (true, predicted) by names, as the picture has them written."""
    axis = figure.axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): int(text.get_text()) for text in axis.texts}
    return {(names[i], names[j]): count for (i, j), count in cells.items()}


def test_confusions_equal_a_loop(ladder):
    found = made()
    figures = confusions(found, ladder, "test")
    levels = [h for h in range(1, ladder.depth) if 1 < len(set(ladder.levels[:, h].tolist())) < len(NAMES)]
    assert set(figures) == {"confusion", *(f"confusion_level{h}" for h in levels)}
    assert levels
    for name, figure in figures.items():
        h = int(name.removeprefix("confusion_level")) if "level" in name else 0
        expected = {}
        for true, said, *_ in everything(found):
            pair = tuple(ladder.nodes[ladder.levels[code, h]] for code in (true, said))
            expected[pair] = expected.get(pair, 0) + 1
        assert drawn_counts(figure) == expected


def test_the_tree_has_the_accuracy_of_every_node(ladder):
    found, tree = made(), Taxonomy.load(REFERENCE)
    figure = coloured_tree(found, ladder, REFERENCE, "a title")
    shown = {}
    for text in figure.axes[0].texts:
        name, _, value = text.get_text().partition("  ")
        shown[name] = float(value)
    above = {name: {name, *tree.ancestors(name)} for name in NAMES}
    expected = {}
    for node in set.union(*above.values()):
        stays = [node in above[NAMES[s]] for t, s, *_ in everything(found) if node in above[NAMES[t]]]
        expected[node.replace("_", " ")] = np.mean(stays)
    assert shown.keys() == expected.keys()
    assert shown == pytest.approx(expected, abs=0.0051)
    assert len(expected) > len(NAMES) + 2


def test_boxes_are_those_of_the_episodes():
    answers = {n: {name: made(n + i, skill=0.4 * n) for i, name in enumerate(("one", "two", "three"))} for n in (1, 5)}
    figure = head_boxes(answers, "title")
    axis = figure.axes[0]
    medians = {
        float(np.mean(line.get_xdata())): line.get_ydata()[0] for line in axis.lines if str(line.get_color()) == "k"
    }
    for place, heads in zip((-0.2, 0.2), answers.values(), strict=True):  # fewer shots to the left
        for i, found in enumerate(heads.values()):
            each = [np.mean([t == s for t, s, *_ in queries(found, e)]) for e in range(EPISODES)]
            drawn = next(y for x, y in medians.items() if x == pytest.approx(i + place))
            assert drawn == pytest.approx(np.median(each))
    assert len(medians) == 6
    assert len(axis.patches) == 6
    assert [label.get_text() for label in axis.get_xticklabels()] == ["one", "two", "three"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1 shot", "5 shots"]


def test_weights_of_levels_are_drawn_in_order():
    figure = level_weights(torch.tensor([0.5, 0.3, 0.2], requires_grad=True), (1, 3))
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["classes", "level 1", "level 3"]
    assert axis.lines[0].get_ydata() == pytest.approx([0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def space(ladder):
    """The first of the made-up episodes; one class has a single support clip."""
    found = made()
    g = torch.Generator().manual_seed(0)
    z = torch.randn(len(NAMES) * 9 + 20, 6, generator=g)
    support = np.arange(12).reshape(4, 3) + len(NAMES) * 9
    support[1, 1:] = -1
    return episode_space(z, support, found, ladder, clips()), support, found


def clips():
    names = [f"clip {i}" for i in range(len(NAMES) * 9 + 20)]
    names[len(NAMES) * 9] = 'évil </script><b>"&'
    return names


def test_the_space_holds_support_prototypes_and_queries(space):
    found, support, answers = space
    rows = zip(found.roles, found.classes, found.answers, found.clips, strict=True)
    seen = {role: [] for role in (SUPPORT, PROTOTYPE, RIGHT, WRONG)}
    for role, *rest in rows:
        seen[role].append(tuple(rest))
    slots = [NAMES[code] for code in answers.classes[0].tolist()]
    names = clips()
    expected = [(slots[c], "", names[row]) for c, line in enumerate(support) for row in line if row >= 0]
    assert seen[SUPPORT] == expected
    assert seen[PROTOTYPE] == [(name, "", "") for name in slots]
    items = [(t == s, (NAMES[t], NAMES[s], names[row])) for t, s, _, row in queries(answers, 0)]
    assert seen[RIGHT] == [item for right, item in items if right]
    assert seen[WRONG] == [item for right, item in items if not right]
    assert seen[WRONG]
    assert found.points.shape == (len(found.roles), 2)
    assert np.isfinite(found.points).all()
    assert len(np.unique(found.points.round(6), axis=0)) > len(expected)
    assert space_figure(found, "title").axes[0].get_title() == "title"


def test_the_page_plays_every_clip(space):
    found = space[0]
    urls = {clip: f"file:///sounds/{i}.wav#t=0,1" for i, clip in enumerate(clips())}
    facts = {clip: {"midi": i % 5} for i, clip in enumerate(clips())}
    page = space_page([found, found], "5 < 6 & more", urls, facts)
    points, again = json.loads(re.search(r"const episodes = (\[.*\]);", page)[1])
    assert again == points
    assert [p["facts"] for p in points] == [facts.get(clip, {}) for clip in found.clips]
    assert [(p["role"], p["class"], p["answer"], p["clip"]) for p in points] == list(
        zip(found.roles, found.classes, found.answers, found.clips, strict=True)
    )
    assert [p["url"] for p in points] == [urls.get(clip, "") for clip in found.clips]
    assert all(bool(p["url"]) == (p["role"] != PROTOTYPE) for p in points)
    assert all(30 <= p["x"] <= 870 and 30 <= p["y"] <= 610 for p in points)
    assert page.count("</script>") == 1  # a clip's name does not end it
    assert "<title>5 &lt; 6 &amp; more</title>" in page
    assert all(f'"{role}": "M' in page for role in (SUPPORT, PROTOTYPE, RIGHT, WRONG))  # each has a shape
