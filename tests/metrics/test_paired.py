"""Intervals and paired tests against SciPy, naive loops and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tonnetz.errors import UserError
from tonnetz.metrics import paired


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_t_interval_equals_scipy() -> None:
    x = noise(40)
    x[3] = torch.nan
    kept = x[~x.isnan()].numpy()
    low, high = stats.t.interval(0.95, 38, kept.mean(), stats.sem(kept))
    assert paired.mean_interval(x) == pytest.approx((kept.mean(), low, high, 39))
    assert math.isnan(paired.mean_interval(x[:1]).low)


def test_one_way_bootstrap_agrees_with_a_loop_and_is_wider_than_independence() -> None:
    cluster = torch.arange(30).repeat_interleave(10)
    x = noise(30)[cluster] + 0.3 * noise(300, 1)
    rng = np.random.default_rng(0)
    groups = [x[cluster == g].numpy() for g in range(30)]
    drawn = [np.concatenate([groups[i] for i in rng.integers(30, size=30)]).mean() for _ in range(2000)]
    found = paired.clustered_interval(x, cluster, draws=4000)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.04)
    alone = paired.clustered_interval(x, draws=2000)
    assert found.high - found.low > 2 * (alone.high - alone.low)
    assert found.mean == pytest.approx(x.mean().item())


def test_two_way_bootstrap_agrees_with_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    clusters = torch.stack([torch.randint(12, (200,), generator=g), torch.randint(6, (200,), generator=g)], 1)
    x = noise(12)[clusters[:, 0]] + noise(6, 1)[clusters[:, 1]] + noise(200, 2)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(3000):
        a, b = (np.bincount(rng.integers(n, size=n), minlength=n) for n in (12, 6))
        weight = a[clusters[:, 0].numpy()] * b[clusters[:, 1].numpy()]
        drawn.append((weight * x.numpy()).sum() / weight.sum())
    means = paired.resampled_means(x, clusters, draws=6000)
    expected = np.quantile(drawn, [0.025, 0.25, 0.5, 0.75, 0.975])
    assert np.quantile(means.numpy(), [0.025, 0.25, 0.5, 0.75, 0.975]) == pytest.approx(expected, abs=0.08)
    whole = paired.resampled_means(x, clusters, draws=50, seed=3)
    assert paired.resampled_means(x, clusters, draws=50, seed=3).equal(whole)
    assert not paired.resampled_means(x, clusters, draws=50, seed=4).equal(whole)


def test_paired_difference_finds_what_is_there_and_nothing_else() -> None:
    b = noise(200)
    a = b + 0.3 + 0.5 * noise(200, 1)
    a[5] = torch.nan
    better = paired.paired_difference(a, b)
    gap = (a - b)[~(a - b).isnan()]
    half = 1.96 * gap.std().item() / 199**0.5
    assert better[:3] == pytest.approx(
        (gap.mean().item(), gap.mean().item() - half, gap.mean().item() + half), abs=0.01
    )
    assert better.p == pytest.approx(2 / 1001)
    assert better.effect == pytest.approx((gap.mean() / gap.std()).item())
    assert better.n == 199
    same = paired.paired_difference(b, b)
    assert same == (0, 0, 0, 1, 0, 200)
    small = [paired.paired_difference(noise(50, s), noise(50, s + 100), draws=200).p for s in range(200)]
    assert sum(p < 0.05 for p in small) < 0.1 * len(small)  # false alarms


def test_compare_corrects_its_p_values() -> None:
    b = noise(100)
    values = {"proto": b, "same": b + 0.001 * noise(100, 1), "better": b + 1 + noise(100, 2)}
    table = paired.compare(values, "proto")
    assert table["proto"].difference is None
    assert math.isnan(table["proto"].p)
    raw = [table[name].difference.p for name in ("same", "better")]  # type: ignore[union-attr]
    assert [table["same"].p, table["better"].p] == paired.holm(raw)
    assert table["better"].p < 0.01
    with pytest.raises(UserError, match="did you mean 'proto'"):
        paired.compare(values, "prot")
    with pytest.raises(UserError, match="0 values"):
        paired.clustered_interval(torch.full((3,), torch.nan))
    with pytest.raises(UserError, match="level=2"):
        paired.clustered_interval(b, level=2)


def test_wilcoxon_holm_and_effects() -> None:
    a, b = noise(60) + 0.3, noise(60, 1)
    assert paired.wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a.numpy(), b.numpy()).pvalue)
    assert paired.wilcoxon(a, a) == 1
    with_nan = torch.cat([a, torch.tensor([torch.nan])])
    assert paired.wilcoxon(with_nan, torch.cat([b, b[:1]])) == paired.wilcoxon(a, b)
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, 0.9]) == [1.0, 1.0]
    assert paired.holm([]) == []
    x, y = a.round(decimals=1), b[:40].round(decimals=1)
    naive = sum((p > q) - (p < q) for p in x.tolist() for q in y.tolist()) / 2400
    assert paired.cliffs_delta(x, y) == pytest.approx(naive)
    assert paired.paired_effect(a, a) == 0
