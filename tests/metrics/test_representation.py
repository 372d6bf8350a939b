"""Measures of embeddings against NumPy loops, SciPy and scikit-learn."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from tonnetz.metrics.representation import alignment, deviation, effective_rank, nearest, ridge, uniformity


def rows(count=40, dim=6, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_deviation_is_one_when_spread_and_zero_when_collapsed():
    z = rows()
    assert float(deviation(z)) == pytest.approx(unit(z.numpy()).std(0).mean() * math.sqrt(6), rel=1e-5)
    assert float(deviation(rows(20000, 50))) == pytest.approx(1, abs=0.01)
    assert float(deviation(torch.ones(9, 5))) == 0


def test_effective_rank():
    z = rows()
    share = np.linalg.svd(z.numpy(), compute_uv=False)
    assert float(effective_rank(z)) == pytest.approx(math.exp(scipy.stats.entropy(share / share.sum())), rel=1e-5)
    assert float(effective_rank(torch.eye(7))) == pytest.approx(7, rel=1e-5)
    assert float(effective_rank(torch.ones(7, 1) @ torch.randn(1, 5))) == pytest.approx(1, abs=1e-3)


def test_alignment_and_uniformity_against_loops():
    a, b = rows(), rows(seed=1)
    u, v = unit(a.numpy()), unit(b.numpy())
    assert float(alignment(a, b)) == pytest.approx(np.mean([((x - y) ** 2).sum() for x, y in zip(u, v, strict=True)]))
    pairs = [math.exp(-2 * ((u[i] - u[j]) ** 2).sum()) for i in range(40) for j in range(i)]
    assert float(uniformity(a)) == pytest.approx(math.log(np.mean(pairs)), rel=1e-5)
    assert float(uniformity(torch.ones(5, 3))) == pytest.approx(0, abs=1e-6)
    assert math.isfinite(float(uniformity(rows(5000))))


def test_neighbours_against_scikit_learn():
    bank, z = rows(60), rows(25, seed=1)
    label = torch.arange(60) % 3
    found = nearest(bank, torch.eye(3)[label], z, k=7, temperature=0.1)
    other = KNeighborsClassifier(7, weights=lambda d: np.exp((1 - d) / 0.1), metric="cosine")
    other.fit(bank.numpy(), label.numpy())
    np.testing.assert_allclose(found.numpy(), other.predict_proba(z.numpy()), atol=1e-4)
    assert nearest(bank[:3], torch.eye(3), z, k=20).shape == (25, 3)


def test_unknown_labels_do_not_vote():
    bank = torch.eye(3)
    label = torch.tensor([[1.0, 0.0], [torch.nan, 1.0], [torch.nan, torch.nan]])
    found = nearest(bank, label, torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), k=3)
    assert found[0].tolist() == pytest.approx([1.0, 0.5])
    assert found.isfinite().all()


@pytest.mark.parametrize("decay", [0.1, 1.0])
def test_ridge_against_scikit_learn(decay):
    bank, z = rows(60) * torch.arange(1, 7) + 3, rows(25, seed=1)
    label = torch.eye(3)[torch.arange(60) % 3]
    x, mean, scale = bank.numpy(), bank.numpy().mean(0), bank.numpy().std(0)
    other = Ridge(decay * 60).fit((x - mean) / scale, label.numpy())
    expected = other.predict((z.numpy() - mean) / scale)
    np.testing.assert_allclose(ridge(bank, label, z, decay).numpy(), expected, atol=1e-4)


def test_ridge_of_constant_dimensions_and_unknown_labels():
    bank = torch.cat([rows(30), torch.ones(30, 2)], 1)
    label = torch.eye(2)[torch.arange(30) % 2]
    label[3:7] = torch.nan
    label = torch.cat([label, torch.full((30, 1), torch.nan)], 1)
    assert ridge(bank, label, bank).isfinite().all()
