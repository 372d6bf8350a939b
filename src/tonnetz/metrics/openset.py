"""Metrics of answers that may be "none of these": rejection of the unknown, and back-off to a family.

`score` (N,) is higher the more a query is thought to be of a known class, `known` (N,) bool says whether it is. Equal
scores are one threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tonnetz.metrics.classification import average_precision, roc_auc


class BackOff(NamedTuple):
    """Answers (..., M) that may be inner nodes."""

    level: Tensor  # 0 a class, L - 1 a top node, L the root: no answer
    node: Tensor  # as in the table of levels, -1 the root


class BackOffScores(NamedTuple):
    """How good answers are that may be inner nodes, one value an episode (...,)."""

    accuracy: Tensor  # the answer is the true class or lies above it; the root always does
    height: Tensor  # mean level of the answers
    answered: Tensor  # share of answers below the root
    answered_accuracy: Tensor  # accuracy of those; NaN without any


class OSCR(NamedTuple):
    """Open-set classification rate (Dhamija et al. 2018): points from the strictest threshold on, and the area."""

    false_positive: Tensor  # (n,) share of the unknown that are accepted
    correct: Tensor  # (n,) share of the known that are accepted and classified right
    area: float


def auroc(score: Tensor, known: Tensor) -> float:
    """Chance that a known query scores higher than an unknown one, ties half. NaN without both."""
    return float(roc_auc(score[:, None], known[:, None].double()))


def aupr(score: Tensor, known: Tensor) -> float:
    """Average precision of finding the known; for the unknown, call with -score and ~known. NaN without both."""
    return float(average_precision(score[:, None], known[:, None].double()))


def false_positives_at(score: Tensor, known: Tensor, recall: float = 0.95) -> float:
    """FPR@95: share of the unknown that are accepted when at least `recall` of the known are. NaN without both."""
    accepted, (unknowns, knowns) = _accepted(score, torch.stack([~known, known]))
    if not unknowns or not knowns:
        return float("nan")
    first = int((accepted[1] >= recall * knowns).int().argmax())
    return float(accepted[0, first] / unknowns)


def oscr(score: Tensor, known: Tensor, correct: Tensor) -> OSCR:
    """Curve of right answers against accepted unknowns, over thresholds; `correct` (N,) is of the class. NaN area
    without known and unknown queries."""
    accepted, totals = _accepted(score, torch.stack([~known, known & correct, known]))
    false, right = accepted[0] / totals[0], accepted[1] / totals[2]
    return OSCR(false, right, float(torch.trapezoid(right, false)))


def back_off(prob: Tensor, nodes: Tensor, threshold: float = 0.5) -> BackOff:
    """The lowest node whose classes together have more than `threshold` of the probability ("some plucked lute").

    At each level the node with most probability stands for it; from a threshold of 0.5 on there is no other.

    Args:
        prob: (..., M, C) of the classes of an episode, 0 for absent ones.
        nodes: (..., C, L) their rows of the table of levels.
        threshold: share of the probability.
    """
    same = (nodes[..., :, None, :] == nodes[..., None, :, :]).to(prob)  # (..., C, C, L)
    mass = torch.stack([prob @ same[..., level] for level in range(nodes.shape[-1])], -1)  # (..., M, C, L)
    best, member = mass.max(-2)  # (..., M, L) and a class under that node
    enough = torch.nn.functional.pad(best > threshold, (0, 1), value=True)  # (..., M, L + 1) the root always
    level = enough.int().argmax(-1)  # (..., M)
    answer = nodes.gather(-2, member)  # (..., M, L)
    answer = torch.nn.functional.pad(answer, (0, 1), value=-1)
    return BackOff(level, answer.gather(-1, level[..., None])[..., 0])


def back_off_scores(answer: BackOff, target: Tensor, levels: Tensor) -> BackOffScores:
    """Scores of answers for targets (..., M), classes of the table `levels` (K, L); -1 is not counted."""
    kept = target >= 0
    line = torch.nn.functional.pad(levels[target.clamp(min=0)], (0, 1), value=-1)  # (..., M, L + 1)
    right = line.gather(-1, answer.level[..., None])[..., 0] == answer.node
    below = answer.level < levels.shape[1]
    return BackOffScores(
        _share(right, kept), _share(answer.level, kept), _share(below, kept), _share(right, kept & below)
    )


def _accepted(score: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """How many of each kind (A, N) score at least each distinct score, from the highest on and before it (A, n), and
    all of them (A,)."""
    ranked, order = score.sort(descending=True)
    counts = kinds[:, order].long().cumsum(1).double()  # (A, N)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    return torch.nn.functional.pad(counts[:, last], (1, 0)), kinds.sum(1).double()


def _share(value: Tensor, kept: Tensor) -> Tensor:
    return (value.double() * kept).sum(-1) / kept.sum(-1)
