"""Qmax: the longest stretch in which two recordings run in parallel (Serra, Serra & Andrzejak 2009)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def qmax(distance: Tensor, mask: Tensor | None = None, share: float = 0.03, penalty: float = 0.5) -> Tensor:
    """Length of the best path through the mutual nearest neighbours of two sequences: (..., S1, S2) -> (...).

    A cell is a match when it is among the nearest `share` of its row and of its column. A path goes one step in one
    sequence and one or two in the other; it grows by one at a match and loses `penalty` otherwise, never below zero.
    Cells outside `mask` match nothing. One pass over the rows for all matrices at once: a cell depends on the two
    rows above it alone.
    """
    shape = distance.shape[:-2]
    distance = distance.flatten(0, -3) if shape else distance[None]  # (P, S1, S2)
    if mask is not None:
        distance = distance.masked_fill(~mask.expand(*shape, *mask.shape[-2:]).reshape(distance.shape), torch.inf)
    match = matches(distance.detach(), share).permute(1, 0, 2).contiguous()  # (S1, P, S2)
    if match.shape[-1] < len(match):
        match = match.permute(2, 1, 0).contiguous()  # the path is symmetric: loop over the shorter side
    zero = torch.zeros(match.shape[1], match.shape[2] + 2, device=distance.device)
    before, last, best = zero, zero, zero
    for row in match:
        reach = torch.maximum(torch.maximum(last[:, 1:-1], before[:, 1:-1]), last[:, :-2])  # (P, S2)
        here = torch.where(row, reach + 1, (reach - penalty).clamp(min=0))
        before, last = last, F.pad(here, (2, 0))
        best = torch.maximum(best, last)
    return best.amax(1).reshape(shape)


def matches(distance: Tensor, share: float) -> Tensor:
    """Mutual nearest neighbours of distances (P, S1, S2): among the nearest `share` of row and column alike."""
    finite = distance.isfinite()
    found = finite
    for axis in (2, 1):
        size = finite.any(3 - axis).sum(-1)  # (P,) valid cells of a row (or column)
        limit = nearest(distance.movedim(axis, -1), (min(share, 1.0) * size).long().clamp(min=1)).unsqueeze(axis)
        found = found & (distance <= limit)
    return found


def nearest(distance: Tensor, count: Tensor) -> Tensor:
    """The `count`-th smallest (P,) of the last axis of distances (P, A, B): (P, A)."""
    if distance.device.type == "cpu":  # NumPy's selection is five times as fast as torch's
        places = (count - 1).unique().tolist()
        low = torch.from_numpy(np.partition(distance.numpy(), places, axis=-1))
    else:
        low = distance.topk(int(count.max()), -1, largest=False).values
    return low.gather(-1, (count - 1)[:, None, None].expand(-1, low.shape[1], 1))[..., 0]


def qmax_distance(distance: Tensor, mask: Tensor | None = None, share: float = 0.03, penalty: float = 0.5) -> Tensor:
    """One minus Qmax over the length of the shorter sequence: (..., S1, S2) -> (...), in [0, 1]."""
    if mask is None:
        shorter = torch.tensor(float(min(distance.shape[-2:])), device=distance.device)
    else:
        shorter = torch.minimum(mask.any(-1).sum(-1), mask.any(-2).sum(-1)).clamp(min=1)
    return 1 - qmax(distance, mask, share, penalty) / shorter
