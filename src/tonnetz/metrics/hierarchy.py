"""Metrics of predictions whose classes are leaves of a tree.

Classes are numbers 0 ... K - 1. `levels` (K, L) holds nodes: column 0 the class itself, column L - 1 its top node
(`Taxonomy.levels`). Predictions and targets are (..., M), M queries of an episode; a target of -1 is not counted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Severity(NamedTuple):
    """How bad predictions are, one value an episode."""

    mistake: Tensor  # (...,) mean height of the common ancestor over mistakes, NaN without one
    mistakes: Tensor  # (...,) their number, int64
    all: Tensor  # (...,) mean height over all predictions, 0 for right ones; NaN without any


class F1(NamedTuple):
    """F1 of all levels, pooled over everything."""

    macro: Tensor  # (L,) mean over the nodes that are true or predicted somewhere
    micro: Tensor  # (L,) equals accuracy, as every query has one answer


class Chance(NamedTuple):
    """Expected values of uniformly random answers among the classes of an episode."""

    accuracy: Tensor  # (E, L)
    macro_f1: Tensor  # (L,) F1 of the expected counts, pooled
    mistake: Tensor  # (E,) severity of a random wrong answer
    all: Tensor  # (E,) severity of a random answer
    consistency: Tensor  # (E, L) of an independent random answer at each level


def level_accuracy(prediction: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Accuracy (..., L) at each level: how often the predicted class lies under the target's ancestor."""
    right = levels[prediction.clamp(min=0)] == levels[target.clamp(min=0)]  # (..., M, L)
    return _mean(right, target >= 0)


def class_f1(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """F1 (K,) of each class over all queries of all episodes; NaN for a class neither true nor predicted."""
    kept = target >= 0
    prediction, target = prediction[kept], target[kept]
    true, said = (torch.bincount(x, minlength=classes).double() for x in (target, prediction))
    hit = torch.bincount(target[target == prediction], minlength=classes).double()
    return 2 * hit / (true + said)  # 0 / 0 is NaN


def level_f1(prediction: Tensor, target: Tensor, levels: Tensor) -> F1:
    """Macro and micro F1 at each level, pooled over everything."""
    kept = target >= 0
    said, true = levels[prediction[kept]], levels[target[kept]]  # (N, L)
    nodes = int(levels.max()) + 1 if levels.numel() else 0
    shift = torch.arange(levels.shape[1], device=levels.device) * nodes  # every level gets numbers of its own
    value = class_f1(said + shift, true + shift, nodes * levels.shape[1])
    return F1(value.view(levels.shape[1], nodes).nanmean(1), (said == true).double().mean(0))


def heights(levels: Tensor) -> Tensor:
    """Heights (K, K) of common ancestors: the lowest level at which two classes agree, L if only the root is shared."""
    return (levels[:, None] != levels).cumprod(-1).sum(-1)  # an even tree: once together, together


def severity(prediction: Tensor, target: Tensor, heights: Tensor) -> Severity:
    """Mean height of the common ancestor of prediction and target (Bertinetto et al. 2020), by a table (K, K)."""
    kept = target >= 0
    prediction, target = prediction.clamp(min=0), target.clamp(min=0)
    height = heights[prediction, target].double() * kept
    wrong = (prediction != target) & kept
    total = height.sum(-1)
    return Severity((height * wrong).sum(-1) / wrong.sum(-1), wrong.sum(-1), total / kept.sum(-1))


def consistency(ancestor: Tensor, prediction: Tensor, levels: Tensor, target: Tensor | None = None) -> Tensor:
    """How often (..., L) the node predicted at a level, `ancestor` (..., M, L), lies above the predicted class."""
    kept = prediction >= 0 if target is None else target >= 0
    return _mean(ancestor == levels[prediction.clamp(min=0)], kept)


def path_scores(prediction: Tensor, target: Tensor, lines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hierarchical precision, recall and F1 (...,) of paths to the root (Kiritchenko et al. 2005).

    `lines` (K, nodes) is True where a node is the class or lies above it (`Taxonomy.ancestor_matrix`). Sums run over
    the queries of an episode before they are divided.
    """
    kept = (target >= 0).double()
    path = lines.double()
    said, true = prediction.clamp(min=0), target.clamp(min=0)
    shared = ((path @ path.T)[said, true] * kept).sum(-1)
    depth = path.sum(1)
    precision, recall = shared / (depth[said] * kept).sum(-1), shared / (depth[true] * kept).sum(-1)
    return precision, recall, 2 * precision * recall / (precision + recall)


def chance(target: Tensor, classes: Tensor, levels: Tensor, heights: Tensor) -> Chance:
    """What uniformly random answers get for targets (E, M) among classes (E, C), where -1 stands for nothing."""
    kept, there = target >= 0, classes >= 0  # (E, M), (E, C)
    target, classes = target.clamp(min=0), classes.clamp(min=0)
    ways = there.sum(-1, keepdim=True).double()  # (E, 1)
    nodes, goal = levels[classes], levels[target]  # (E, C, L), (E, M, L)
    same = (goal[:, :, None] == nodes[:, None]) & there[:, None, :, None]  # (E, M, C, L)
    share = same.double().sum(2) / ways[..., None]  # (E, M, L)
    height = heights[target[..., None], classes[:, None]].double() * there[:, None]  # (E, M, C)
    other = (target[..., None] != classes[:, None]) & there[:, None]  # (E, M, C)
    alike = ((nodes[:, :, None] == nodes[:, None]) & there[:, None, :, None]).sum(2)  # (E, C, L) members of its node
    groups = torch.where(there[..., None], 1 / alike.clamp(min=1), 0.0).sum(1)  # (E, L) number of nodes
    return Chance(
        _mean(share, kept),
        _expected_f1(goal[kept], share[kept], nodes, there, kept.sum(1)[:, None] / ways, levels),
        _mean(((height * other).sum(-1) / other.sum(-1))[..., None], kept)[..., 0],
        _mean((height.sum(-1) / ways)[..., None], kept)[..., 0],
        1 / groups.double(),
    )


def _expected_f1(goal: Tensor, share: Tensor, nodes: Tensor, there: Tensor, asked: Tensor, levels: Tensor) -> Tensor:
    """Macro F1 (L,) of expected counts: true nodes (N, L) hit with chances (N, L), and answers spread over classes."""
    size = int(levels.max()) + 1
    empty = share.new_zeros(size, levels.shape[1])
    true, hit = empty.scatter_add(0, goal, torch.ones_like(share)), empty.scatter_add(0, goal, share)
    spread = (there * asked)[..., None].expand(nodes.shape)[there]  # (N', L) answers that each class expects
    said = empty.scatter_add(0, nodes[there], spread.double())
    return (2 * hit / (true + said)).nanmean(0)


def _mean(value: Tensor, kept: Tensor) -> Tensor:
    """Mean (..., L) of values (..., M, L) over those kept (..., M); NaN without any."""
    return torch.where(kept[..., None], value.double(), 0.0).sum(-2) / kept.sum(-1, keepdim=True)
