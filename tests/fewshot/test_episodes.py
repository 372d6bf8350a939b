"""Episodes: keyed draws, sides that share nothing, enough clips or a clear word."""

import json

import numpy as np
import pytest

from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Episodes, Pool, draw_many, left_out, load_episodes, save_episodes

NAMES = [f"class{i}" for i in range(8)]


def pool(units=True, each=24, per_unit=3, related=None):
    """Eight classes of clips, three clips a recording; five clips more have no class."""
    groups = np.concatenate([np.repeat(np.arange(8), each), np.full(5, -1)])
    return Pool(groups, np.arange(len(groups)) // per_unit if units else None, NAMES, related)


@pytest.mark.parametrize("units", [True, False])
def test_no_clip_or_recording_is_on_both_sides(units):
    found = pool(units)
    for i in range(200):
        fit = found.sufficient(5, 10, 5)
        classes, support, query, unknown = found.draw([1, 2, i], fit, 5, 5, 10, unknown=2)
        assert len(set(classes)) == 5
        assert list(classes) == sorted(classes)
        for code, shown, asked in zip(classes, support, query, strict=True):
            assert (found.groups[shown] == code).all()
            assert (found.groups[asked] == code).all()
            assert len({*shown, *asked}) == 15
            if units:
                assert not set(shown // 3) & set(asked // 3)
        strange = {int(found.groups[row]) for rows in unknown for row in rows}
        assert len(strange) == 2
        assert not strange & set(classes.tolist())


def test_support_comes_from_as_many_recordings_as_there_are():
    found = pool(each=30, per_unit=10)
    for i in range(20):
        _, support, _, _ = found.draw([i], found.sufficient(5, 10, 5), 5, 5, 10)
        assert all(len(set(rows // 10)) == 1 for rows in support)  # two recordings are needed for the queries
    wide = pool(each=60, per_unit=10)
    _, support, _, _ = wide.draw([0], wide.sufficient(6, 6, 5), 5, 6, 6)
    assert all(len(set(rows // 10)) == 3 for rows in support)


def test_an_episode_depends_on_its_key_alone():
    ten, three = (draw_many(pool(), count, 5, 5, 10, seed=7, part=2) for count in (10, 3))
    assert (ten.part(0, 3).support == three.support).all()
    assert (ten.part(0, 3).query == three.query).all()
    other = draw_many(pool(), 3, 5, 5, 10, seed=8, part=2)
    assert (other.classes != three.classes).any() or (other.support != three.support).any()
    elsewhere = draw_many(pool(), 3, 5, 5, 10, seed=7, part=1)
    assert (elsewhere.support != three.support).any()


def test_classes_are_drawn_uniformly():
    found = draw_many(pool(), 800, 4, 1, 1, seed=0)
    counts = np.bincount(found.classes.ravel(), minlength=8)
    assert abs(counts / 800 - 0.5).max() < 0.06


def test_fewer_shots_are_the_first_of_more():
    found = draw_many(pool(), 4, 5, 5, 10, seed=0)
    assert (found.fewer(2).support == found.support[:, :, :2]).all()
    assert (found.fewer(2).query == found.query).all()


def test_replacement_keeps_nothing_apart():
    found = draw_many(pool(each=16), 50, 5, 8, 8, seed=0, again=True)
    both = [set(s) & set(q) for s, q in zip(found.support.reshape(-1, 8), found.query.reshape(-1, 8), strict=True)]
    assert any(both)


def test_too_few_clips_are_named_with_their_count():
    groups = np.array([0] * 3 + [1] * 30 + [2] * 30)
    short = Pool(groups, None, ["harp", "oboe", "flute"])
    with pytest.raises(UserError, match=r"class 'harp' has 3 clips.*5 for support and 12"):
        short.sufficient(5, 12, 2)
    assert short.sufficient(5, 12, 2, "drop").tolist() == [1, 2]
    with pytest.raises(UserError, match=r"task.plan.ways=3: the train split has 2 classes.*oboe, flute.*fewer ways"):
        short.sufficient(5, 12, 3, "drop")
    with pytest.raises(UserError, match=r"task.evaluation.ways=2: the test split has 1 class .*\(.*\); give it more"):
        Pool(np.zeros(30, int), None, ["harp"]).sufficient(5, 12, 2, stage="test")
    assert short.dropped(5, 12, "drop") == {"harp": 3}
    assert short.dropped(2, 12, "fewer") == short.dropped(5, 12, "fail") == {}
    assert left_out("test", {"harp": 3, "oboe": 1}, 5, 12, "drop").endswith("harp (3 clips), oboe (1 clip)")


def test_a_class_of_one_recording_cannot_be_told_from_it():
    units = np.array([0] * 30 + [*range(1, 31)])
    found = Pool(np.repeat([0, 1], 30), units, ["bongo", "flute"])
    with pytest.raises(UserError, match="class 'bongo' has 30 clips of 1 recordings"):
        found.sufficient(5, 10, 2)


def test_fewer_queries_where_there_are_no_more():
    found = Pool(np.array([0] * 8 + [1] * 30), None, ["harp", "oboe"])
    episodes = draw_many(found, 5, 2, 5, 10, seed=0, insufficient="fewer")
    assert ((episodes.query >= 0).sum(2) == [[3, 10]] * 5).all()


def test_a_class_and_the_one_above_it_never_meet():
    related = np.zeros((8, 8), bool)
    related[0, 1] = related[1, 0] = True
    found = draw_many(pool(related=related), 200, 5, 2, 2, seed=0)
    assert not any({0, 1} <= set(line) for line in found.classes.tolist())
    assert any(0 in line for line in found.classes.tolist())
    with pytest.raises(UserError, match="above one another"):
        draw_many(pool(related=np.ones((8, 8), bool)), 1, 2, 2, 2, seed=0)


def test_lists_of_episodes_come_back_as_they_were(tmp_path):
    ids = [f"clip/{i}" for i in range(24 * 8 + 5)]
    found = draw_many(pool(), 6, 4, 3, 5, seed=0, unknown=1)
    save_episodes(found, tmp_path / "list.jsonl", ids, NAMES)
    again = load_episodes(tmp_path / "list.jsonl", ids, NAMES)
    for name in ("classes", "support", "query", "unknown"):
        assert (getattr(found, name) == getattr(again, name)).all()
    assert isinstance(again, Episodes)


def test_bad_lists_are_refused(tmp_path):
    path = tmp_path / "list.jsonl"
    with pytest.raises(UserError, match="no such list"):
        load_episodes(path, ["a"], ["x"])
    path.write_text("hello")
    with pytest.raises(UserError, match="not a list of episodes"):
        load_episodes(path, ["a"], ["x"])
    path.write_text(json.dumps({"classes": ["x"], "support": [["a"]], "query": [["b"]], "unknown": []}))
    with pytest.raises(UserError, match="'b' is not in this split"):
        load_episodes(path, ["a"], ["x"])
    path.write_text("")
    with pytest.raises(UserError, match="holds no episode"):
        load_episodes(path, ["a"], ["x"])
