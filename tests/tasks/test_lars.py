"""LARS against NumPy, who is adapted and decayed, resuming, and a quadratic that it solves."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from tonnetz.tasks.lars import LARS
from tonnetz.tasks.optimizer import parameter_groups


def reference(w, grads, lr, momentum, decay, eta, matrix):
    """You et al. 2017, algorithm 1; plain momentum for vectors."""
    v = np.zeros_like(w)
    for g in grads:
        if matrix:
            size, slope = np.linalg.norm(w), np.linalg.norm(g)
            trust = eta * size / (slope + decay * size) if size > 0 and slope > 0 else 1.0
            g = trust * (g + decay * w)
        v = momentum * v + lr * g
        w = w - v
    return w


@pytest.mark.parametrize("shape", [(4, 3), (5, 2, 3), (6,), ()])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_against_numpy(shape, decay):
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    grads = [torch.randn(shape, dtype=torch.float64) for _ in range(5)]
    expected = reference(
        p.detach().numpy().copy(), [g.numpy() for g in grads], 0.7, 0.9, decay, 0.01, matrix=len(shape) > 1
    )
    optimizer = LARS([p], lr=0.7, momentum=0.9, weight_decay=decay, eta=0.01)
    for g in grads:
        p.grad = g.clone()
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12)


def test_zeros_have_trust_one_and_frozen_parameters_stay():
    zero, idle, frozen = (nn.Parameter(x) for x in (torch.zeros(2, 2), torch.ones(2, 2), torch.ones(3, 3)))
    zero.grad, idle.grad = torch.ones(2, 2), torch.zeros(2, 2)
    LARS([zero, idle, frozen], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(zero.data, torch.full((2, 2), -0.5))
    torch.testing.assert_close(idle.data, torch.full((2, 2), 0.95))  # it only decays
    assert torch.equal(frozen.data, torch.ones(3, 3))


def test_the_step_of_a_matrix_does_not_depend_on_the_size_of_its_gradient():
    moved = []
    for scale in (1.0, 1e4):
        torch.manual_seed(1)
        p = nn.Parameter(torch.randn(4, 4))
        p.grad = scale * torch.randn(4, 4)
        before = p.detach().clone()
        LARS([p], lr=1.0, weight_decay=0.0, eta=0.02).step()
        moved.append(p.detach() - before)
        assert float(moved[-1].norm() / before.norm()) == pytest.approx(0.02, rel=1e-5)
    torch.testing.assert_close(moved[0], moved[1])


def test_groups_keep_vectors_from_decay():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = LARS(parameter_groups(model, 0.5), lr=1.0, eta=1.0)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert changed == [True, False, False, False]


def test_it_resumes():
    def made():
        torch.manual_seed(2)
        model = nn.Linear(5, 5)
        return model, LARS(model.parameters(), lr=0.3, eta=0.1)

    def go(model, optimizer, steps):
        x = torch.arange(10.0).view(2, 5)
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    whole, optimizer = made()
    go(whole, optimizer, 6)
    part, first = made()
    go(part, first, 3)
    memory = io.BytesIO()
    torch.save([part.state_dict(), first.state_dict()], memory)
    memory.seek(0)
    states = torch.load(memory, weights_only=True)
    again, second = made()
    again.load_state_dict(states[0])
    second.load_state_dict(states[1])
    go(again, second, 3)
    for a, b in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_descends():
    torch.manual_seed(0)
    x, y = torch.randn(64, 8), torch.randn(64, 8)
    model = nn.Linear(8, 8)
    optimizer = LARS(model.parameters(), lr=1.0, eta=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"momentum": 1.0}, {"weight_decay": -0.1}, {"eta": 0}])
def test_values_outside_their_range(wrong):
    with pytest.raises(ValueError, match="LARS"):
        LARS([nn.Parameter(torch.ones(1))], **wrong)
