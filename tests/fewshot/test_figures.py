"""Pictures of few-shot answers show what loops count; the page of an episode plays every clip."""

import json
import re
import shutil
import subprocess

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
    assert found.deep.shape == (len(found.roles), 3)
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
    deep = np.array([p["deep"] for p in points])
    assert np.linalg.norm(deep, axis=1).max() == pytest.approx(1, abs=2e-3)
    expected = found.deep - found.deep.mean(0)  # turned, moved and scaled alone
    assert deep * np.linalg.norm(expected, axis=1).max() == pytest.approx(expected, abs=2e-3 * np.abs(expected).max())
    assert all(30 <= p["x"] <= 870 and 30 <= p["y"] <= 610 for p in points)
    assert page.count("</script>") == 1  # a clip's name does not end it
    assert "<title>5 &lt; 6 &amp; more</title>" in page
    assert all(f'"{role}": "M' in page for role in (SUPPORT, PROTOTYPE, RIGHT, WRONG))  # each has a shape


PAPER = """
const parts = {}, listeners = {};
function element() {
  return {attributes: {}, children: [], style: {}, setAttribute(k, v) { this.attributes[k] = v; },
    append(...more) {  // an element that is there already moves
      this.children = this.children.filter(c => !more.includes(c)); this.children.push(...more);
      if (this.value === undefined && more[0].word !== undefined) this.value = more[0].word; },
    replaceChildren() { this.children = []; }, addEventListener(kind, call) { this[kind] = call; }, play() {}};
}
globalThis.Option = function (word, value) { return {word: value}; };
globalThis.document = {
  getElementById: id => parts[id] ??= element(), createElement: element, createElementNS: element};
"""
ASK = """
const shown = () => parts.map.children.map(m => [m.children[0].textContent, m.attributes.transform]);
const told = {flat: shown()};
parts.deep.checked = true; parts.deep.change(); told.deep = shown();
parts.map.pointermove({buttons: 0, movementX: 30, movementY: 0}); told.still = shown();
parts.map.pointermove({buttons: 1, movementX: 30, movementY: -9}); told.turned = shown();
parts.deep.checked = false; parts.deep.change(); told.again = shown();
parts.map.children[0].click(); told.said = parts.said.textContent;
console.log(JSON.stringify(told));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script, which takes node")
def test_the_page_turns_its_marks(space):
    found = space[0]
    page = space_page([found, found], "title", {})
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    done = subprocess.run(["node", "-e", PAPER + script + ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    points = json.loads(re.search(r"const episodes = (\[.*\]);", page)[1])[0]
    assert told["flat"] == told["again"]
    assert told["deep"] == told["still"] != told["turned"]
    assert told["flat"][0][0] == told["said"]
    assert [where for _, where in told["flat"]] == [f"translate({p['x']:g},{p['y']:g}) scale(1)" for p in points]
    for key, a, b in (("deep", 0.6, 0.4), ("turned", 0.6 + 30 / 150, 0.4 - 9 / 150)):
        level = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
        tilt = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
        where = np.array([p["deep"] for p in points]) @ (np.array(tilt) @ np.array(level)).T
        where = where[where[:, 2].argsort(kind="stable")]  # far ones are drawn first
        drawn = [[float(x) for x in re.findall(r"-?[\d.]+(?:e-?\d+)?", place)] for _, place in told[key]]
        expected = np.c_[450 + 290 * where[:, 0], 320 + 290 * where[:, 1], 1 + where[:, 2] / 3]
        assert np.array(drawn) == pytest.approx(expected, abs=1e-6)
