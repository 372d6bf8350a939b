"""Bootstrap intervals over groups of files (works, artists, or single files) from precomputed counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.metrics.classification import cells, f1_of_counts

CHUNK = 2**24  # drawn groups held in memory at once


def group_counts(decision: Tensor, target: Tensor, group: Tensor) -> Tensor:
    """Confusion counts (G, K, 4) of each group, from decisions and targets (N, K) and group labels (N,)."""
    names, index = group.unique(return_inverse=True)
    one = cells(decision, target).float()  # (N, K, 4)
    return one.new_zeros(len(names), *one.shape[1:]).index_add(0, index, one)


def macro_f1_of_counts(counts: Tensor) -> Tensor:
    """Macro F1 (...,) of counts (..., K, 4) over the classes with a known cell."""
    return f1_of_counts(counts).nanmean(-1)


def interval(
    counts: Tensor,
    statistic: Callable[[Tensor], Tensor] = macro_f1_of_counts,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval (low, high) of a statistic of summed counts, over groups drawn with replacement.

    `counts` is (G, ...), one entry a group; `statistic` maps sums (R, ...) to (R,). Files of one group stay
    together, so dependent files do not narrow the interval (Efron & Tibshirani 1993). Raises UserError
    without a group.
    """
    groups = len(counts)
    if not groups or draws < 1 or not 0 < level < 1:
        raise UserError(f"bootstrap: {groups} groups, {draws} draws, level {level} give no interval; need 1, 1, 0 to 1")
    generator = torch.Generator().manual_seed(seed)
    flat = counts.reshape(groups, -1).double()
    values = []
    block = max(1, CHUNK // groups)
    for begin in range(0, draws, block):
        size = min(block, draws - begin)
        drawn = torch.randint(groups, (size, groups), generator=generator).to(flat.device)
        times = flat.new_zeros(size, groups).scatter_add(1, drawn, flat.new_ones(size, groups))  # (R, G)
        values.append(statistic((times @ flat).view(size, *counts.shape[1:])))  # (R,)
    return percentiles(torch.cat(values), level)


def resampled(
    metric: Callable[[Tensor, Tensor], Tensor], score: Tensor, target: Tensor, draws: int = 1000, seed: int = 0
) -> Tensor:
    """Values (R,) of any metric over tracks drawn with replacement.

    `score` is (K, N), `target` (N,) or (K, N), tracks last; `metric` maps stacks (R, K, N) and (R, N) or (R, K, N) to
    (R,), so all draws of a block are judged at once. Scores of one shape are given the same draws by one seed: the
    difference of two such results is that of a paired bootstrap. Raises UserError without a track.
    """
    tracks = score.shape[-1]
    if not tracks or draws < 1:
        raise UserError(f"bootstrap: {tracks} tracks and {draws} draws give no interval; need 1 or more of both")
    generator = torch.Generator().manual_seed(seed)
    block = max(1, CHUNK // 4 // score.numel())
    values = []
    for begin in range(0, draws, block):
        drawn = torch.randint(tracks, (min(block, draws - begin), tracks), generator=generator).to(score.device)
        values.append(metric(score[:, drawn].movedim(0, 1), target[..., drawn].movedim(-2, 0)))  # (R,)
    return torch.cat(values).double().cpu()


def percentiles(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) that holds a share `level` of values (R,), as much being left out on either side."""
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=values.device)
    low, high = values.double().nanquantile(tails).tolist()
    return low, high
