"""What a probe is to predict: the loss and its gradient, the metrics, and how windows of a track are joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tonnetz.errors import UserError, suggest
from tonnetz.metrics import stacked
from tonnetz.metrics.key import key_score, key_score_macro

KINDS = ("multilabel", "classes", "key", "number")
RULES = ("embedding", "logit", "prob", "max", "vote")

Metric = Callable[[Tensor, Tensor], Tensor]  # scores (C, K, N), target -> (C,)
METRICS: dict[str, dict[str, Metric]] = {  # the first of each chooses
    "multilabel": {
        "roc_auc": lambda score, target: stacked.roc_auc(score, target).nanmean(-1),
        "ap": lambda score, target: stacked.average_precision(score, target).nanmean(-1),
    },
    "classes": {"accuracy": stacked.accuracy, "macro_f1": stacked.macro_f1},
    "key": {
        "key_score": key_score,
        "key_score_symmetric": lambda score, target: key_score(score, target, symmetric=True),
        "key_score_macro": key_score_macro,
        "accuracy": stacked.accuracy,
    },
    "number": {"r2": lambda score, target: stacked.r2(score, target).nanmean(-1)},
}


@dataclass(frozen=True)
class Goal:
    """Targets of one kind.

    Multi-label targets are (K, N) with NaN where unknown, numbers too; classes and keys are numbers (N,), -1 unknown.

    Args:
        kind: multilabel, classes, key or number.
        names: of the K outputs.
        monitor: the metric that chooses; null takes the first of the kind.
        scale: of each number, mean and deviation of the training tracks, which its targets are scaled by.
    """

    kind: str
    names: tuple[str, ...]
    monitor: str = ""
    scale: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"job.kind={self.kind}: no such kind of target{suggest(self.kind, KINDS)}")
        if not self.monitor:
            object.__setattr__(self, "monitor", next(iter(METRICS[self.kind])))
        if self.monitor not in METRICS[self.kind]:
            raise UserError(f"job.metric={self.monitor}: {self.kind} has {', '.join(METRICS[self.kind])}")

    def value(self, score: Tensor, target: Tensor) -> Tensor:
        """The metric that chooses, (C,) of scores (C, K, N)."""
        return METRICS[self.kind][self.monitor](score, target)

    def metrics(self, score: Tensor, target: Tensor) -> dict[str, float]:
        """All metrics of one predictor, scores (K, N). Numbers with several outputs also get one R2 each."""
        found = {name: float(metric(score[None], target)[0]) for name, metric in METRICS[self.kind].items()}
        if self.kind == "number" and len(self.names) > 1:
            each = stacked.r2(score[None], target)[0].tolist()
            found |= {f"r2_{name}": value for name, value in zip(self.names, each, strict=True)}
        return found

    def undefined(self, target: Tensor) -> list[str]:
        """Classes that a ranking metric leaves out: without a positive, or without a negative."""
        if self.kind != "multilabel":
            return []
        both = (target > 0.5).any(-1) & (target < 0.5).any(-1)
        return [name for name, fine in zip(self.names, both.tolist(), strict=True) if not fine]

    def loss(self, z: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the known cells of outputs (K, B), a scalar."""
        if self.kind in ("classes", "key"):
            return functional.cross_entropy(z.T, target, ignore_index=-1)
        known = ~target.isnan()
        if self.kind == "number":
            return functional.mse_loss(z[known], target[known])
        return functional.binary_cross_entropy_with_logits(z[known], target[known])

    def losses(self, z: Tensor, target: Tensor) -> Tensor:
        """The mean loss (C,) of each predictor over the known cells of its outputs z (C, K, B)."""
        if self.kind in ("classes", "key"):
            each = functional.cross_entropy(z, target.expand(len(z), -1), ignore_index=-1, reduction="none")
            return each.sum(-1) / (target >= 0).sum()
        known, truth = ~target.isnan(), target.nan_to_num().expand_as(z)
        if self.kind == "number":
            each = functional.mse_loss(z, truth, reduction="none")
        else:
            each = functional.binary_cross_entropy_with_logits(z, truth, reduction="none")
        return (each * known).sum((-2, -1)) / known.sum()

    def gradient(self, z: Tensor, target: Tensor) -> Tensor:
        """Gradient (C, K, B) of the loss of each predictor with respect to its outputs z (C, K, B), which it reuses."""
        if self.kind in ("classes", "key"):
            known = target >= 0
            place = target.clamp(min=0).expand(len(z), 1, -1)
            grad = torch.softmax(z, 1).scatter_add_(1, place, -torch.ones_like(z[:, :1]))
            return grad.mul_(known / known.sum().clamp(min=1))
        known = ~target.isnan()
        share = known / known.sum().clamp(min=1)  # (K, B)
        if self.kind == "number":
            return z.sub_(target.nan_to_num()).mul_(2 * share)
        return z.sigmoid_().sub_(target.nan_to_num()).mul_(share)

    def check(self, rules: Sequence[str]) -> None:
        """Raise UserError for rules that do not exist, or make no sense for this kind."""
        for rule in rules:
            if rule not in RULES:
                raise UserError(f"job.aggregate: '{rule}' is no way to join windows{suggest(rule, RULES)}")
            if rule == "vote" and self.kind not in ("classes", "key"):
                raise UserError("job.aggregate: vote needs classes to vote for; take logit, prob or max")
        if "embedding" in rules and len(rules) > 1:
            raise UserError("job.aggregate: embedding joins windows before the probe; it cannot stand beside others")

    def join(self, z: Tensor, unit: Tensor, units: int, rule: str) -> Tensor:
        """Scores (C, K, N) of tracks from outputs (C, K, M) of their windows; `unit` (M,) names each window's track.

        logit: mean output (a geometric mean of chances); prob: mean chance; max: largest output; vote: how many
        windows chose a class. `embedding` means there is one window a track, in order.
        """
        if rule == "embedding":
            return z
        empty = z.new_zeros(*z.shape[:-1], units)
        if rule == "max":
            return empty.scatter_reduce_(-1, unit.expand(z.shape), z, "amax", include_self=False)
        if rule == "vote":
            chosen = z.argmax(-2, keepdim=True)
            z = torch.zeros_like(z).scatter_(-2, chosen, 1.0)
        elif rule == "prob" and self.kind != "number":
            z = z.sigmoid() if self.kind == "multilabel" else z.softmax(-2)
        return empty.index_add_(-1, unit, z) / unit.bincount(minlength=units)

    def answers(self, score: Tensor, rule: str) -> Tensor:
        """What scores (K, N), joined by a rule, say: chances of the classes, or numbers as they were before scaling."""
        if self.kind == "number":
            mean, std = torch.tensor(self.scale, dtype=score.dtype).T[..., None]  # (K, 1) each
            return score * std + mean
        if rule in ("prob", "vote"):
            return score
        return score.sigmoid() if self.kind == "multilabel" else score.softmax(0)
