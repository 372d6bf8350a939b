"""Sampling: every row once a pass, the same for any number of ranks, workers and interruptions."""

from itertools import chain

import numpy as np
import pytest

from tonnetz.ahead import ahead
from tonnetz.data.plan import Chunks, GroupStream, Plan, Stream, balance_weights, chances, evaluation_starts
from tonnetz.errors import UserError


def rows(stream, epochs=1):
    found = []
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        found += [row for batch in stream for _, row in batch]
    return found


def test_a_pass_holds_every_row_once_even_across_epochs():
    stream = Stream(10, 4, steps=3, seed=1)
    found = rows(stream, epochs=5)  # 60 draws = 6 passes of 10
    for start in range(0, 60, 10):
        assert sorted(found[start : start + 10]) == list(range(10))
    assert found[:10] != found[10:20]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_what_one_process_sees(world):
    whole = Stream(23, 8, steps=5, seed=3)
    parts = [Stream(23, 8 // world, steps=5, seed=3, rank=r, world=world) for r in range(world)]
    for stream in (whole, *parts):
        stream.set_epoch(2)
    for batch, *shares in zip(whole, *parts, strict=True):
        assert batch == [pair for share in shares for pair in share]


def test_skipped_batches_are_not_drawn_again():
    stream = Stream(9, 2, steps=6, seed=5)
    everything = list(stream)
    stream.skip = 4
    assert list(stream) == everything[4:]
    assert list(stream) == everything  # the next epoch is whole


def test_weights_draw_rare_rows_more_often():
    labels = np.zeros((100, 2), np.float32)
    labels[:90, 0] = labels[90:, 1] = 1
    weights = balance_weights(labels, "max")
    found = np.array(rows(Stream(100, 50, steps=200, seed=0, weights=weights)))
    assert abs((found >= 90).mean() - 0.5) < 0.02


@pytest.mark.parametrize("how", ["max", "mean", "median"])
def test_balance_weights_against_a_loop(how):
    random = np.random.default_rng(0)
    labels = (random.random((40, 5)) < 0.3).astype(np.float32)
    labels[random.random((40, 5)) < 0.2] = np.nan
    counts = [max(sum(row[k] == 1 for row in labels), 1) for k in range(5)]
    reduce = {"max": max, "mean": np.mean, "median": np.median}[how]
    expected = [
        reduce([1 / counts[k] for k in range(5) if row[k] == 1]) if (row == 1).any() else None for row in labels
    ]
    fill = np.mean([value for value in expected if value is not None])
    np.testing.assert_allclose(balance_weights(labels, how), [fill if v is None else v for v in expected])
    assert balance_weights(labels, "none") is None


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 7, 12])
def test_chunks_cover_everything_once(items, world):
    parts = [Chunks(items, 4, rank, world) for rank in range(world)]
    found = [i for part in parts for chunk in part for i in chunk]
    assert sorted(found) == list(range(items)) if items >= world else set(found) == set(range(items))
    assert all(len(part) > 0 for part in parts) == (items > 0)  # no rank may be left out
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]


def test_chances_are_uniform_and_depend_on_seed_and_position_alone():
    values = chances(7, np.arange(100_000))
    assert abs(values.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_array_equal(chances(7, np.array([5, 99])), values[[5, 99]])
    assert (chances(8, np.arange(10)) != values[:10]).all()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ahead_keeps_the_order_and_raises_where_it_happened(threads):
    assert list(ahead(lambda i: i * i, iter(range(20)), threads)) == [i * i for i in range(20)]
    results = ahead(lambda i: 1 // (3 - i), iter(range(10)), threads)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    "values", [{"seconds": 0}, {"hop": -1}, {"steps": 0}, {"source": "video"}, {"pad": "x"}, {"balance": "x"}]
)
def test_bad_plans(values):
    with pytest.raises(UserError, match=next(iter(values))):
        Plan(**values)


WORKS = np.array([3, 0, 0, 1, 7, 0, 1, 3, -1, 1, 1, 7, 0, 1, 5, -1])  # 5 works of 1, 2, 2, 4 and 5 rows, two unknown


@pytest.mark.parametrize("items", [1, 2, 3])
def test_every_batch_holds_distinct_groups_and_as_many_rows_of_each(items):
    stream = GroupStream(WORKS, 3 * items, items, steps=7, seed=1)
    for epoch in range(20):
        stream.set_epoch(epoch)
        for batch in stream:
            codes = WORKS[[row for _, row in batch]].reshape(3, items)
            assert (codes == codes[:, :1]).all()
            assert len(set(codes[:, 0])) == 3
            assert (codes >= 0).all()
            for code, rows in zip(codes[:, 0], np.reshape([row for _, row in batch], (3, items)), strict=True):
                assert len(set(rows)) == min(items, (code == WORKS).sum())  # else repeated


def test_a_pass_takes_every_group_once_but_for_the_rest():
    stream = GroupStream(WORKS, 4, 2, steps=2, seed=3)  # 2 of 5 groups a batch: two batches a pass, one group waits
    seen = []
    for epoch in range(400):
        stream.set_epoch(epoch)
        groups = [WORKS[row] for batch in stream for _, row in batch][::2]
        assert len(set(groups)) == 4
        seen += groups
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == 5
    assert (abs(counts / len(seen) - 0.2) < 0.02).all()


def test_group_positions_are_those_of_the_batches():
    stream = GroupStream(WORKS, 6, 2, steps=3, seed=2)
    stream.set_epoch(4)
    positions = [position for batch in stream for position, _ in batch]
    assert positions == list(range(4 * 18, 5 * 18))
    rows = np.array([row for epoch in range(2000) for row in _epoch(stream, epoch)])
    large = rows[WORKS[rows] == 0]  # four rows, of which two are drawn each time
    assert (abs(np.bincount(large, minlength=16)[[1, 2, 5, 12]] / len(large) - 0.25) < 0.02).all()


def _epoch(stream, epoch):
    stream.set_epoch(epoch)
    return [row for _, row in next(iter(stream))]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_group_batches(world):
    """Together they are the batch of one process, so no work is twice in it and a loss over all ranks sees the same."""
    size = {2: 4, 3: 2}[world]  # 2 groups or 1 of 2 items a rank
    whole = GroupStream(WORKS, size * world, 2, steps=6, seed=3)
    parts = [GroupStream(WORKS, size, 2, steps=6, seed=3, rank=r, world=world) for r in range(world)]
    for stream in (whole, *parts):
        stream.set_epoch(2)
    assert [list(chain(*batches)) for batches in zip(*parts, strict=True)] == list(whole)


def test_skipped_group_batches_are_not_drawn_again():
    stream = GroupStream(WORKS, 4, 2, steps=6, seed=5)
    everything = list(stream)
    stream.skip = 4
    assert list(stream) == everything[4:]
    assert list(stream) == everything


def test_an_epoch_of_groups_counts_small_ones_as_items():
    counted = 4 + 2 * 4 + 4 + 5
    assert len(GroupStream(WORKS, 8, 4)) == counted // 8
    assert len(GroupStream(WORKS, 8, 4, world=2)) == counted // 16
    assert len(GroupStream(WORKS, 4, 2, steps=9)) == 9


def test_groups_that_make_no_batch():
    with pytest.raises(UserError, match=r"3 groups x 4 items.*has 2 groups.*batch_size=8"):
        GroupStream(np.array([0, 0, 1, 1]), 12, 4)
    with pytest.raises(UserError, match=r"has one work .* two works or more.*data\.valid_unseen"):
        GroupStream(np.array([0, 0, 0]), 12, 4)
    with pytest.raises(UserError, match=r"has 2 works .*one recording each.*Add versions"):
        GroupStream(np.array([0, 1]), 12, 4)
    with pytest.raises(UserError, match=r"3 groups x 2 items on each of 2 devices.*has 5 groups.*batch_size=4"):
        GroupStream(WORKS, 6, 2, world=2)
    with pytest.raises(UserError, match=r"has 5 groups, fewer than trainer.devices=8"):
        GroupStream(WORKS, 2, 2, world=8)
    with pytest.raises(UserError, match=r"no multiple of task\.plan\.items=4"):
        GroupStream(WORKS, 6, 4)
    with pytest.raises(UserError, match=r"no training track names its group .*data=folder_works"):
        GroupStream(np.array([-1, -1]), 4, 4)


def test_every_length_comes_once_a_round():
    plan = Plan(seconds=[3.0, 5.0, 8.0, 13.0])
    drawn = [plan.length(7, batch) for batch in range(400)]
    rounds = [tuple(drawn[start : start + 4]) for start in range(0, 400, 4)]
    assert all(sorted(r) == [3, 5, 8, 13] for r in rounds)
    assert len(set(rounds)) > 12  # in many orders
    assert drawn == [plan.length(7, batch) for batch in range(400)]
    assert drawn != [plan.length(8, batch) for batch in range(400)]
    assert (plan.span, plan.lengths) == (3.0, (3.0, 5.0, 8.0, 13.0))
    assert Plan(seconds=4.0).length(0, 11) == 4.0
    assert Plan(seconds=[3, 5], window=20).span == 20


@pytest.mark.parametrize(
    "values",
    [
        {"seconds": []},
        {"seconds": [3.0, 0.0]},
        {"window": 0},
        {"items": 0},
        {"start": "end"},
        {"stretch": [1.2, 0.8], "source": "features"},
        {"stretch": [0.0, 1.0], "source": "features"},
        {"stretch": [0.8, 1.2]},
        {"stretch": [0.8], "source": "features"},
        {"tempi": [], "source": "features"},
        {"tempi": [1.0, -1.0], "source": "features"},
        {"tempi": [0.8, 1.0]},
    ],
)
def test_bad_plans_of_groups_and_tempi(values):
    with pytest.raises(UserError, match=next(iter(values))):
        Plan(**values)


@pytest.mark.parametrize("tempo", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("seconds", [3, 60, 61.5, 100, 119.9, 250, 300, 400])
def test_segments_of_long_recordings_lie_on_one_grid(seconds, tempo):
    """Windows of 60 s, segments of 4 s every half second: no hole, no double, whatever the length."""
    rate, size, step = 1000, 4000, 500
    plan = Plan(seconds=60.0, source="features", grid=(size, step))
    samples = int(seconds * rate)
    starts = evaluation_starts(plan, samples, rate, tempo)
    found = []
    for start in starts:
        length = min(samples - start, round(60 * rate * tempo))
        inside = np.arange(0, max(length - size * tempo, 0) + 1, step * tempo)
        found += list(start + inside)
    expected = np.arange(0, max(samples - size * tempo, 0) + 1e-6, step * tempo)
    np.testing.assert_allclose(found, expected, atol=1)


def test_without_a_grid_windows_reach_the_end():
    plan = Plan(seconds=10.0, hop=4.0)
    starts = evaluation_starts(plan, 25_500, 1000)
    assert starts.tolist() == [0, 4000, 8000, 12000, 15500]
