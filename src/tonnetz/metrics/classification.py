"""Classification metrics of probabilities (N, K) and targets (N, K), NaN = unknown, positive above 0.5.

Only known cells count. Per-class results are (K,). Conventions, all tested against scikit-learn:

- F1, precision and recall with nothing in the denominator are 0, and NaN for a class without a known cell;
  macro means leave NaN out, so they equal scikit-learn's `zero_division=0` over classes with a known cell.
- Average precision and ROC AUC need a positive and a negative, and are NaN without; ties are one threshold.
- Multi-class targets go through `exclusive` first: one known positive settles its row, other rows are out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest

METHODS = ("mean", "max", "noisy_or", "top_k", "linear_softmax")


def exclusive(target: Tensor) -> Tensor:
    """Multi-class target (N, K): rows with exactly one known positive made complete, others unknown."""
    positive = target > 0.5
    single = positive.sum(1, keepdim=True) == 1  # (N, 1)
    return torch.where(single, positive.to(target.dtype), torch.nan)


def decide(prob: Tensor, thresholds: Tensor | float | None = None) -> Tensor:
    """Decisions (N, K) bool: `prob >= thresholds` ((K,) or a number), or the row's first maximum for None."""
    if thresholds is not None:
        return prob >= torch.as_tensor(thresholds, device=prob.device)
    return torch.zeros_like(prob, dtype=torch.bool).scatter(1, prob.argmax(1, keepdim=True), True)


def cells(decision: Tensor, target: Tensor) -> Tensor:
    """Outcome of every cell, (N, K, 4) bool: true negative, false positive, false negative, true positive."""
    known, positive = ~target.isnan(), target > 0.5
    negative = known & ~positive
    return torch.stack(
        [negative & ~decision, negative & decision, positive & ~decision, positive & decision], dim=-1
    )  # (N, K, 4)


def counts(decision: Tensor, target: Tensor) -> Tensor:
    """Known cells per class (K, 4) float64: true negative, false positive, false negative, true positive."""
    return cells(decision, target).sum(0).double()


def f1_of_counts(counts: Tensor) -> Tensor:
    """F1 (...,) = 2 tp / (2 tp + fp + fn) of counts (..., 4); 0 for 0 / 0, NaN where nothing is known."""
    tn, fp, fn, tp = counts.unbind(-1)
    return _ratio(2 * tp, 2 * tp + fp + fn, tn + fp + fn + tp)


def f1(decision: Tensor, target: Tensor) -> Tensor:
    """F1 of each class (K,)."""
    return f1_of_counts(counts(decision, target))


def precision(decision: Tensor, target: Tensor) -> Tensor:
    """Precision tp / (tp + fp) of each class (K,)."""
    tn, fp, fn, tp = counts(decision, target).unbind(-1)
    return _ratio(tp, tp + fp, tn + fp + fn + tp)


def recall(decision: Tensor, target: Tensor) -> Tensor:
    """Recall tp / (tp + fn) of each class (K,)."""
    tn, fp, fn, tp = counts(decision, target).unbind(-1)
    return _ratio(tp, tp + fn, tn + fp + fn + tp)


def macro_f1(decision: Tensor, target: Tensor) -> Tensor:
    """Mean F1 over the classes with a known cell, also those never seen nor decided (F1 0). Scalar."""
    return f1(decision, target).nanmean()


def micro_f1(decision: Tensor, target: Tensor) -> Tensor:
    """F1 of all known cells together. Scalar."""
    return f1_of_counts(counts(decision, target).sum(0))


def hamming(decision: Tensor, target: Tensor) -> Tensor:
    """Share of known cells decided right, the Hamming score; the Hamming distance is 1 minus it. Scalar."""
    tn, fp, fn, tp = counts(decision, target).sum(0)
    return (tn + tp) / (tn + fp + fn + tp)


def accuracy(decision: Tensor, target: Tensor) -> Tensor:
    """Share of rows, among those with a known cell, whose known cells are all decided right. Scalar.

    That is subset accuracy for multi-label decisions, the usual accuracy for arg-max and `exclusive` targets.
    """
    known = ~target.isnan()
    right = ((decision == (target > 0.5)) | ~known).all(1)  # (N,)
    counted = known.any(1)
    return (right & counted).sum().double() / counted.sum()


def average_precision(prob: Tensor, target: Tensor) -> Tensor:
    """Average precision of each class (K,): sum of precision times gained recall over falling thresholds."""
    r = _rank(prob, target)
    positives, known = _totals(r)
    ap = (r.positive * r.tp / r.n.clamp(min=1)).sum(0) / positives
    return torch.where((positives > 0) & (positives < known), ap, torch.nan)


def roc_auc(prob: Tensor, target: Tensor) -> Tensor:
    """ROC AUC of each class (K,): chance that a positive beats a negative, ties half (Mann-Whitney U)."""
    r = _rank(prob, target)
    positives, known = _totals(r)
    negatives = known - positives
    negative = r.known - r.positive
    before = len(prob) - 1 - _tie_ends(r.score.flip(0)).flip(0)  # (N, K) first place of each run of ties
    above = (_running(negative) - negative).gather(0, before)  # negatives that score higher
    beaten_by = (above + r.n - r.tp) / 2  # with half of the tied negatives
    auc = 1 - (r.positive * beaten_by).sum(0) / (positives * negatives)
    return torch.where((positives > 0) & (negatives > 0), auc, torch.nan)


def lrap(prob: Tensor, target: Tensor) -> Tensor:
    """Label-ranking average precision over the rows with a known cell. Scalar.

    For each positive of a row: the share of positives among the known labels that score at least as high; the
    mean over the row, 1 for a row with only positives or only negatives, then the mean over rows.
    """
    rows = average_precision(prob.T, target.T).nan_to_num(1.0)  # (N,)
    return torch.where((~target.isnan()).any(1), rows, torch.nan).nanmean()


def confusion(prob: Tensor, target: Tensor, thresholds: Tensor | float = 0.5, multilabel: bool = True) -> Tensor:
    """Confusion counts int64 [truth, decision]: (K, 2, 2) per class, or (K, K) of arg-max for multi-class."""
    if multilabel:
        return counts(decide(prob, thresholds), target).long().view(-1, 2, 2)
    size = prob.shape[1]
    complete = exclusive(target)
    usable = ~complete[:, 0].isnan()
    pair = complete[usable].argmax(1) * size + prob[usable].argmax(1)  # (N',)
    return pair.bincount(minlength=size * size).view(size, size)


def best_thresholds(prob: Tensor, target: Tensor) -> Tensor:
    """Thresholds (K,) of the highest F1 of each class on these data, for `prob >= threshold`.

    All distinct scores are tried; the result lies midway to the next lower score (0 below the lowest), and of
    equal F1 the highest threshold wins. A class without a positive gets 0.5.
    """
    if not len(prob):
        return prob.new_full((prob.shape[1],), 0.5)
    r = _rank(prob, target)
    positives, _ = _totals(r)
    value = torch.where(r.known > 0, 2 * r.tp / (r.n + positives), -1.0)  # (N, K) F1 with all down to here positive
    best = value.argmax(0, keepdim=True)  # (1, K)
    upper = r.score.gather(0, best)
    below = (r.end.gather(0, best) + 1).clamp(max=len(prob) - 1)
    lower = r.score.gather(0, below)
    lower = torch.where((lower < upper) & lower.isfinite(), lower, 0.0)
    middle = (upper + lower) / 2
    middle = torch.where(middle > lower, middle, upper)[0]  # neighbours in floating point have no midpoint
    return torch.where(positives > 0, middle, 0.5).to(prob.dtype)


def score(
    prob: Tensor, target: Tensor, thresholds: Tensor | float = 0.5, multilabel: bool = True
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """All metrics by name: numbers, and tensors (K,) per class. Multi-class decisions are arg-max.

    `hamming` is the score (higher is better), `hamming_distance` 1 minus it; `support` counts positives.
    Raises UserError when a probability is NaN.
    """
    if prob.isnan().any():
        raise UserError("metrics: predictions are NaN; lower optimizer.lr, or drop the rows that no window covers")
    target = target if multilabel else exclusive(target)
    decision = decide(prob, thresholds if multilabel else None)
    classes = {
        "f1": f1(decision, target),
        "precision": precision(decision, target),
        "recall": recall(decision, target),
        "ap": average_precision(prob, target),
        "auc": roc_auc(prob, target),
        "support": (target > 0.5).sum(0).double(),
    }
    share = hamming(decision, target)
    numbers = {
        "macro_f1": classes["f1"].nanmean(),
        "micro_f1": micro_f1(decision, target),
        "macro_precision": classes["precision"].nanmean(),
        "macro_recall": classes["recall"].nanmean(),
        "map": classes["ap"].nanmean(),
        "roc_auc": classes["auc"].nanmean(),
        "lrap": lrap(prob, target),
        "hamming": share,
        "hamming_distance": 1 - share,
        "accuracy": accuracy(decision, target),
    }
    values = torch.stack(list(numbers.values())).tolist()  # one transfer from the device
    return dict(zip(numbers, values, strict=True)), classes


def aggregate(values: Tensor, row: Tensor, rows: int, how: str = "mean", k: int = 3) -> Tensor:
    """Probabilities of rows (rows, K) from those of their windows (M, K); `row` (M,) names each window's row.

    mean; max; noisy_or 1 - prod(1 - p); top_k, the mean of the k largest (all when fewer); linear_softmax
    sum(p^2) / sum(p). A row without a window is NaN. Raises UserError for another `how`, or k < 1.
    """
    if how not in METHODS:
        raise UserError(f"aggregate: '{how}' is no way to join windows{suggest(how, METHODS)}")
    windows = row.bincount(minlength=rows)[:, None]  # (rows, 1)
    if how == "mean":
        joined = _sum(values, row, rows) / windows
    elif how == "max":
        joined = values.new_zeros(rows, values.shape[1]).scatter_reduce(
            0, row[:, None].expand_as(values), values, "amax", include_self=False
        )
    elif how == "noisy_or":
        joined = -torch.expm1(_sum(torch.log1p(-values), row, rows))
    elif how == "top_k":
        joined = _top_k(values, row, windows, k)
    else:
        total = _sum(values, row, rows)
        joined = torch.where(total > 0, _sum(values**2, row, rows) / total, 0.0)
    return torch.where(windows > 0, joined, torch.nan)


def per_row(prob: Tensor, target: Tensor, row: Tensor, how: str = "mean", k: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Join windows of the same `row` (M,): probabilities (R, K), targets (R, K), sorted row numbers (R,).

    The windows of a row carry the same target, and any of them is taken.
    """
    names, index = row.unique(return_inverse=True)
    joined = target.new_full((len(names), target.shape[1]), torch.nan)
    joined[index] = target
    return aggregate(prob, index, len(names), how, k), joined, names


class _Ranking(NamedTuple):
    """Columns (N, K) sorted by descending score, unknown cells last; `tp` and `n` count to a tie's end."""

    score: Tensor  # -inf where unknown
    positive: Tensor  # 1.0 or 0.0
    known: Tensor
    end: Tensor  # last place with the same score
    tp: Tensor  # positives down to there
    n: Tensor  # known cells down to there


def _rank(prob: Tensor, target: Tensor) -> _Ranking:
    known = ~target.isnan()
    ranked, order = torch.where(known, prob, -torch.inf).sort(0, descending=True)
    positive, known = (target > 0.5).gather(0, order), known.gather(0, order)
    end = _tie_ends(ranked)
    tp, n = _running(positive).gather(0, end), _running(known).gather(0, end)
    return _Ranking(ranked, positive.double(), known.double(), end, tp, n)


def _running(mark: Tensor) -> Tensor:
    """Cumulative counts (N, K) of marked cells, as integers: a GPU sums no floats deterministically."""
    return mark.long().cumsum(0).double()


def _tie_ends(ranked: Tensor) -> Tensor:
    """Last place (N, K) of the run of equal values that each place of sorted columns (N, K) belongs to."""
    place = torch.arange(len(ranked), device=ranked.device)[:, None].expand_as(ranked)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    return torch.where(last, place, len(ranked)).flip(0).cummin(0).values.flip(0)


def _totals(r: _Ranking) -> tuple[Tensor, Tensor]:
    """Positives and known cells of each class (K,)."""
    return r.positive.sum(0), r.known.sum(0)


def _ratio(part: Tensor, whole: Tensor, known: Tensor) -> Tensor:
    """part / whole, 0 for 0 / 0, NaN where nothing is known."""
    return torch.where(known > 0, part / whole.clamp(min=1), torch.nan)


def _sum(values: Tensor, row: Tensor, rows: int) -> Tensor:
    return values.new_zeros(rows, values.shape[1]).index_add(0, row, values)  # (rows, K)


def _top_k(values: Tensor, row: Tensor, windows: Tensor, k: int) -> Tensor:
    """Mean of the k largest values of each row: sort by value, stably by row, count from row starts."""
    if k < 1:
        raise UserError(f"aggregate: top_k of {k} windows is empty; give k of at least 1")
    ranked, order = values.sort(0, descending=True)  # (M, K)
    owner, again = row[order].sort(dim=0, stable=True)
    ranked = ranked.gather(0, again)
    first = windows[:, 0].cumsum(0) - windows[:, 0]  # (rows,)
    place = torch.arange(len(row), device=row.device)[:, None] - first[owner]
    best = torch.where(place < k, ranked, 0.0)
    return values.new_zeros(len(windows), values.shape[1]).scatter_add(0, owner, best) / windows.clamp(max=k)
