"""Long queries in pieces: what they hold, and that the nearest piece counts."""

import numpy as np
import pytest
import torch

from tests.test_index import FACTS, Embedder, naive, tracks
from tonnetz.index import Index
from tonnetz.pieces import cut, tries
from tonnetz.search import search


def numbered(*sizes, tempi=1, most=None):
    """Queries whose vectors are their places: (T, Q, S, 1), and the mask. Tempo t has t + 1 times as many."""
    most = most or tempi * max(sizes)
    valid = torch.stack([torch.arange(most) < torch.tensor(sizes)[:, None] * (t + 1) for t in range(tempi)])
    return torch.arange(float(most)).expand(tempi, len(sizes), most)[..., None], valid


@pytest.mark.parametrize("sizes", [(8,), (10, 3), (1, 5, 9)])
def test_up_to_a_quarter_more_stays_whole(sizes):
    queries, valid = numbered(*sizes)
    found = cut(queries, valid, 8)
    assert found.owner.tolist() == list(range(len(sizes)))
    assert torch.equal(found.queries, queries)
    assert [tries(size, 8) for size in sizes] == [1.0] * len(sizes)


@pytest.mark.parametrize("size", [11, 16, 17, 50, 97])
def test_pieces_cover_a_long_query_and_overlap_by_half(size):
    queries, valid = numbered(3, size)
    found = cut(queries, valid, 8)
    assert found.owner[0] == 0
    assert (found.owner[1:] == 1).all()
    assert found.queries[0, 0][found.valid[0, 0]].flatten().tolist() == [0, 1, 2]
    held = [part[real].flatten().tolist() for part, real in zip(found.queries[0, 1:], found.valid[0, 1:], strict=True)]
    assert all(part == [*range(int(part[0]), int(part[0]) + 8)] for part in held)
    first = [part[0] for part in held]
    assert (first[0], first[-1]) == (0, size - 8)
    assert max(np.diff(first)) <= 5  # half, to the next window
    assert len(first) <= 2 + (size - 8) / 4
    assert tries(size, 8) == size / 8


def test_at_other_tempi_the_same_part_is_taken():
    queries, valid = numbered(40, tempi=2)
    found = cut(queries, valid, 8)
    own, double = (
        [part[real].flatten().numpy() for part, real in zip(*both, strict=True)]
        for both in zip(found.queries, found.valid, strict=True)
    )
    for one, two in zip(own, double, strict=True):
        assert len(two) == 16
        assert two[0] == pytest.approx(2 * one[0], abs=1)
    assert double[-1][-1] == 79


@pytest.mark.parametrize("mode", ["recordings", "works"])
def test_a_long_query_is_as_near_as_its_nearest_piece(tmp_path, mode):
    index = Index(tmp_path / "index", {**FACTS, "reduction": "meanmin"})
    index.add(tracks([None if i % 7 == 3 else f"w{i % 9}" for i in range(40)]), Embedder())
    z = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0))
    found = search(index, z, top=30, mode=mode, usual=3)
    table = torch.stack([naive(index, part[0][real[0]]) for part, real in parts_of(z)]).amin(0)
    expected = table.sort().values[:30]
    if mode == "works":  # a recording of unknown work stands for itself
        of_works = [table[index.work == w].amin() for w in range(9)]
        expected = torch.stack([*of_works, *table[index.work < 0]]).sort().values
    np.testing.assert_allclose(found.distance[0][found.place[0] >= 0], expected, atol=1e-5)
    assert len(set(found.place[0].tolist()) - {-1}) == len(expected)
    assert (search(index, z, top=5, mode=mode).distance != found.distance[:, :5]).any()
    real = torch.arange(12) < torch.tensor([12, 3, 12])[:, None]
    both = search(index, torch.cat([z, z, z.flip(1)]), real, top=30, mode=mode, usual=3)
    one = search(index, z[:, :3], top=30, mode=mode)
    np.testing.assert_allclose(both.distance[1, : len(expected)], one.distance[0, : len(expected)], atol=1e-6)
    np.testing.assert_allclose(both.distance[0], found.distance[0], atol=1e-6)


def parts_of(z):
    pieces = cut(z[None], torch.ones(1, *z.shape[:2], dtype=torch.bool), 3)
    return [(pieces.queries[:, p], pieces.valid[:, p]) for p in range(len(pieces.owner))]
