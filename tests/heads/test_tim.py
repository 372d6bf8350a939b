"""TIM against the formulas of its paper in scalar loops (Boudiaf et al. 2020, arXiv:2008.11297, section 3.2 and 4)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tonnetz.heads import TIM

TAU, LAMBDA, ALPHA = 15.0, 0.1, 0.1


def task(seed: int, ways: int = 3, shots: int = 2, asked: int = 7, dim: int = 4) -> tuple[Tensor, Tensor]:
    """Support (C, S, D) and queries (M, D) of unit length, classes that overlap."""
    g = torch.Generator().manual_seed(seed)
    place = 0.8 * torch.randn(ways, 1, dim, generator=g)
    support = place + torch.randn(ways, shots, dim, generator=g)
    query = (place + torch.randn(ways, asked, dim, generator=g)).flatten(0, 1)
    return functional.normalize(support, dim=-1).double(), functional.normalize(query, dim=-1).double()


def posterior(z: list[float], weights: list[list[float]]) -> list[float]:
    """p_k is proportional to exp(-tau / 2 |z - w_k|^2)."""
    powers = [math.exp(-TAU / 2 * sum((a - b) ** 2 for a, b in zip(z, w, strict=True))) for w in weights]
    return [value / sum(powers) for value in powers]


def alternate(
    support: list[list[float]], label: list[int], query: list[list[float]], weights: list[list[float]]
) -> list[list[float]]:
    """One round of alternating directions: the assignments q of queries, then the weights (both closed forms)."""
    ways, dim = len(weights), len(weights[0])
    p = [posterior(z, weights) for z in query]
    sizes = [math.sqrt(sum(row[k] ** (1 + ALPHA) for row in p)) for k in range(ways)]
    q = []
    for row in p:
        raw = [row[k] ** (1 + ALPHA) / sizes[k] for k in range(ways)]
        q.append([value / sum(raw) for value in raw])
    ps = [posterior(z, weights) for z in support]
    share = LAMBDA / (1 + ALPHA)
    balance = len(support) / len(query)
    new = []
    for k in range(ways):
        below = share * sum(label[i] == k for i in range(len(support))) + balance * sum(row[k] for row in q)
        above = []
        for d in range(dim):
            total = 0.0
            for i, z in enumerate(support):
                total += share * ((label[i] == k) * z[d] + ps[i][k] * (weights[k][d] - z[d]))
            for i, z in enumerate(query):
                total += balance * (q[i][k] * z[d] + p[i][k] * (weights[k][d] - z[d]))
            above.append(total)
        new.append([value / below for value in above])
    return new


def objective(
    support: list[list[float]], label: list[int], query: list[list[float]], weights: list[list[float]]
) -> float:
    """lambda CE - H(mean of p) + alpha (mean of H(p))."""
    ce = -sum(math.log(posterior(z, weights)[k]) for z, k in zip(support, label, strict=True)) / len(support)
    p = [posterior(z, weights) for z in query]
    mean = [sum(row[k] for row in p) / len(p) for k in range(len(weights))]
    conditional = -sum(value * math.log(max(value, 1e-300)) for row in p for value in row) / len(p)
    return LAMBDA * ce + sum(value * math.log(value) for value in mean) + ALPHA * conditional


def fitted(steps: int, support: Tensor, query: Tensor) -> Tensor:
    """The head's weights (C, D) after some steps, from the class means."""
    label = torch.eye(len(support)).double().repeat_interleave(support.shape[1], 0)
    valid = torch.ones(1, len(query), dtype=torch.bool)
    return TIM(TAU, LAMBDA, ALPHA, steps)._fit(
        support.flatten(0, 1)[None], label[None], query[None], valid, support.mean(1)[None]
    )[0]


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_loop_of_the_paper(seed: int) -> None:
    support, query = task(seed)
    label = [k for k in range(3) for _ in range(2)]
    weights = support.mean(1).tolist()
    for steps in range(1, 21):
        weights = alternate(support.flatten(0, 1).tolist(), label, query.tolist(), weights)
        if steps in (1, 2, 5, 20):
            torch.testing.assert_close(
                fitted(steps, support, query), torch.tensor(weights).double(), rtol=1e-5, atol=1e-5
            )
    mask = torch.ones(1, 3, 2, dtype=torch.bool)
    scores = TIM(TAU, LAMBDA, ALPHA, 20)(support[None], mask, query[None])[0]
    expected = torch.tensor([posterior(z, weights) for z in query.tolist()]).double()
    torch.testing.assert_close(scores.softmax(-1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_objective_does_not_rise(seed: int) -> None:
    support, query = task(seed, ways=4, shots=1, asked=12, dim=8)
    trace = [
        objective(support.flatten(0, 1).tolist(), [0, 1, 2, 3], query.tolist(), fitted(steps, support, query).tolist())
        for steps in range(0, 61, 3)
    ]
    assert max(b - a for a, b in pairwise(trace)) < 1e-6, trace
    assert trace[-1] < trace[0] - 0.005
