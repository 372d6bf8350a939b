"""The likelihood ratio against its definition, with covariances and inverses written out."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from tonnetz.fewshot.background import SHRINKAGE, Background


def clips(classes=8, each=30, dim=4, seed=0):
    random = np.random.default_rng(seed)
    mix = random.standard_normal((dim, dim))
    codes = np.repeat(np.arange(classes), each)
    z = 3 * random.standard_normal((classes, dim))[codes] + random.standard_normal((len(codes), dim)) @ mix.T
    return torch.from_numpy(z), torch.from_numpy(codes)


def covariances(z, codes):
    """Pooled within classes, and of their means, each drawn towards a sphere."""
    z, codes = z.numpy(), codes.numpy()
    means = np.stack([z[codes == c].mean(0) for c in np.unique(codes)])
    rest = np.concatenate([z[codes == c] - m for c, m in zip(np.unique(codes), means, strict=True)])
    found = rest.T @ rest / (len(z) - len(means)), np.cov(means.T)
    round_ = [(1 - SHRINKAGE) * s + SHRINKAGE * np.trace(s) / len(s) * np.eye(len(s)) for s in found]
    return means.mean(0), *round_


@pytest.fixture
def learned():
    z, codes = clips()
    background = Background(4)
    background.fit(z, codes)
    return background, covariances(z, codes)


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_it_is_the_ratio_of_two_gaussians(learned, n):
    background, (mean, within, between) = learned
    random = np.random.default_rng(n)
    seen, asked = 3 * random.standard_normal((2, n, 4)), 3 * random.standard_normal((6, 4))
    gain = between @ np.linalg.inv(between + within / n)  # how far the mean of n examples is believed
    expected = np.empty((6, 2))
    for c in range(2):
        centre = mean + gain @ (seen[c].mean(0) - mean)
        own = multivariate_normal(centre, within + between - gain @ between)
        expected[:, c] = own.logpdf(asked) - multivariate_normal(mean, between + within).logpdf(asked)
    found = background.ratios(torch.from_numpy(asked), torch.from_numpy(seen.mean(1)), torch.tensor([n, n]))
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-4, atol=2e-4)  # kept in single precision


def test_classes_may_have_different_counts_and_nothing_seen_says_nothing(learned):
    background, _ = learned
    random = torch.Generator().manual_seed(0)
    asked, mean = torch.randn(5, 4, generator=random), torch.randn(3, 4, generator=random)
    count = torch.tensor([0, 1, 7])
    found = background.ratios(asked, mean, count)
    torch.testing.assert_close(found[:, 0], torch.zeros(5).double(), atol=1e-12, rtol=0)
    for c in range(3):
        torch.testing.assert_close(background.ratios(asked, mean[c : c + 1], count[c : c + 1])[:, 0], found[:, c])
    pairs = background.ratios(asked[:3, None], mean[:, None], count[:, None])[:, 0, 0]
    torch.testing.assert_close(pairs, found.diagonal())


def test_strangers_are_told_better_than_by_distance():
    """Classes differ in one direction, clips in another: a distance cannot know."""
    random = np.random.default_rng(3)
    codes = np.repeat(np.arange(60), 20)
    z = random.standard_normal((60, 2))[codes] * [4, 0.5] + random.standard_normal((1200, 2)) * [0.5, 4]
    z, codes = torch.from_numpy(z), torch.from_numpy(codes)
    background = Background(2)
    background.fit(z[codes < 30], codes[codes < 30])
    seen = torch.stack([z[codes == c][:5].mean(0) for c in range(30, 33)])
    asked = torch.cat([z[codes == c][5:] for c in range(30, 60)])
    known = np.arange(len(asked)) < 45
    ratio = background.ratios(asked, seen, torch.full((3,), 5)).max(1).values.numpy()
    distance = torch.cdist(asked, seen).min(1).values.numpy()
    assert roc_auc_score(known, ratio) > roc_auc_score(known, -distance) + 0.02


def test_too_few_classes_or_clips_teach_nothing():
    z, codes = clips()
    for kept in (codes < 2, torch.arange(len(codes)) % 30 == 0):
        background = Background(4)
        background.fit(z[kept], codes[kept])
        assert not background.fitted
    flat = Background(4)
    flat.fit(torch.ones(9, 4), torch.arange(9) // 3)
    assert torch.isfinite(flat.ratios(z[:3], z[:2], torch.tensor([1, 2]))).all()


def test_it_travels_with_the_weights_and_older_weights_have_none(learned):
    background, _ = learned
    other = torch.nn.ModuleDict({"background": Background(4)})
    other.load_state_dict({})  # strict
    assert not other["background"].fitted
    other.load_state_dict(torch.nn.ModuleDict({"background": background}).state_dict())
    again = Background.of(background.tensors())
    z = torch.randn(3, 4)
    for found in (other["background"], again):
        assert found.fitted
        torch.testing.assert_close(found.ratios(z, z, torch.ones(3)), background.ratios(z, z, torch.ones(3)))
