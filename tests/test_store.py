"""The feature store: what goes in comes out, in crops; resumable; another front-end is refused."""

import numpy as np
import pytest

from tonnetz.errors import UserError
from tonnetz.store import SHARD, FeatureStore, take

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


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def replaced(change):
    return lambda path: np.save(path, change(np.load(path)))


DAMAGES = {
    "another number of bins": ("_data", replaced(lambda x: x[:, :-1]), "4 numbers of float16, not"),
    "another type": ("_data", replaced(lambda x: x.astype(np.float32)), "numbers of float32, not"),
    "fewer frames": ("_data", replaced(lambda x: x[:-1]), "not 33 x 5"),
    "features cut short": ("_data", cut, "cut short"),
    "no features": ("_data", empty, "cut short or no array"),
    "no number": ("_data", replaced(lambda x: np.where(x == x[12, 2], np.nan, x).astype(np.float16)), "NaN"),
    "places cut short": ("_index", cut, "cut short"),
    "no places": ("_index", empty, "cut short or no array"),
    "too few places": ("_index", replaced(lambda x: x[:-1]), "where its 3 recordings begin"),
    "places out of order": ("_index", replaced(lambda x: x[[0, 2, 1, 3]]), "where its 3 recordings begin"),
    "places of other features": ("_index", replaced(lambda x: x + x * 2), "33 x 5 numbers of float16, not 99 x 5"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_names_the_file_and_is_mended_by_deleting_it(tmp_path, damage):
    name, spoil, reason = DAMAGES[damage]
    expected, _ = built(tmp_path, 3).read(np.arange(3), np.zeros(3, np.int64), 8)
    path = getattr(built(tmp_path, 3), name)(0)
    spoil(path)
    with pytest.raises(UserError, match=rf"{reason}.*; delete it, it is made anew") as error:
        built(tmp_path, 3).read(np.arange(3), np.zeros(3, np.int64), 8)
    told = tmp_path / "store" / str(error.value).partition(": damaged")[0]
    assert told.exists()
    assert told == path or damage == "places of other features"  # nobody can say which of the two is wrong
    path.unlink()
    calls = []
    again = built(tmp_path, 3, calls)
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(again.read(np.arange(3), np.zeros(3, np.int64), 8)[0], expected)


def test_the_damaged_shard_is_named(tmp_path):
    store = built(tmp_path, SHARD + 2)
    replaced(lambda x: np.full_like(x, np.inf))(store._data(1))
    built(tmp_path, SHARD + 2).read(np.array([0]), np.array([0]), 4)
    with pytest.raises(UserError, match=store._data(1).name):
        built(tmp_path, SHARD + 2).read(np.array([0, SHARD + 1]), np.array([0, 0]), 4)


def test_a_damaged_description_is_named(tmp_path):
    built(tmp_path, 2)
    cut(tmp_path / "store" / "store.json")
    with pytest.raises(UserError, match=r"store\.json: damaged"):
        built(tmp_path, 2)


@pytest.mark.parametrize("tempo", [1.0, 0.7])
def test_decibels_are_exact_to_half_a_hundredth(tmp_path, tempo):
    x = np.random.default_rng(3).uniform(-180, 40, (1, BINS, 200)).astype(np.float32)
    exact = take([x[0].T], np.array([190]), 20, np.array([tempo]), -100.0)[0][0].T
    store = FeatureStore(tmp_path / "store", "abc", 1, BINS, HOP, -100.0, 0.01)
    store.build(["track"], lambda i: x)
    out, lengths = store.read(np.array([0]), np.array([190]), 20, np.array([tempo]))
    np.testing.assert_allclose(out[0, 0], exact, rtol=0, atol=0.00502)
    assert (out[0, 0, :, lengths[0] :] == -100).all()
    with pytest.raises(UserError, match="another front-end"):
        FeatureStore(tmp_path / "store", "abc", 1, BINS, HOP, -100.0)


@pytest.mark.parametrize(("value", "quantum", "most"), [(np.nan, None, 65504), (1e5, None, 65504), (-400, 0.01, 328)])
def test_what_cannot_be_stored_is_refused(tmp_path, value, quantum, most):
    store = FeatureStore(tmp_path / "store", "abc", 1, BINS, HOP, quantum=quantum)
    with pytest.raises(UserError, match=rf"/b\.wav: its features hold NaN, or more than {most}"):
        store.build(["/a.wav|44", "/b.wav|44"], lambda i: np.where(features(i) == 3, value if i else 3, features(i)))
