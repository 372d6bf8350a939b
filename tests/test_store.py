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
    out, lengths = store.read(np.array([2, 0]), np.array([3 * HOP, 8 * HOP]), 4 * HOP)
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
    out, _ = again.read(np.array([SHARD + 2]), np.array([0]), 3 * HOP)
    np.testing.assert_array_equal(out[0], features(SHARD + 2)[..., :4])


def test_another_front_end_is_refused(tmp_path):
    built(tmp_path, 2)
    with pytest.raises(UserError, match="another front-end"):
        FeatureStore(tmp_path / "store", "other", 1, BINS, HOP)
