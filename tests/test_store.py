"""The feature store: what goes in comes out, in crops; resumable; another front-end is refused."""

import numpy as np
import pytest

from tonnetz.errors import UserError
from tonnetz.store import SHARD, FeatureStore

HOP, BINS = 160, 5


def features(i):
    """(1, F, T) of recording i; exact in half precision."""
    frames = 10 + i % 7
    return np.arange(frames * BINS, dtype=np.float32).reshape(1, BINS, frames) % 512 - i % 5


def built(tmp_path, count, calls=None):
    def compute(i):
        if calls is not None:
            calls.append(i)
        return features(i)

    store = FeatureStore(tmp_path / "store", "abc", 1, BINS, HOP)
    store.build([f"track {i}" for i in range(count)], compute)
    return store


def test_crops(tmp_path):
    store = built(tmp_path, 3)
    out, lengths = store.read(np.array([2, 0]), np.array([3, 8]), 5)
    np.testing.assert_array_equal(out[0], features(2)[..., 3:8])
    assert lengths.tolist() == [5, 2]
    np.testing.assert_array_equal(out[1, ..., :2], features(0)[..., 8:])
    assert (out[1, ..., 2:] == features(0)[..., 8:].min()).all()


def test_building_goes_on_where_it_stopped(tmp_path):
    calls = []
    store = built(tmp_path, SHARD + 5, calls)
    assert len(calls) == SHARD + 5
    calls.clear()
    built(tmp_path, SHARD + 5, calls)
    assert calls == []
    store._index(1).unlink()  # the second shard was not finished
    again = built(tmp_path, SHARD + 5, calls)
    assert calls == list(range(SHARD, SHARD + 5))
    out, _ = again.read(np.array([SHARD + 2]), np.array([0]), 4)
    np.testing.assert_array_equal(out[0], features(SHARD + 2)[..., :4])


def test_another_front_end_is_refused(tmp_path):
    built(tmp_path, 2)
    with pytest.raises(UserError, match="another front-end"):
        FeatureStore(tmp_path / "store", "other", 1, BINS, HOP)


def test_a_floor_fills_what_a_recording_lacks(tmp_path):
    built(tmp_path, 2)
    store = FeatureStore(tmp_path / "store", "abc", 1, BINS, HOP, floor=-100.0)
    store.build(["track 0", "track 1"], features)
    out, lengths = store.read(np.array([0]), np.array([7]), 5)
    assert lengths.tolist() == [3]
    assert (out[0, ..., 3:] == -100).all()
    again, lengths = store.read(np.array([0, 0]), np.array([0, 7]), 13, repeat=True)
    np.testing.assert_array_equal(again[0], features(0)[..., [*range(10), 0, 1, 2]])
    assert (again[1, ..., 3:] == -100).all()  # the end of a recording is not its start
    assert lengths.tolist() == [13, 3]


@pytest.mark.parametrize("tempo", [0.5, 0.8, 1.5])
def test_another_tempo_reads_more_or_fewer_frames(tmp_path, tempo):
    store = FeatureStore(tmp_path / "store", "abc", 1, 1, HOP)
    line = np.arange(100, dtype=np.float32)[None, None]
    store.build(["line"], lambda i: line)
    out, lengths = store.read(np.array([0]), np.array([10]), 20, np.array([tempo]))
    wide = round(20 * tempo)
    expected = np.interp((np.arange(20) + 0.5) * wide / 20 - 0.5, np.arange(wide), np.arange(10, 10 + wide))
    np.testing.assert_allclose(out[0, 0, 0], expected, atol=1e-3)
    assert lengths.tolist() == [20]
    out, lengths = store.read(np.array([0]), np.array([95]), 20, np.array([tempo]))
    assert lengths.tolist() == [min(20, round(5 / tempo))]


def test_threads_build_the_same(tmp_path):
    one, four = (FeatureStore(tmp_path / name, "abc", 1, BINS, HOP) for name in ("one", "four"))
    keys = [f"track {i}" for i in range(2 * SHARD + 3)]
    one.build(keys, features)
    four.build(keys, features, threads=4)
    for store in (one, four):
        store.out = store.read(np.arange(len(keys)), np.zeros(len(keys), int), 9)[0]
    np.testing.assert_array_equal(one.out, four.out)
