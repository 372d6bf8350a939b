"""Qmax against the recurrence of Serra et al. (2009), cell by cell."""

import numpy as np
import pytest
import torch

from tonnetz.qmax import matches, qmax, qmax_distance


def naive_matches(distance, valid, share):
    """Mutual nearest neighbours among the valid cells: ranks counted in a loop."""
    found = np.zeros(distance.shape, bool)
    rows, columns = valid.any(1).sum(), valid.any(0).sum()
    for i, j in zip(*np.nonzero(valid), strict=True):
        above = sum(distance[i, k] < distance[i, j] for k in range(distance.shape[1]) if valid[i, k])
        beside = sum(distance[k, j] < distance[i, j] for k in range(distance.shape[0]) if valid[k, j])
        found[i, j] = above < max(1, int(share * columns)) and beside < max(1, int(share * rows))
    return found


def naive_qmax(match, penalty):
    """Q(i, j) from Q(i-1, j-1), Q(i-2, j-1), Q(i-1, j-2); plus one at a match, else minus the penalty, not below 0."""
    q = np.zeros((match.shape[0] + 2, match.shape[1] + 2))
    for i in range(match.shape[0]):
        for j in range(match.shape[1]):
            before = max(q[i + 1, j + 1], q[i, j + 1], q[i + 1, j])
            q[i + 2, j + 2] = before + 1 if match[i, j] else max(0.0, before - penalty)
    return q.max()


def cells(seed, shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (12, 17), (17, 12), (25, 25)])
@pytest.mark.parametrize(("share", "penalty"), [(0.03, 0.5), (0.25, 0.5), (0.5, 0.25), (1.0, 0.0), (1.5, 1.0)])
def test_equals_the_recurrence(shape, share, penalty):
    distance = cells(sum(shape), (3, *shape))
    match = matches(distance, share)
    found, score = qmax(distance, None, share, penalty), qmax_distance(distance, None, share, penalty)
    for p in range(3):
        expected = naive_matches(distance[p].numpy(), np.ones(shape, bool), min(share, 1))
        np.testing.assert_array_equal(match[p].numpy(), expected)
        length = naive_qmax(expected, penalty)
        assert float(found[p]) == pytest.approx(length)
        assert float(score[p]) == pytest.approx(1 - length / min(shape))


def test_masked_cells_are_as_if_they_were_not_there():
    distance, sizes = cells(3, (4, 14, 11)), [(14, 11), (9, 11), (14, 3), (1, 1)]
    mask = torch.zeros(4, 14, 11, dtype=torch.bool)
    for p, (rows, columns) in enumerate(sizes):
        mask[p, :rows, :columns] = True
    found = qmax_distance(distance, mask, 0.2)
    alone = [qmax_distance(distance[p, :r, :c], None, 0.2) for p, (r, c) in enumerate(sizes)]
    torch.testing.assert_close(found, torch.stack(alone))
    assert qmax(distance, torch.zeros_like(mask)).tolist() == [0, 0, 0, 0]


def test_a_mask_is_shared_and_dimensions_stay():
    distance = cells(4, (2, 3, 8, 6))
    mask = torch.ones(8, 6, dtype=torch.bool)
    assert qmax(distance, mask).shape == (2, 3)
    torch.testing.assert_close(qmax(distance, mask), qmax(distance))
    assert qmax(distance[0, 0]).shape == ()
    torch.testing.assert_close(qmax(distance.mT), qmax(distance))  # the steps are symmetric


def test_a_common_stretch_is_found_at_another_tempo():
    path = [(2 * t, t) for t in range(10)]  # twice as fast
    distance = torch.ones(20, 10) + cells(5, (20, 10))
    for i, j in path:
        distance[i, j] = 0.0
    assert float(qmax(distance, None, 0.05)) == 10
    assert float(qmax_distance(distance, None, 0.05)) == 0
