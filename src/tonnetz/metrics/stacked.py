"""Metrics of many predictors at once: scores (C, K, N) of C predictors, targets (K, N) or (C, K, N), NaN = unknown.

The examples are the last axis, so that a column to be sorted lies in one piece. All results equal scikit-learn's
(ties are one threshold); a class without a positive or without a negative is NaN.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**17  # numbers sorted at a time: what the caches of a core hold
UNKNOWN = torch.iinfo(torch.int64).max - 1  # key of a cell that nobody judged: last, and no positive


def roc_auc(score: Tensor, target: Tensor) -> Tensor:
    """ROC AUC (C, K): chance that a positive scores above a negative, ties half (Mann-Whitney U).

    The label rides in the lowest bit of the sorted numbers: one sort of whole numbers, without indices. Equal scores
    then stand with their negatives first, which counts ties as won; where there may be ties, the roles are swapped.
    """
    score = score.float().contiguous()
    known, positive = ~target.isnan(), target > 0.5  # of one target for all predictors only once
    positives = positive.sum(-1)
    pairs = (positives * (known.sum(-1) - positives)).double()
    won, tied = _wins(score, positive, known)
    if bool(tied.any()):
        lost, _ = _wins(score[tied], *(mark.expand(score.shape)[tied] for mark in (known & ~positive, known)))
        won[tied] = (won[tied] + pairs.expand(won.shape)[tied] - lost) / 2
    return won / pairs  # 0 / 0 is NaN


def _wins(score: Tensor, positive: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (...) of a positive that scores at least as high as a negative, and where any two may be equal.

    Of sorted rows (..., N); on a CPU in blocks that its caches hold, by NumPy, whose sort is vectorised.
    """
    shape, length = score.shape[:-1], score.shape[-1]
    rows = [values.expand(score.shape).reshape(-1, length) for values in (score, positive, known)]
    if score.device.type != "cpu":
        won, tied = _wins_torch(*rows)
    else:
        size = max(1, BLOCK // max(length, 1))
        blocks = zip(*(values.split(size) for values in rows), strict=True)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            found = list(pool.map(lambda block: _wins_numpy(*(values.numpy() for values in block)), blocks))
        won, tied = (torch.from_numpy(np.concatenate(values)) for values in zip(*found, strict=True))
    count = positive.sum(-1)
    return won.view(shape) - count * (count - 1) / 2, tied.view(shape)


def _wins_numpy(score: np.ndarray, positive: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the places (M,) of positives of rows (M, N), and rows with neighbours that may be equal."""
    bits = (score + np.float32(0)).view(np.int32)  # -0 becomes 0
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)  # in the order of the numbers
    key <<= 1
    key |= positive
    if not known.all():
        key[~known] = UNKNOWN
    key.sort(-1)
    place = np.arange(key.shape[-1], dtype=np.float64)
    odd = (key & 1).astype(np.float64)
    return np.einsum("mn,n->m", odd, place), (np.diff(key) == 1).any(-1)  # not BLAS, which has threads of its own


def _wins_torch(score: Tensor, positive: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The same on any device."""
    bits = (score + 0.0).view(torch.int32)
    key = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 1) | positive
    key = key.masked_fill_(~known, UNKNOWN).sort(-1).values
    place = torch.arange(key.shape[-1], device=key.device, dtype=torch.float64)
    return (key & 1).double() @ place, (key.diff(dim=-1) == 1).any(-1)


def average_precision(score: Tensor, target: Tensor) -> Tensor:
    """Average precision (C, K): sum of precision times gained recall over falling thresholds."""
    known, positive = ~target.isnan(), target > 0.5
    value = torch.where(known, score, -torch.inf)
    ranked, order = value.sort(-1, descending=True)  # (C, K, N)
    hit = positive.expand(score.shape).gather(-1, order)
    seen = known.expand(score.shape).gather(-1, order)
    last = torch.ones_like(hit)
    last[..., :-1] = ranked[..., 1:] != ranked[..., :-1]
    place = torch.arange(score.shape[-1], device=score.device).expand_as(order)
    end = torch.where(last, place, score.shape[-1]).flip(-1).cummin(-1).values.flip(-1)  # last place of the same score
    hits, n = (mark.long().cumsum(-1).gather(-1, end) for mark in (hit, seen))
    positives, total = positive.sum(-1), known.sum(-1)
    value = (hit * hits.double() / n.clamp(min=1)).sum(-1) / positives  # (C, K)
    return torch.where((positives > 0) & (positives < total), value, torch.nan)


def accuracy(score: Tensor, target: Tensor) -> Tensor:
    """Share (C,) of examples whose class (N,) or (C, N) has the highest score, the first of equal ones; -1 = unknown.

    An example with only NaN scores is wrong.
    """
    known = target >= 0
    return ((score.argmax(-2) == target) & known).sum(-1).double() / known.sum(-1)


def macro_f1(score: Tensor, target: Tensor) -> Tensor:
    """Mean F1 (C,) of the highest score over the classes that occur in truth or decision; targets as in `accuracy`."""
    classes = torch.arange(score.shape[-2], device=score.device)[:, None]  # (K, 1)
    known = target.unsqueeze(-2) >= 0
    chosen = (score.argmax(-2).unsqueeze(-2) == classes) & known  # (C, K, N)
    true = (target.unsqueeze(-2) == classes) & known
    hits, total = (chosen & true).sum(-1).double(), chosen.sum(-1) + true.sum(-1)
    return torch.where(total > 0, 2 * hits / total, torch.nan).nanmean(-1)


def r2(score: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination (C, K), 1 - squared error / squared deviation from the mean of the target."""
    known = ~target.isnan()
    truth = torch.where(known, target, 0.0).double()
    count = known.sum(-1)
    mean = truth.sum(-1, keepdim=True) / count.unsqueeze(-1)
    spread = torch.where(known, truth - mean, 0.0).square().sum(-1)
    error = torch.where(known, truth - score, 0.0).square().sum(-1)
    return torch.where(spread > 0, 1 - error / spread, torch.nan)
