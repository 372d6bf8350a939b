"""Bootstrap intervals: counts against scikit-learn, resampling against a loop, coverage, seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.metrics import bootstrap
from tonnetz.metrics.bootstrap import group_counts, interval, macro_f1_of_counts


def data(rows: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(rows, 4, generator=g) < 0.4).float()
    decision = (target > 0.5) ^ (torch.rand(rows, 4, generator=g) < 0.2)
    return decision, target, torch.randint(40, (rows,), generator=g) * 3


def test_group_counts_sum_to_the_whole_and_equal_a_loop() -> None:
    decision, target, group = data()
    target[::7, 1] = torch.nan
    counts = group_counts(decision, target, group)
    for i, name in enumerate(group.unique()):
        for k in range(4):
            d, y = decision[group == name, k], target[group == name, k]
            expected = [int(((y == a) & (d == b)).sum()) for a in (0, 1) for b in (False, True)]
            assert counts[i, k].tolist() == expected


def test_macro_f1_of_summed_counts_equals_sklearn() -> None:
    decision, target, group = data()
    value = macro_f1_of_counts(group_counts(decision, target, group).sum(0)).item()
    assert value == pytest.approx(f1_score(target, decision, average="macro"))


def test_interval_agrees_with_resampled_sklearn() -> None:
    decision, target, group = data()
    names = group.unique()
    rng = np.random.default_rng(0)
    values = []
    for _ in range(300):
        rows = torch.cat([torch.where(group == name)[0] for name in rng.choice(names.numpy(), len(names))])
        values.append(f1_score(target[rows], decision[rows], average="macro"))
    low, high = interval(group_counts(decision, target, group), draws=2000)
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.008)
    assert low < f1_score(target, decision, average="macro") < high


def test_interval_of_a_mean_has_the_textbook_width() -> None:
    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    low, high = interval(x, lambda total: total[:, 0] / 400, draws=4000, level=0.9)
    half = 1.645 * x.std().item() / 20
    assert (low, high) == pytest.approx((x.mean().item() - half, x.mean().item() + half), abs=0.006)


def test_seed_decides_and_blocks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = group_counts(*data())
    first = interval(counts, seed=1)
    assert interval(counts, seed=1) == first
    assert interval(counts, seed=2) != first
    monkeypatch.setattr(bootstrap, "CHUNK", 1000)
    assert interval(counts, seed=1) == first


def test_one_group_gives_a_point_and_none_a_user_error() -> None:
    decision, target, _ = data()
    counts = group_counts(decision, target, torch.zeros(200))
    low, high = interval(counts)
    assert low == high == pytest.approx(f1_score(target, decision, average="macro"))
    with pytest.raises(UserError, match="0 groups"):
        interval(counts[:0])
