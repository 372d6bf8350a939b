"""Contrastive predictive coding against a loop over times and excerpts."""

from __future__ import annotations

import math

import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.losses import CPC


def drawn(count=5, frames=9, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, frames, dim, generator=generator)
    return z, torch.ones(count, frames, dtype=torch.bool), torch.tensor([0, 1, 0, 2, 3, 4, 5])[:count]


def slow(loss, z, mask, code):
    """One frame of one excerpt and one step ahead at a time."""
    means = []
    for ahead in range(1, loss.steps + 1):
        costs = []
        for m in range(len(z)):
            for t in range(z.shape[1] - ahead):
                if not mask[m, t + ahead]:
                    continue
                state = loss.context(z[m : m + 1, : t + 1])[0][0, -1]
                guess = loss.predict[ahead - 1].weight @ state
                others = [n for n in range(len(z)) if n == m or (code[n] != code[m] and mask[n, t + ahead])]
                scores = torch.stack([z[n, t + ahead] @ guess for n in others])
                costs.append(scores.logsumexp(0) - scores[others.index(m)])
        means.append(torch.stack(costs).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize("short", [False, True])
def test_equals_a_loop(short):
    torch.manual_seed(1)
    loss = CPC(6, steps=3, hidden=4)
    z, mask, code = drawn()
    if short:
        mask[1, 6:] = mask[4, 5:] = False
    z.requires_grad_()
    found, expected = loss.compare(z, mask, code), slow(loss, z, mask, code)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (found, expected)), rtol=1e-4, atol=1e-6)


def test_what_lies_in_the_padding_does_not_matter():
    loss = CPC(6, steps=2, hidden=4)
    z, mask, code = drawn()
    mask[2, 5:] = False
    other = z.masked_fill(~mask[..., None], 7.0)
    torch.testing.assert_close(loss.compare(z, mask, code), loss.compare(other, mask, code))


def test_uninformed_it_costs_the_logarithm_of_the_number_of_excerpts():
    z, mask, _ = drawn(7)
    value = CPC(6).compare(torch.ones_like(z), mask, torch.arange(7))
    assert float(value.detach()) == pytest.approx(math.log(7), abs=1e-5)
    kin = CPC(6).compare(torch.ones_like(z), mask, torch.zeros(7, dtype=torch.long))
    assert float(kin.detach()) == pytest.approx(0.0, abs=1e-6)  # nobody to tell it from


def test_it_learns_a_rhythm():
    """Frames that go round in a circle, each excerpt at a speed of its own: the next is known, the present no help."""
    torch.manual_seed(0)
    loss, speed = CPC(2, steps=2, hidden=16), torch.linspace(0.3, 2.5, 8)
    optimizer = torch.optim.Adam(loss.parameters(), 0.02)
    for _ in range(150):
        angle = 6.28 * torch.rand(8, 1) + speed[:, None] * torch.arange(12)
        z = 2 * torch.stack([angle.cos(), angle.sin()], -1)
        value = loss.compare(z, torch.ones(8, 12, dtype=torch.bool), torch.arange(8))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.75 * math.log(8)


@pytest.mark.parametrize("words", [{"steps": 0}, {"hidden": 0}])
def test_mistakes_are_named(words):
    with pytest.raises(UserError, match=next(iter(words))):
        CPC(6, **words)
