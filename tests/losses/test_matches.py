"""BestMatches against plain loops over tracks, segments and transpositions."""

import math

import pytest
import torch
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.losses import BestMatches
from tonnetz.transposition import transpose


def batch(seed=0, tracks=6, segments=7, dim=24):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(tracks, segments, dim, generator=g)
    group = torch.tensor([0, 0, 1, 1, 1, 2])[:tracks]
    row = torch.tensor([0, 1, 2, 3, 3, 4])[:tracks]  # two excerpts of a recording are two excerpts of a work
    valid = torch.arange(segments) < torch.tensor([7, 5, 7, 1, 6, 4])[:tracks, None]
    return z, group, row, valid


def naive(z, group, valid, temperature, matches, stride, pitches):
    """The definition: of each ordered pair the best mutual matches, each against all segments of other works."""
    tracks = [z[b, ::stride][valid[b, ::stride]] for b in range(len(z))]
    turns = 12 if pitches == 12 else 1

    def similarity(a, b, turn):
        a, b = F.normalize(a, dim=0), F.normalize(b, dim=0)
        return float(transpose(a, turn) @ b if turn else a @ b) / temperature

    costs = []
    for i in range(len(z)):
        for j in range(len(z)):
            if i == j or group[i] != group[j] or group[i] < 0:
                continue
            tables = [[[similarity(a, b, turn) for b in tracks[j]] for a in tracks[i]] for turn in range(turns)]
            count = max(1, len(tracks[i]) // 3)

            def goodness(table, count=count):
                return sum(sorted((max(line) for line in table), reverse=True)[:count])

            table = max(tables, key=goodness)
            ranked = []
            for s, line in enumerate(table):
                top = max(line)
                column = line.index(top)
                mutual = top >= max(other[column] for other in table)
                ranked.append((mutual, top, s))
            for _, top, s in sorted(ranked, reverse=True)[:matches]:
                rivals = [
                    max(similarity(tracks[i][s], b, turn) for turn in range(turns))
                    for k in range(len(z))
                    if group[k] != group[i] and group[k] >= 0
                    for b in tracks[k]
                ]
                if rivals:
                    costs.append(math.log1p(sum(math.exp(rival - top) for rival in rivals)))
    return sum(costs) / max(1, len(costs))


@pytest.mark.parametrize("pitches", [0, 12])
@pytest.mark.parametrize(("matches", "stride"), [(12, 2), (2, 1), (1, 3)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_a_loop(pitches, matches, stride, temperature):
    z, group, row, valid = batch()
    loss = BestMatches(temperature, matches, stride, pitches)
    expected = naive(z.double(), group, valid, temperature, matches, stride, pitches)
    assert float(loss(z, group, row, valid)) == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("pitches", [0, 12])
def test_unknown_works_take_no_part(pitches):
    z, group, row, valid = batch(1)
    group[2:5] = -1
    expected = naive(z.double(), group, valid, 0.1, 12, 2, pitches)
    assert expected > 0
    assert float(BestMatches(pitches=pitches)(z, group, row, valid)) == pytest.approx(expected, abs=1e-5)


CASES = {
    "one work": ([0, 0, 0], None),
    "singletons": ([0, 1, 2], None),
    "nothing known": ([-1, -1, -1], None),
    "one track": ([0], None),
    "no rival": ([0, 0, -1], None),
    "one valid segment": ([0, 0, 1], 1),
    "no valid segment": ([0, 0, 1], 0),
}


@pytest.mark.parametrize("pitches", [0, 12])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_finite_with_finite_gradients(case, same, pitches):
    groups, valid = CASES[case]
    z = torch.ones(len(groups), 5, 12) if same else torch.randn(len(groups), 5, 12)
    z.requires_grad_()
    mask = None if valid is None else (torch.arange(5) < valid).expand(len(groups), 5)
    loss = BestMatches(pitches=pitches)(z, torch.tensor(groups), torch.arange(len(groups)), mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    if case in ("one work", "singletons", "nothing known", "one track", "no rival", "no valid segment"):
        assert loss.item() == 0


def test_zero_vectors_are_finite():
    z = torch.zeros(4, 5, 12, requires_grad=True)
    loss = BestMatches(pitches=12)(z, torch.tensor([0, 0, 1, 1]), torch.arange(4), None)
    loss.backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("pitches", [0, 12])
@pytest.mark.parametrize("place", [(0, 0), (3, 0), (5, 2), (slice(None), slice(None))])
def test_nan_is_not_hidden(place, pitches):
    z, group, row, valid = batch()
    z[place] = torch.nan
    assert BestMatches(pitches=pitches)(z, group, row, valid).isnan()


@pytest.mark.parametrize("pitches", [0, 12])
@pytest.mark.parametrize("filling", [1e6, torch.nan])
def test_padding_does_not_matter(filling, pitches):
    z, group, row, valid = batch()
    loss = BestMatches(pitches=pitches)
    expected = loss(z, group, row, valid)
    assert expected > 0
    torch.testing.assert_close(loss(z.masked_fill(~valid[..., None], filling), group, row, valid), expected)


def test_learning_brings_versions_in_other_keys_together():
    torch.manual_seed(0)
    z = torch.randn(4, 6, 12, requires_grad=True)
    group, loss = torch.tensor([0, 0, 1, 1]), BestMatches(stride=1, pitches=12)
    optimizer = torch.optim.Adam([z], 0.05)
    first = loss(z, group, torch.arange(4), None)
    for _ in range(60):
        optimizer.zero_grad()
        cost = loss(z, group, torch.arange(4), None)
        cost.backward()
        optimizer.step()
    assert cost.item() < 0.3 * first.item()


@pytest.mark.parametrize("values", [{"temperature": 0}, {"matches": 0}, {"stride": 0}])
def test_mistakes(values):
    with pytest.raises(UserError, match=next(iter(values))):
        BestMatches(**values)
