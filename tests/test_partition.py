"""Parts of classes, against counts made by hand and properties over many seeds."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from tonnetz.errors import UserError
from tonnetz.partition import SIZES, partition
from tonnetz.taxonomy import Taxonomy

PARTS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def tree() -> Taxonomy:
    return Taxonomy.load("hornbostel_sachs")


@pytest.fixture(scope="module")
def counts(tree) -> dict[str, int]:
    """Every leaf but those that are no instruments, 1 to 132 examples each."""
    names = [name for name in tree.leaves() if tree.family(name) != "non_instruments"]
    return {name: 1 + 37 * i % 133 for i, name in enumerate(names)}


def plain(count: int) -> dict[str, int]:
    return {f"c{i:03}": 5 for i in range(count)}


def sizes(result) -> tuple[int, ...]:
    return tuple(len(own) for own in result.parts().values())


@pytest.mark.parametrize(
    ("fractions", "count", "expected"),
    [
        ((0.7, 0.2, 0.1), 20, (14, 4, 2)),
        ((0.6, 0.3, 0.1), 20, (12, 6, 2)),
        ((0.7, 0.15, 0.15), 7, (5, 1, 1)),  # 4.9 1.05 1.05
        ((0.5, 0.3, 0.2), 11, (6, 3, 2)),  # 5.5 3.3 2.2: the largest remainder is the first's
        ((0.9, 0.05, 0.05), 4, (2, 1, 1)),  # one each at least
        ((0.4, 0.2, 0.1, 0.1, 0.1, 0.1), 10, (4, 2, 1, 1, 1, 1)),
        ((1.0,), 3, (3,)),
        ((0.8, 0.0, 0.2), 10, (8, 0, 2)),
    ],
)
def test_sizes_by_hand(fractions, count, expected):
    names = [f"part{i}" for i in range(len(fractions))]
    result = partition(plain(count), None, dict(zip(names, fractions, strict=True)))
    assert sizes(result) == expected
    assert sorted(itertools.chain(*result.parts().values())) == sorted(plain(count))


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.1), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_sizes_that_do_not_sum_to_one(fractions):
    with pytest.raises(UserError, match=r"train 0?1?\.?\d.*valid.*test.*must be fractions that sum to 1"):
        partition(plain(20), None, dict(zip(PARTS, fractions, strict=True)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_node_in_every_part_when_possible(tree, counts, level, seed):
    result = partition(counts, tree, level=level, seed=seed)
    above = tree.levels(sorted(counts))
    nodes = above[:, tree.depth - level + 1] if level > 1 else np.zeros(len(counts))
    for node in set(nodes.tolist()):
        own = [result.splits[name] for name, up in zip(sorted(counts), nodes, strict=True) if up == node]
        assert len(set(own)) == min(3, len(own))
        name = tree.nodes[int(node)] if level > 1 else ""
        assert any(f"'{name}' (" in line for line in result.report) == (len(own) < 3)
    got = Counter(result.splits.values())
    for part in PARTS:
        assert abs(got[part] / len(counts) - SIZES[part]) < (0.2 if level == 3 else 0.05)


def test_the_same_for_a_seed_whatever_the_order(tree, counts):
    names = list(counts)
    np.random.default_rng(0).shuffle(names)
    first = partition(counts, tree, seed=3)
    again = partition({name: counts[name] for name in names}, tree, seed=3)
    assert first == again
    assert list(first.splits) == sorted(counts)
    assert partition(counts, tree, seed=4).splits != first.splits


def test_known_result():
    """Guards the split of a seed over versions: published numbers rest on it."""
    result = partition({name: i + 1 for i, name in enumerate("abcdefgh")}, None, {"x": 0.5, "y": 0.5}, seed=1)
    assert result.parts() == {"x": ["c", "e", "g", "h"], "y": ["a", "b", "d", "f"]}


def test_first_part_tends_to_have_the_most_examples():
    """A class with weight w of a total t comes first with probability w / t."""
    rich = {"a": 6, "b": 3, "c": 1}
    first = Counter()
    for seed in range(2000):
        first[partition(rich, None, {"x": 1 / 3, "y": 2 / 3}, seed=seed).parts()["x"][0]] += 1
    for name, weight in rich.items():
        assert first[name] / 2000 == pytest.approx(weight / 10, abs=0.04)


def test_nodes_of_one_class_go_where_classes_are_missing(tmp_path):
    path = tmp_path / "tree.yaml"
    path.write_text("\n".join(f"family{i}: [only{i}]" for i in range(10)))
    tree = Taxonomy.load(path)
    result = partition({f"only{i}": 1 for i in range(10)}, tree, {"train": 0.6, "valid": 0.2, "test": 0.2})
    assert sizes(result) == (6, 2, 2)
    assert sum("(1 class) is not in" in line for line in result.report) == 10


def test_a_flat_tree_has_no_families():
    flat = Taxonomy.load("flat")
    result = partition(dict.fromkeys(flat.leaves()[:20], 3), flat, {"train": 0.7, "valid": 0.2, "test": 0.1})
    assert sizes(result) == (14, 4, 2)


def test_held_out_families_are_in_their_part_alone(tree, counts):
    result = partition(counts, tree, held_out={"test": ["membranophones", "bowed lutes"]})
    wanted = {*tree.leaves("membranophones"), *tree.leaves("bowed_lutes")}
    assert set(result.parts()["test"]) == wanted
    rest = Counter(result.splits.values())
    assert rest["train"] / (rest["train"] + rest["valid"]) == pytest.approx(0.7 / 0.85, abs=0.03)
    assert any(line.startswith("test holds out: ") and "violin" in line for line in result.report)
    assert not any("is not in test" in line for line in result.report)


def test_fixed_classes_stay_and_count(tree, counts):
    wanted = {"train": ["Violin", "cor anglais"], "test": ["viola", "sung"]}
    for seed in range(5):
        result = partition(counts, tree, seed=seed, fixed=wanted)
        assert (result.splits["violin"], result.splits["english_horn"], result.splits["viola"]) == (
            "train",
            "train",
            "test",
        )
        assert {result.splits[name] for name in tree.leaves("sung")} == {"test"}
        voices = Counter(result.splits[name] for name in counts if tree.family(name) == "voice")
        assert voices == {"train": 7, "test": 4, "valid": 1}  # of 12; four are given, 8.4 and 1.8 wanted
        assert Counter(result.splits.values())["test"] / len(counts) == pytest.approx(0.15, abs=0.04)


def test_classes_above_one_another_stay_together(tree):
    names = ["saxophones", "alto_saxophone", "tenor_saxophone", "organs", "pipe_organ", "electronic_organ"]
    names += ["flute", "oboe", "clarinet", "trumpet", "trombone", "tuba", "violin", "viola", "cello", "piano"]
    for seed in range(10):
        result = partition(dict.fromkeys(names, 9), tree, seed=seed)
        assert len({result.splits[name] for name in names[:3]}) == 1
        assert len({result.splits[name] for name in names[3:6]}) == 1
    assert any("kept together in" in line and "saxophones" in line for line in result.report)


def test_every_part_has_a_minimum(tree, counts):
    free, asked = partition(counts, tree), partition(counts, tree, minimum=30)
    assert min(sizes(free)) < 30
    assert sizes(asked) == (73, 30, 30)
    for part in PARTS:  # families stay in every part
        assert {tree.family(name) for name in asked.parts()[part]} == {tree.family(name) for name in free.parts()[part]}
    with pytest.raises(UserError, match=r"gets \d+ of 133 classes, at least 50 wanted"):
        partition(counts, tree, minimum=50)
    assert sizes(partition({"violin": 3, "oboe": 3, "flute": 3}, tree)) == (1, 1, 1)
    with pytest.raises(UserError, match=r"'test' gets 0 of 2 classes, at least 1 wanted"):
        partition(plain(2), None)


def test_classes_without_examples_are_left_out(tree):
    result = partition({"violin": 3, "oboe": 3, "flute": 3, "gong": 0}, tree)
    assert "gong" not in result.splits
    assert "gong: has no example, left out" in result.report


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"fixed": {"test": ["viollin"]}}, r"^data\.fixed\.test: label 'viollin' .* did you mean 'violin'\?$"),
        ({"held_out": {"tset": ["violin"]}}, r"^data\.held_out\.tset: no such part; did you mean 'test'\?$"),
        (
            {"held_out": {"test": ["electrophones"]}},
            r"^data\.held_out\.test: no class with examples is 'electrophones'",
        ),
        ({"fixed": {"test": ["violin"], "train": ["violin"]}}, "'violin' is wanted in test and in train; name it once"),
        ({"fixed": {"test": ["violin"]}, "held_out": {"train": ["lutes"]}}, "'violin' is wanted in test.*name it once"),
        (
            {"fixed": {"test": ["saxophones"], "train": ["alto_saxophone"]}},
            "'alto_saxophone' is wanted in test and in train",
        ),
        (
            {"held_out": {part: [name] for part, name in zip(PARTS, ["violin", "oboe", "flute"], strict=True)}},
            "none is",
        ),
        ({"level": 5}, "level=5: must be from 1 .* to 4"),
        ({"level": 0}, "level=0"),
    ],
)
def test_mistakes_are_one_line(tree, keywords, message):
    names = ["violin", "viola", "oboe", "flute", "saxophones", "alto_saxophone", "gong", "cymbal", "triangle"]
    with pytest.raises(UserError, match=message) as caught:
        partition(dict.fromkeys(names, 4), tree, **keywords)
    assert "\n" not in str(caught.value)


def test_unknown_class(tree):
    with pytest.raises(UserError, match="'viollin' is not a node of the taxonomy; did you mean 'violin'"):
        partition({"viollin": 3, "viola": 3, "oboe": 3}, tree)


def test_without_a_tree_names_are_classes():
    assert partition(plain(9), None, fixed={"test": ["c004"]}).splits["c004"] == "test"
    with pytest.raises(UserError, match=r"fixed\.test: no class .*'c0044'.* did you mean 'c004'"):
        partition(plain(9), None, fixed={"test": ["c0044"]})
