"""Alignment: known offsets and tempi are found, against naive loops; the file is looked up by arrays."""

import numpy as np
import pytest
import torch

from tonnetz.alignment import (
    Alignment,
    align,
    best_run,
    compose,
    lag,
    lay,
    line,
    read_line,
    regular,
    same_work_pairs,
    similarities,
    skew,
    votes,
    warp,
    write,
)
from tonnetz.errors import UserError
from tonnetz.transposition import transpose, turn_towards

HOP, WINDOW = 5.0, 15.0


def path(seconds, seed, dim=64):
    """A smooth walk through the space of vectors: what windows of a piece would give, as a function of time."""
    random = np.random.default_rng(seed)
    knots = random.standard_normal((int(seconds / 6) + 3, dim))

    def at(t):
        place = np.clip(np.asarray(t) / 6, 0, len(knots) - 1.001)
        low = place.astype(int)
        share = (place - low)[:, None]
        vectors = (1 - share) * knots[low] + share * knots[low + 1]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return at


def stack(*tracks):
    """Vectors, first and count of several recordings."""
    count = np.array([len(t) for t in tracks])
    return torch.from_numpy(np.concatenate(tracks)).float(), np.cumsum(count) - count, count


def naive_lag(s, minimum):
    n, m = s.shape
    need = max(1, min(minimum, n, m))
    means = {}
    for k in range(-(n - 1), m):
        cells = [s[i, i + k] for i in range(n) if 0 <= i + k < m]
        if len(cells) >= need:
            means[k] = float(np.mean(cells))
    best = max(means, key=lambda k: (means[k], -k))
    others = sorted(v for k, v in means.items() if k != best)
    place, sure = best, 0.0
    if others and min(n, m) >= minimum:
        sure = means[best] - others[(len(others) - 1) // 2]  # the lower median, as torch's
    if best - 1 in means and best + 1 in means:
        left, top, right = means[best - 1], means[best], means[best + 1]
        if left - 2 * top + right < 0:
            place += np.clip(0.5 * (left - right) / (left - 2 * top + right), -0.5, 0.5)
    return place, sure


@pytest.mark.parametrize("seed", range(40))
def test_lag_equals_the_naive_search(seed):
    random = np.random.default_rng(seed)
    n, m = random.integers(1, 12, 2)
    s = random.uniform(-1, 1, (n, m))
    padded = torch.full((2, 12, 12), torch.nan, dtype=torch.float64)
    padded[:, :n, :m] = torch.from_numpy(s)
    for given in (torch.from_numpy(s)[None], padded):
        place, sure = lag(given)
        expected = naive_lag(s, 3)
        assert place[0].item() == pytest.approx(expected[0], abs=1e-6)
        assert sure[0].item() == pytest.approx(expected[1], abs=1e-6)


def test_skew_sums_diagonals():
    values = torch.rand(3, 5, 7, dtype=torch.float64)
    sums = skew(values)
    expected = [[np.trace(v, offset=k) for k in range(-4, 7)] for v in values.numpy()]
    np.testing.assert_allclose(sums, expected)


@pytest.mark.parametrize("method", ["lag", "votes", "tempo", "dtw"])
def test_identical_recordings_do_not_shift_and_a_delayed_one_does(method):
    at = path(200, 1)
    times = np.arange(0, 100, HOP)
    other = path(200, 2)
    delayed = np.concatenate([other(np.arange(0, 30, HOP)), at(times)])  # thirty seconds of something else before
    vectors, first, count = stack(at(times), at(times), delayed, other(times + 90))
    pairs = np.array([[0, 1], [0, 2], [2, 0], [0, 3]])
    found = align(vectors, first, count, pairs, WINDOW, HOP, method)
    np.testing.assert_allclose(found["shift"][:3], [0, 30, -30], atol=0.2 * HOP)
    np.testing.assert_allclose(found["ratio"][:3], 1, atol=0.02)
    assert found["confidence"][:3].min() > 0.5
    assert found["confidence"][3] < 0.5 * found["confidence"][:3].min()


def test_fractions_of_a_hop_are_refined():
    at = path(200, 3)
    vectors, first, count = stack(at(np.arange(20, 110, HOP)), at(np.arange(22, 110, HOP)))
    found = align(vectors, first, count, np.array([[0, 1]]), WINDOW, HOP)
    assert found["shift"][0] == pytest.approx(-2, abs=1)


@pytest.mark.parametrize("method", ["tempo", "dtw"])
@pytest.mark.parametrize("ratio", [0.7, 0.85, 1.0, 1.2, 1.4])
def test_tempo_and_shift_are_found(ratio, method):
    at = path(400, 4)
    middles = np.arange(0, 150, HOP) + WINDOW / 2
    there = (np.arange(0, 170, HOP) + WINDOW / 2 - 8) / ratio  # t_b = ratio t_a + 8
    vectors, first, count = stack(at(middles), at(np.clip(there, 0, None)))
    found = align(vectors, first, count, np.array([[0, 1]]), WINDOW, HOP, method)
    assert found["ratio"][0] == pytest.approx(ratio, abs=0.04)
    assert found["shift"][0] == pytest.approx(8, abs=HOP / 2)
    assert found["confidence"][0] > 0.5


@pytest.mark.parametrize("method", ["tempo", "dtw"])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_tempo_is_found_among_dense_noisy_windows(ratio, method):
    """Windows of 4 s every half second, half of each vector noise; only a middle part is common."""
    random = np.random.default_rng(7)
    at, other = path(400, 8), path(400, 9)

    def noisy(vectors):
        noise = random.standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])
        return (vectors + 0.7 * noise) / np.linalg.norm(vectors + 0.7 * noise, axis=1, keepdims=True)

    a = at(np.arange(0, 80, 0.5) + 2)
    b = at((np.arange(0, 100, 0.5) + 2 - 10) / ratio)  # t_b = ratio t_a + 10
    b[:30], b[150:] = other(np.arange(0, 15, 0.5)), other(np.arange(100, 125, 0.5))
    vectors, first, count = stack(noisy(a), noisy(b))
    found = align(vectors, first, count, np.array([[0, 1]]), 4.0, 0.5, method, share=0.3)
    t = np.array([20.0, 50.0])  # where both have it
    np.testing.assert_allclose(found["ratio"][0] * t + found["shift"][0], ratio * t + 10, atol=1.5)


def test_the_warping_path_follows_a_changing_tempo():
    """b slows down: second t of a is second t + t ** 2 / 400 of b; its first and last parts are not in a."""
    at = path(400, 8)
    a = at(np.arange(0, 100, 0.5))
    moments = np.arange(0, 160, 0.5) - 15
    b = at(200 * (np.sqrt(1 + moments.clip(0) / 100) - 1))
    b[:30], b[280:] = path(400, 9)(np.arange(0, 15, 0.5)), path(400, 9)(np.arange(100, 120, 0.5))
    cells = torch.from_numpy(a @ b.T)[None]
    ratio, begin, sure, found = warp(cells, share=0.3)
    i = np.flatnonzero(found[0] >= 0)
    there = 0.5 * found[0].numpy()[i]
    truth = 0.5 * i + (0.5 * i) ** 2 / 400 + 15
    assert len(i) > 150
    assert np.abs(there - truth).max() < 1.0  # everywhere within two windows
    assert np.abs(0.5 * (ratio.item() * i + begin.item()) - truth).max() > 2  # which no line is
    assert sure.item() > 0.5


def test_a_share_of_the_shorter_recording_is_needed():
    cells = torch.zeros(1, 10, 10)
    cells[0, torch.arange(3), torch.arange(7, 10)] = 1.0  # three windows in the corner
    cells[0, torch.arange(10), torch.arange(10)] = 0.8
    assert lag(cells)[0].item() == pytest.approx(7, abs=0.5)
    assert lag(cells, share=0.5)[0].item() == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("method", ["lag", "votes", "tempo", "dtw"])
def test_single_windows_and_noise_give_low_confidence(method):
    random = np.random.default_rng(0)
    noise = [random.standard_normal((n, 64)) for n in (1, 1, 2, 16, 18)]
    vectors, first, count = stack(*(v / np.linalg.norm(v, axis=1, keepdims=True) for v in noise))
    pairs = np.array([[0, 1], [0, 2], [3, 0], [2, 3], [3, 4]])
    found = align(vectors, first, count, pairs, WINDOW, HOP, method)
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["confidence"].max() < 0.35
    assert found["confidence"][:2].max() == 0


def test_blocks_change_nothing(monkeypatch):
    at = path(300, 5)
    tracks = [at(np.arange(3.0 * k, 3.0 * k + 40 + 10 * k, HOP)) for k in range(8)]
    vectors, first, count = stack(*tracks)
    pairs = same_work_pairs(np.zeros(8, int))
    whole = align(vectors, first, count, pairs, WINDOW, HOP, "tempo")
    alone = [align(vectors, first, count, pair[None], WINDOW, HOP, "lag") for pair in pairs]
    lagged = align(vectors, first, count, pairs, WINDOW, HOP, "lag")
    np.testing.assert_allclose(lagged["shift"], [one["shift"][0] for one in alone], atol=1e-5)
    np.testing.assert_allclose(lagged["shift"], -3.0 * (pairs[:, 1] - pairs[:, 0]), atol=2)
    assert np.isfinite(whole["shift"]).all()


def test_pairs():
    work = np.array([1, 0, 1, -1, 1, 0, 2])
    everything = {frozenset(p) for p in same_work_pairs(work).tolist()}
    assert everything == {frozenset(p) for p in ([0, 2], [0, 4], [2, 4], [1, 5])}
    some = same_work_pairs(np.repeat([0, 1], [20, 3]), "budget", budget=5, seed=1)
    assert np.bincount(np.repeat([0, 1], [20, 3])[some[:, 0]]).tolist() == [5, 3]
    assert len(np.unique(some, axis=0)) == 8
    vectors = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.2], [0, 1], [1, 0], [0, 1], [1, -0.3], [0, 1], [1, 1]])
    )
    medoid = same_work_pairs(work, "medoid", vectors=vectors)
    assert sorted(map(tuple, medoid.tolist())) == [(0, 2), (4, 2), (5, 1)]
    assert same_work_pairs(np.array([-1, -1])).shape == (0, 2)
    with pytest.raises(UserError, match="did you mean 'medoid'"):
        same_work_pairs(work, "mediod")


def test_compose_through_the_medoid():
    ratio, shift = np.array([1.1, 0.9, 1.0]), np.array([5.0, -3.0, 2.0])  # t_medoid = ratio t + shift
    pairs = np.array([[0, 3], [1, 3], [2, 3]])
    keys = np.array([4, -5, 0])  # of the medoid above the others
    known = {"ratio": ratio, "shift": shift, "confidence": np.array([0.9, 0.5, 0.7]), "semitones": keys}
    every, found = compose(pairs, known)
    assert len(every) == 6
    assert found["semitones"].tolist() == [4, -5, 0, -3, 4, -5]
    for (a, b), r, s in zip(every[3:], found["ratio"][3:], found["shift"][3:], strict=True):
        t = 20.0
        assert ratio[b] * (r * t + s) + shift[b] == pytest.approx(ratio[a] * t + shift[a])
    assert found["confidence"][3:].max() <= 0.7


def test_file_and_lookup(tmp_path):
    ids = ["a", "b ü", "c"]
    found = {"shift": np.array([30.0, -4.0]), "ratio": np.array([1.0, 1.25]), "confidence": np.array([0.8, 0.2])}
    found["semitones"] = np.array([-5.0, 0.0])
    file = tmp_path / "alignment.jsonl"
    write(file, ids, np.array([[0, 1], [1, 2]]), found, {"window": 15.0, "hop": 5.0, "model": "abc"})
    known = Alignment.load(file, "abc")
    assert len(known) == 2
    got = known.lookup(["a", "b ü", "b ü", "c", "a", "a", "x"], ["b ü", "a", "c", "b ü", "c", "a", "a"], 10.0)
    np.testing.assert_allclose(got, [40, -20, 8.5, 11.2, np.nan, 10, np.nan], equal_nan=True)
    middle = known.lookup("b ü", "c", 10.0, seconds=8.0)
    assert middle == pytest.approx(1.25 * 14 - 4 - 4)
    assert known.sureness(["a", "b ü", "c"], ["b ü", "a", "a"]).tolist() == [0.8, 0.8, 0]
    sure = Alignment.load(file, floor=0.5)
    assert np.isnan(sure.lookup("b ü", "c", 0.0))
    with pytest.raises(UserError, match="was made by model abc, not by xyz; run job=align again"):
        Alignment.load(file, "xyz")
    with pytest.raises(UserError, match="no such alignment"):
        Alignment.load(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("nonsense\n")
    with pytest.raises(UserError, match="not an alignment"):
        Alignment.load(tmp_path / "bad.jsonl")


def test_no_pairs_at_all(tmp_path):
    empty = {name: np.zeros(0) for name in ("shift", "ratio", "confidence")}
    write(tmp_path / "a.jsonl", [], np.zeros((0, 2), int), {**empty, "semitones": np.zeros(0)}, {"model": "m"})
    known = Alignment.of([], [], *empty.values())
    assert np.isnan(known.lookup(["a"], ["b"], [1.0])).all()
    assert known.sureness(["a"], ["b"]).tolist() == [0]
    at = path(60, 0)(np.arange(0, 30, HOP))
    vectors, first, count = stack(at)
    assert align(vectors, first, count, np.zeros((0, 2), int), WINDOW, HOP)["shift"].shape == (0,)


def test_regular_windows():
    assert regular(np.array([0.0, 5.0, 7.3, 0.0]), 5.0).tolist() == [True, True, False, True]
    hour = np.arange(6000) * (12 * 640 / 14400)
    assert regular(hour.astype(np.float32), 0.53333333).all()


@pytest.mark.parametrize("method", ["lag", "tempo", "dtw"])
@pytest.mark.parametrize("seconds", [100, 250, 300])
def test_holes_and_moved_windows_do_not_bend_the_time(method, seconds):
    """Windows of 60 s with 11 segments each, side by side: no segment crosses their borders; one is off the grid."""
    at = path(400, 1)
    every = np.arange(0, seconds - HOP, HOP)
    some = every[every % 60 < 55]
    late = np.append(some[some < seconds - 40], seconds - 33.0)  # a window moved back to the end
    vectors, first, count = stack(at(every + 30), at(late), at(some + 30))
    start = np.concatenate([every, late, some])
    pairs = np.array([[0, 1], [1, 0], [2, 1], [0, 2]])
    found = align(vectors, first, count, pairs, WINDOW, HOP, method, start=start)
    np.testing.assert_allclose(found["shift"], [30, -30, 30, 0], atol=0.2)
    np.testing.assert_allclose(found["ratio"], 1, atol=1e-3)
    assert found["confidence"].min() > 0.4
    laid, begin, size = lay(vectors, first, count, start, HOP)
    for r, (a, n) in enumerate(zip(first, count, strict=True)):
        for k in range(a, a + n):
            if start[k] % HOP == 0:
                assert torch.equal(laid[begin[r] + int(start[k] // HOP)], vectors[k])
    assert (~laid.isnan().any(1)).sum() == (start % HOP == 0).sum()
    assert size.sum() == len(laid)


def test_similarities_mark_what_is_not_there():
    vectors, first, count = stack(np.eye(4)[:3], np.eye(4)[:1])
    s, key = similarities(vectors, first, count, np.array([[0, 1], [0, 0]]))
    assert key.tolist() == [0, 0]
    assert s.shape == (2, 3, 3)
    assert s[0].isnan().sum() == 6
    np.testing.assert_array_equal(s[1], np.eye(3))


@pytest.mark.parametrize("method", ["lag", "tempo", "dtw"])
@pytest.mark.parametrize("key", [0, 4, 7])
def test_one_key_a_pair_chosen_by_the_windows(method, key):
    """A part of b is a in another key, 30 s later; most of b is other music, in whose key the means agree better."""
    a, other = path(120, 1, dim=48)(np.arange(0, 100, HOP)), path(240, 2, dim=48)(np.arange(0, 200, HOP))
    there = transpose(torch.from_numpy(a), key).numpy()
    pull = transpose(torch.from_numpy(a.mean(0)), (key + 6) % 12).numpy()  # of the rest of b, towards a wrong key
    rest = other + 2 * pull / np.linalg.norm(pull)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    b = np.concatenate([rest[:6], there[:12], rest[6:]])
    vectors, first, count = stack(a, b)
    means = [
        torch.nn.functional.normalize(vectors[f : f + n].mean(0, True), dim=-1)
        for f, n in zip(first, count, strict=True)
    ]
    assert turn_towards(*means)[1].tolist() == [(key + 6) % 12]
    found = align(vectors, first, count, np.array([[0, 1]]), WINDOW, HOP, method, turns=12)
    assert found["semitones"] == (key + 5) % 12 - 5
    assert found["shift"] == pytest.approx(6 * HOP, abs=HOP / 2)
    turned_back = align(*stack(there, b), np.array([[0, 1]]), WINDOW, HOP, method)
    assert found["confidence"] == pytest.approx(turned_back["confidence"], abs=1e-5)
    if key:
        lost = align(vectors, first, count, np.array([[0, 1]]), WINDOW, HOP, method)
        assert found["confidence"] > lost["confidence"]
        assert lost["semitones"] == 0


def test_a_hundred_versions_take_a_second():
    random = torch.Generator().manual_seed(0)
    count = np.full(100, 16)
    vectors = torch.nn.functional.normalize(torch.randn(1600, 128, generator=random))
    pairs = same_work_pairs(np.zeros(100, int))
    assert len(pairs) == 4950
    found = align(vectors, np.cumsum(count) - count, count, pairs, WINDOW, HOP)
    assert found["confidence"].max() < 0.6


def test_line_without_any_mutual_neighbour():
    ratio, place, sure = line(torch.zeros(2, 4, 4))
    assert torch.isfinite(torch.stack([ratio, place, sure])).all()
    assert sure.tolist() == [0, 0]
    place, share = votes(torch.eye(3)[None])
    assert (place.item(), share.item()) == (0, 1)


def test_a_line_is_read_between_the_windows():
    cells = torch.arange(24.0).reshape(1, 4, 6)
    cells[0, 3, 4] = torch.nan
    read = read_line(cells, torch.tensor([1.5]), torch.tensor([-0.25]))[0]
    torch.testing.assert_close(read[:3], torch.tensor([0.0, 7.25, 14.75]))  # before the first window it is the first
    assert read[3].isnan()


def test_the_best_run_is_found():
    value = torch.full((4, 30), 0.1)
    value[0, 12:20] = 0.8
    value[0, 3] = 1.0  # alone
    value[1, 22:] = 0.9
    value[2] = torch.nan
    value[2, 4:6], value[2, 9:12] = 1.0, 0.5  # the longest stretch without a hole
    value[3] = torch.nan
    assert best_run(value).tolist() == [12, 22, 9, 0]
