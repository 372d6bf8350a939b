"""The distance of two sets of vectors against loops over pairs and over transpositions."""

import itertools

import numpy as np
import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.matching import Matching
from tonnetz.reductions import distances, reduce
from tonnetz.transposition import profile, profiles, transpose


def sets(seed=0, queries=4, references=5, dim=24):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(queries, 6, dim, generator=g), torch.randn(references, 7, dim, generator=g)
    valid_a = torch.arange(6) < torch.tensor([6, 1, 3, 5])[:queries, None]
    valid_b = torch.arange(7) < torch.tensor([7, 2, 1, 4, 6])[:references, None]
    return a, b, valid_a, valid_b


def rotated(z, semitones):
    """Each plane of 12 turned by hand."""
    out = np.empty_like(z)
    for place in range(z.shape[-1]):
        plane, pitch = divmod(place, 12)
        out[..., plane * 12 + (pitch + semitones) % 12] = z[..., place]
    return out


def agreement(a, b, turn):
    """How well the centred mean pitch profiles agree when the first is turned."""
    sides = []
    for z in (rotated(a, turn), b):
        mean = np.maximum(z, 0).reshape(len(z), -1, 12).mean((0, 1))
        mean -= mean.mean()
        sides.append(mean / np.linalg.norm(mean))
    return float(sides[0] @ sides[1])


def naive(a, b, kind, reduction, turns):
    """Distance of two tracks (S, D): the nearest of the likeliest transpositions."""
    unit = (lambda z: z / z.norm(dim=-1, keepdim=True)) if kind == "cosine" else lambda z: z
    first, second = unit(a).numpy(), unit(b).numpy()
    likely = sorted(range(12), key=lambda t: -agreement(first, second, t))[:turns] if turns > 1 else [0]
    found = [torch.from_numpy(rotated(a.numpy(), t)) for t in likely]
    return min(float(reduce(distances(z, b, kind), reduction)) for z in found)


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "squared"])
@pytest.mark.parametrize("reduction", ["min", "meanmin", "bpwr-3", "smeanmin", "qmax-20", "qmaxmin-20"])
@pytest.mark.parametrize("turns", [1, 3, 12])
def test_equals_a_loop(kind, reduction, turns):
    a, b, valid_a, valid_b = sets()
    matching = Matching(kind, reduction, turns)
    found = matching(a, b, valid_a, valid_b)
    assert found.shape == (4, 5)
    for q, r in itertools.product(range(4), range(5)):
        expected = naive(a[q, valid_a[q]], b[r, valid_b[r]], kind, reduction, turns)
        assert float(found[q, r]) == pytest.approx(expected, abs=1e-5)
    same = matching.pairs(a, b[:4, :], valid_a, valid_b[:4])
    torch.testing.assert_close(same, found.diagonal()[:4], atol=1e-5, rtol=0)


def test_without_masks_all_segments_count():
    a, b, _, _ = sets(1)
    every = [torch.ones(len(z), z.shape[1], dtype=torch.bool) for z in (a, b)]
    for turns in (1, 2):
        matching = Matching("cosine", "min", turns)
        torch.testing.assert_close(matching(a, b), matching(a, b, *every))


def test_another_key_is_found_by_its_profile_alone():
    g = torch.Generator().manual_seed(3)
    a = torch.rand(5, 8, 12, generator=g) ** 4
    b = torch.stack([transpose(z, n) for z, n in zip(a, (0, 1, 5, 7, 11), strict=True)])
    near = Matching("cosine", "meanmin", 2)(a, b)
    torch.testing.assert_close(near.diagonal(), torch.zeros(5), atol=1e-5, rtol=0)
    assert near.argmin(1).tolist() == list(range(5))


def test_blocks_do_not_matter(monkeypatch):
    a, b, valid_a, valid_b = sets(2)
    matching = Matching("cosine", "qmax-20", 3)
    whole = matching(a, b, valid_a, valid_b)
    monkeypatch.setattr("tonnetz.matching.CELLS", 1)
    torch.testing.assert_close(matching(a, b, valid_a, valid_b), whole)


@pytest.mark.parametrize("semitones", [-1, 0, 1, 7, 12, 25])
def test_transpose_rotates_every_plane(semitones):
    z = torch.randn(3, 4, 36)
    np.testing.assert_array_equal(transpose(z, semitones).numpy(), rotated(z.numpy(), semitones))
    torch.testing.assert_close(profile(transpose(z, semitones)), profile(z).roll(semitones, -1))


def test_profiles_are_centred_units_of_valid_segments():
    a, _, valid, _ = sets(5)
    found = profiles(a, valid)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(found.sum(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, profiles(a.masked_fill(~valid[..., None], 9.0), valid))
    assert not profiles(torch.randn(2, 3, 10), torch.ones(2, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("values", [{"distance": "manhattan"}, {"reduction": "bast-3"}])
def test_mistakes(values):
    with pytest.raises(UserError, match=next(iter(values.values()))):
        Matching(**values)
