"""Is a better than b? Intervals and paired tests over episodes or queries that are not independent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest
from tonnetz.metrics.bootstrap import CHUNK


class Interval(NamedTuple):
    """A mean and what lies around it."""

    mean: float
    low: float
    high: float
    n: int  # values that are numbers


class Difference(NamedTuple):
    """The mean of a - b over the same rows."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, of no difference
    effect: float  # mean / standard deviation of the differences
    n: int


class Comparison(NamedTuple):
    """A row of a table of methods."""

    value: Interval
    difference: Difference | None  # to the reference; None for the reference
    p: float  # of the difference, after Holm; NaN for the reference


def mean_interval(values: Tensor, level: float = 0.95) -> Interval:
    """Mean of values (N,) with Student's interval, rows independent. NaN is left out; one value has no interval."""
    from scipy.stats import t

    values = values.double()[~values.isnan()]
    count = len(values)
    if count < 2:
        return Interval(float(values.mean()), float("nan"), float("nan"), count)
    half = float(t.ppf((1 + level) / 2, count - 1)) * float(values.std()) / count**0.5
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half, count)


def resampled_means(values: Tensor, clusters: Tensor | None = None, draws: int = 1000, seed: int = 0) -> Tensor:
    """Means (R,) of values (N,) in a bootstrap over clusters; NaN values are left out.

    With clusters (N,) whole clusters are drawn with replacement. With (N, 2), say recordings and classes, both are
    drawn independently and a row counts the product of its two counts (the pigeonhole bootstrap, Owen 2007). Without,
    rows are drawn. A draw that leaves no row is NaN. Raises UserError without a value.
    """
    kept = ~values.isnan()
    values = values[kept].double()
    if not len(values) or draws < 1:
        raise UserError(f"bootstrap: {len(values)} values and {draws} draws give no interval; need 1 or more of both")
    columns = torch.arange(len(values), device=values.device)[:, None] if clusters is None else clusters[kept]
    columns = columns[:, None] if columns.ndim == 1 else columns
    codes = [column.unique(return_inverse=True)[1] for column in columns.unbind(1)]
    codes = codes if len(codes) == 2 else [codes[0], torch.zeros_like(codes[0])]
    rows, others = (int(code.max()) + 1 for code in codes)
    place = codes[0] * others + codes[1]
    cell = torch.stack([torch.bincount(place, weights, rows * others) for weights in (values, torch.ones_like(values))])
    cell = cell.view(2, rows, others)  # sums and numbers of the values of every pair of clusters
    generator = torch.Generator().manual_seed(seed)
    block = max(1, CHUNK // max(rows, others))
    means = []
    for begin in range(0, draws, block):
        size = min(block, draws - begin)
        first = _times(size, rows, generator).to(values)  # (R, G)
        second = _times(size, others, generator).to(values)  # (R, H)
        total, count = ((first @ part) * second for part in cell)  # (R, H)
        means.append(total.sum(1) / count.sum(1))
    return torch.cat(means)


def clustered_interval(
    values: Tensor, clusters: Tensor | None = None, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of values (N,) with the percentile interval of a bootstrap over clusters; see `resampled_means`."""
    low, high = _quantiles(resampled_means(values, clusters, draws, seed), level)
    return Interval(float(values.double().nanmean()), low, high, int((~values.isnan()).sum()))


def paired_difference(
    a: Tensor,
    b: Tensor,
    clusters: Tensor | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean of a - b (N,) with interval and p value of a paired bootstrap over clusters; see `resampled_means`.

    Rows where either is NaN are left out. p is twice the share of draws on the other side of 0, with one more draw
    counted, so it is never below 2 / (draws + 1); equal columns give 1.
    """
    gap = a.double() - b.double()
    means = resampled_means(gap, clusters, draws, seed)
    low, high = _quantiles(means, level)
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (int((~means.isnan()).sum()) + 1))
    return Difference(float(gap.nanmean()), low, high, p, paired_effect(a, b), int((~gap.isnan()).sum()))


def compare(
    values: Mapping[str, Tensor],
    reference: str,
    clusters: Tensor | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Comparison]:
    """A table of methods, values (N,) each over the same rows: intervals, differences to one of them, Holm's p values.

    Raises UserError when the reference is not among them.
    """
    if reference not in values:
        raise UserError(f"reference '{reference}' is none of the methods{suggest(reference, values)}")
    own = values[reference]
    others = {name: each for name, each in values.items() if name != reference}
    found = {name: paired_difference(each, own, clusters, draws, level, seed) for name, each in others.items()}
    corrected = dict(zip(found, holm([each.p for each in found.values()]), strict=True))
    return {
        name: Comparison(
            clustered_interval(each, clusters, draws, level, seed), found.get(name), corrected.get(name, float("nan"))
        )
        for name, each in values.items()
    }


def wilcoxon(a: Tensor, b: Tensor) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of pairs (N,), NaN and equal pairs left out; 1 without others."""
    from scipy.stats import wilcoxon as signed_rank

    gap = a.double() - b.double()
    gap = gap[~gap.isnan() & (gap != 0)]
    return float(signed_rank(gap.cpu().numpy()).pvalue) if len(gap) else 1.0


def holm(p: list[float]) -> list[float]:
    """p values after Holm's correction (1979): the i-th smallest of m times m - i, in rising order, at most 1."""
    values = torch.tensor(p, dtype=torch.float64)
    ranked, order = values.sort()
    steps = torch.arange(len(values), 0, -1, dtype=torch.float64)
    raised = (ranked * steps).cummax(0).values.clamp(max=1) if len(values) else ranked
    return torch.empty_like(values).scatter(0, order, raised).tolist()


def cliffs_delta(a: Tensor, b: Tensor) -> float:
    """P(a > b) - P(a < b) over all pairs of two samples (N,) and (M,), NaN left out: -1 ... 1."""
    a, b = a[~a.isnan()], b[~b.isnan()]
    ranked = b.sort().values
    below, upto = (torch.searchsorted(ranked, a.contiguous(), right=right) for right in (False, True))
    return float((below - (len(b) - upto)).double().mean() / len(b)) if len(b) else float("nan")


def paired_effect(a: Tensor, b: Tensor) -> float:
    """Cohen's d of pairs: mean / standard deviation of a - b; 0 for equal columns, NaN for fewer than two pairs."""
    gap = a.double() - b.double()
    gap = gap[~gap.isnan()]
    return 0.0 if len(gap) and not bool(gap.any()) else float(gap.mean() / gap.std())


def _times(size: int, clusters: int, generator: torch.Generator) -> Tensor:
    """How often each cluster is drawn (R, G)."""
    drawn = torch.randint(clusters, (size, clusters), generator=generator)
    return torch.zeros(size, clusters).scatter_add(1, drawn, torch.ones(size, clusters))


def _quantiles(means: Tensor, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise UserError(f"bootstrap: level={level} gives no interval; give a number between 0 and 1")
    low, high = means.nanquantile(means.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return low, high
