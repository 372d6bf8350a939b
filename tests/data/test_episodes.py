"""Batches of episodes: the same for any number of processes, workers and interruptions."""

import numpy as np
import pytest

from tonnetz.data import EpisodePlan
from tonnetz.data.episodes import EpisodeStream
from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Pool

PLAN = {"seconds": 1.0, "ways": 3, "shots": 2, "queries": 4, "episodes": 2, "steps": 5}


def stream(rank=0, world=1, seed=3, **words):
    pool = Pool(np.repeat(np.arange(6), 12), np.arange(72) // 2, [f"c{i}" for i in range(6)])
    return EpisodeStream(pool, EpisodePlan(**PLAN | words), seed, rank, world)


def test_a_batch_holds_whole_episodes():
    for batch in stream():
        assert batch.shape == (2 * 3 * (2 + 4), 5)
        for episode in (0, 1):
            mine = batch[batch[:, 2] == episode]
            assert sorted(np.unique(mine[:, 3])) == [0, 1, 2]
            assert mine[:, 4].sum() == 6
            for slot in range(3):
                rows = mine[mine[:, 3] == slot, 1]
                assert len(set(rows // 12)) == 1
                assert len(set(rows)) == 6
                side = mine[mine[:, 3] == slot, 4]
                assert not set(rows[side == 1] // 2) & set(rows[side == 0] // 2)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_episodes_of_one_process(world):
    whole = [b[:, 1:] for b in list(stream(steps=6))]
    parts = [[b[:, 1:] for b in stream(rank, world, steps=6 // world)] for rank in range(world)]
    dealt = [parts[i % world][i // world] for i in range(6)]
    assert all((a == b).all() for a, b in zip(whole, dealt, strict=True))
    assert (parts[0][0] != parts[1][0]).any()


def test_epochs_and_resumes_go_on_where_they_were():
    first = stream()
    everything = list(first)
    first.skip = 3
    assert all((a == b).all() for a, b in zip(first, everything[3:], strict=True))
    first.set_epoch(1)
    assert (next(iter(first))[:, 1] != everything[0][:, 1]).any()


def test_ways_and_shots_are_drawn_from_ranges():
    batches = list(stream(ways=[2, 5], shots=[1, 4], steps=40))
    ways = {int(b[:, 3].max()) + 1 for b in batches}
    shots = {int(b[(b[:, 2] == 0) & (b[:, 3] == 0), 4].sum()) for b in batches}
    assert ways == {2, 3, 4, 5}
    assert shots == {1, 2, 3, 4}
    positions = np.concatenate([b[:, 0] for b in batches])
    assert len(set(positions)) == len(positions)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"ways": 1}, "task.plan.ways=1"),
        ({"shots": [5, 2]}, r"task.plan.shots=\[5, 2\]"),
        ({"shots": [1, 2, 3]}, "no range"),
        ({"queries": 0}, "task.plan.queries=0"),
        ({"episodes": 0}, "episodes=0"),
        ({"steps": None}, "steps=None"),
        ({"disjoint": "day"}, "task.plan.disjoint=day"),
        ({"insufficient": "skip"}, "task.plan.insufficient=skip"),
    ],
)
def test_impossible_plans_are_refused(words, match):
    with pytest.raises(UserError, match=match):
        EpisodePlan(**PLAN | words)
