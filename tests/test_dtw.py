"""Dynamic time warping against librosa and against a search of all paths."""

import librosa
import numpy as np
import pytest
import torch

from tonnetz.dtw import STEPS, dtw


def sides(n, m, subsequence):
    """Where librosa lets a path begin and end."""
    begin, end = torch.zeros(n, m, dtype=torch.bool), torch.zeros(n, m, dtype=torch.bool)
    if subsequence:
        begin[0], end[-1] = True, True
    else:
        begin[0, 0], end[-1, -1] = True, True
    return begin, end


@pytest.mark.parametrize("subsequence", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (12, 19), (30, 41), (12, 17)])
def test_sums_and_paths_equal_librosa(n, m, subsequence):
    costs = np.random.default_rng(n * m).uniform(0, 1, (6, n, m))
    begin, end = sides(n, m, subsequence)
    total, path = dtw(torch.from_numpy(costs), begin, end)
    for p, cost in enumerate(costs):
        table, wanted = librosa.sequence.dtw(C=cost, step_sizes_sigma=np.array(STEPS), subseq=subsequence)
        assert total[p].item() == pytest.approx(table[-1].min() if subsequence else table[-1, -1], abs=1e-12)
        found = [(i, j) for i, j in enumerate(path[p].tolist()) if j >= 0]
        assert found == [tuple(cell) for cell in wanted[::-1].tolist()]


def longest(cost, begin, end):
    """The least sum over all paths, by trying them."""
    n, m = cost.shape
    best = (np.inf, [])

    def go(i, j, total, cells):
        nonlocal best
        if np.isnan(cost[i, j]):
            return
        total, cells = total + cost[i, j], [*cells, (i, j)]
        if end[i, j] and total < best[0]:
            best = (total, cells)
        for di, dj in STEPS:
            if i + di < n and j + dj < m:
                go(i + di, j + dj, total, cells)

    for i, j in np.argwhere(begin):
        go(i, j, 0.0, [])
    return best


@pytest.mark.parametrize("seed", range(12))
def test_any_ends_and_holes_equal_the_search_of_all_paths(seed):
    random = np.random.default_rng(seed)
    n, m = random.integers(2, 7, 2)
    cost = random.normal(0, 1, (3, n, m))
    cost[random.uniform(size=cost.shape) < 0.15] = np.nan
    begin, end = random.uniform(size=(2, n, m)) < 0.5
    everywhere = np.ones((n, m), bool)
    given = torch.from_numpy(cost)
    masks = torch.from_numpy(begin), torch.from_numpy(end)
    for result, ends in ((dtw(given, *masks), (begin, end)), (dtw(given), (everywhere, everywhere))):
        for p in range(3):
            total, cells = longest(cost[p], *ends)
            assert result[0][p].item() == pytest.approx(total)
            assert [(i, j) for i, j in enumerate(result[1][p].tolist()) if j >= 0] == cells


def test_padding_and_other_pairs_do_not_matter():
    costs = torch.randn(2, 8, 9, dtype=torch.float64)
    alone = dtw(costs[:1, :6, :7])
    costs[0, 6:], costs[0, :, 7:] = torch.nan, torch.nan
    together = dtw(costs)
    assert together[0][0].item() == pytest.approx(alone[0][0].item())
    assert together[1][0, :6].tolist() == alone[1][0].tolist()
    assert (together[1][0, 6:] == -1).all()


def test_no_path_is_infinite_and_empty():
    total, path = dtw(torch.full((1, 3, 4), torch.nan))
    assert total.item() == np.inf
    assert (path == -1).all()
    begin, end = sides(2, 9, False)  # too far apart for steps of two
    assert dtw(torch.zeros(1, 2, 9), begin, end)[0].item() == np.inf
