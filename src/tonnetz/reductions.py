"""Distances between the segments of two tracks, and the ways to make one number of them.

A reduction turns distances (..., S1, S2) into (...). Losses and retrieval share the same names:

- `min`, `max`, `mean` of all cells; `best-K`, `worst-K`: mean of the K smallest or largest cells;
- `meanmin`: mean over rows of the row's minimum; `minmean`: minimum over rows of the row's mean;
  `bestmin-K`: mean of the K smallest row minima; `maxmean` (ByteCover3's, of similarities) is `meanmin` of distances;
- `bpwr-K`, best pairs without replacement (CLEWS): take the smallest cell, strike out its row and column, and
  so on, at most K times; mean of the cells taken;
- `qmax-K`: one minus the longest common stretch (Serra et al. 2009), cells being matches when they are among the
  nearest K percent of row and column; for segments in the order of time;
- `qmaxmin-K`: the same plus `meanmin` (of rows or columns, the smaller), which still tells few segments apart, where a
  stranger has a common stretch, too;
- `s` before a name: mean of the reduction and that of the transpose, so that both tracks count alike.

With fewer than K cells, rows or pairs there are, all are taken.
"""

from __future__ import annotations

import re
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.errors import UserError, suggest
from tonnetz.qmax import qmax_distance

KINDS = ("cosine", "euclidean", "squared")
PLAIN = ("min", "max", "mean", "meanmin", "minmean", "maxmean")
COUNTED = ("best", "bestmin", "worst", "bpwr", "qmax", "qmaxmin")
TINY = 1e-8  # a shorter vector has no direction


def check_distance(kind: str) -> None:
    """Raise UserError unless `kind` names a distance."""
    if kind not in KINDS:
        raise UserError(f"distance: '{kind}' is unknown{suggest(kind, KINDS)}")


def check_reduction(how: str) -> None:
    """Raise UserError unless `how` names a reduction."""
    _parse(how)


def symmetric(how: str) -> bool:
    """Whether a reduction gives the same for the transposed distances."""
    twice, name, _ = _parse(how)
    return twice or name in ("min", "max", "mean", "best", "worst", "bpwr", "qmax", "qmaxmin")


def distances(a: Tensor, b: Tensor, kind: str = "cosine", clamp: bool = True) -> Tensor:
    """Distances (..., S1, S2) of a (..., S1, D) and b (..., S2, D), never negative and smooth for equal vectors.

    cosine 1 - cos; euclidean; squared: its square divided by D. `clamp` False keeps the negative rounding errors.
    """
    check_distance(kind)
    if kind == "euclidean":
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # exact where vectors are equal
    if kind == "cosine":
        a, b = F.normalize(a, dim=-1, eps=TINY), F.normalize(b, dim=-1, eps=TINY)
        d = 1 - a @ b.mT
    else:
        d = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2 * a @ b.mT
        d = d / a.shape[-1]
    return d.clamp(min=0) if clamp else d


def reduce(distance: Tensor, how: str, valid_a: Tensor | None = None, valid_b: Tensor | None = None) -> Tensor:
    """Reduce distances (..., S1, S2) to (...); only segments of the masks (..., S1) and (..., S2) count.

    Infinite where a track has no valid segment. Raises UserError for an unknown `how`.
    """
    symmetric, name, k = _parse(how)
    mask = _mask(distance, valid_a, valid_b)
    value = _reduce(distance, mask, name, k)
    if symmetric:
        turned = None if mask is None else mask.mT
        value = (value + _reduce(distance.mT, turned, name, k)) / 2
    return value if mask is None else torch.where(mask.any(-1).any(-1), value, torch.inf)


@cache
def _parse(how: str) -> tuple[bool, str, int]:
    """Symmetrised or not, name, K (0 when it has none)."""
    match = re.fullmatch(rf"(s?)(?:({'|'.join(PLAIN)})|({'|'.join(COUNTED)})-([1-9]\d*))", str(how))
    if not match:
        known = [*PLAIN, *(f"{name}-K" for name in COUNTED)]
        near = suggest(re.sub(r"\d+$", "K", str(how)), known).partition("; did")[1:]
        hint = "".join(near) or f"; known: {', '.join(known)}, with K from 1, and s before any of them"
        raise UserError(f"reduction: '{how}' is unknown{hint}")
    symmetric, plain, counted, k = match.groups()
    return bool(symmetric), plain or counted, int(k or 0)


def _mask(distance: Tensor, valid_a: Tensor | None, valid_b: Tensor | None) -> Tensor | None:
    """Cells (..., S1, S2) of two valid segments; None when all are."""
    if valid_a is None and valid_b is None:
        return None
    mask = torch.ones_like(distance, dtype=torch.bool)
    if valid_a is not None:
        mask = mask & valid_a[..., :, None]
    return mask if valid_b is None else mask & valid_b[..., None, :]


def _reduce(d: Tensor, mask: Tensor | None, name: str, k: int) -> Tensor:
    if name == "qmax":
        return qmax_distance(d, mask, k / 100)
    if name == "qmaxmin":
        turned = None if mask is None else mask.mT
        near = torch.minimum(_reduce(d, mask, "meanmin", 0), _reduce(d.mT, turned, "meanmin", 0))
        return qmax_distance(d, mask, k / 100) + near
    if name == "min" and mask is None:
        return d.amin((-2, -1))
    if name == "bpwr":
        return _bpwr(d, mask, k)
    if name in ("meanmin", "maxmean", "minmean", "bestmin"):
        rows = None if mask is None else mask.any(-1)  # (..., S1)
        if name == "minmean":
            return _min(_mean(d, mask), rows)
        return _mean(_min(d, mask), rows) if name != "bestmin" else _best(_min(d, mask), rows, k)
    d, mask = d.flatten(-2), None if mask is None else mask.flatten(-2)  # (..., S1 S2)
    if name in ("max", "worst"):
        return -_best(-d, mask, k) if k else -_min(-d, mask)
    if name == "best":
        return _best(d, mask, k)
    return _min(d, mask) if name == "min" else _mean(d, mask)


def _min(x: Tensor, mask: Tensor | None) -> Tensor:
    return (x if mask is None else x.masked_fill(~mask, torch.inf)).amin(-1)


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.mean(-1)
    return x.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def _best(x: Tensor, mask: Tensor | None, k: int) -> Tensor:
    """Mean of the k smallest of the last axis."""
    k = min(k, x.shape[-1])
    if mask is None:
        return x.topk(k, -1, largest=False).values.mean(-1)
    low = x.masked_fill(~mask, torch.inf).topk(k, -1, largest=False).values  # (..., k), infinite ones at the end
    return _mean(low, torch.arange(k, device=x.device) < mask.sum(-1, keepdim=True))


def _bpwr(d: Tensor, mask: Tensor | None, k: int) -> Tensor:
    """Mean of the k best pairs without replacement: one round a pair, for all matrices at once."""
    *_, rows, columns = d.shape
    rounds = min(k, rows, columns)
    left = d.detach().clone(memory_format=torch.contiguous_format)
    if mask is not None:
        left.masked_fill_(~mask, torch.inf)
    picks = []
    for _ in range(rounds):
        cell = left.flatten(-2).argmin(-1)  # (...)
        picks.append(cell)
        if len(picks) < rounds:
            cell = cell[..., None, None]
            left.scatter_(-2, (cell // columns).expand(*d.shape[:-2], 1, columns), torch.inf)
            left.scatter_(-1, (cell % columns).expand(*d.shape[:-2], rows, 1), torch.inf)
    taken = d.flatten(-2).gather(-1, torch.stack(picks, -1))  # (..., rounds)
    if mask is None:
        return taken.mean(-1)
    pairs = torch.minimum(mask.any(-1).sum(-1), mask.any(-2).sum(-1))  # (...)
    return _mean(taken, torch.arange(rounds, device=d.device) < pairs[..., None])
