"""Classification of recordings, multi-class or multi-label, judged by windows that cover each file."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError, suggest
from tonnetz.losses import FamilyLoss
from tonnetz.metrics.bootstrap import group_counts, interval
from tonnetz.metrics.classification import METHODS, best_thresholds, confusion, decide, per_row, score
from tonnetz.metrics.store import Scores
from tonnetz.tasks.base import Batch, Task


class Classification(Task):
    """Encoder, pooling, head.

    Args:
        pooling: frames to one vector.
        loss: of (logits (B, K), target (B, K) with NaN = unknown); says how logits become probabilities.
        dropout: before the head, and behind its hidden layer.
        hidden: size of a hidden layer of the head; null makes it linear.
        frozen: keep the backbone as it is, its batch statistics too; pooling and head are trained.
        aggregate: windows to file: mean | max | noisy_or | top_k | linear_softmax of the probabilities.
        family_weight: weight of the auxiliary loss on instrument families.
        families: class -> family; null takes the top level of the taxonomy.
        plan: belongs to the data; named here because the task chooses it.
    """

    monitor: ClassVar[str] = "valid/macro_f1"
    mode: ClassVar[str] = "max"
    score: ClassVar[str] = "macro_f1"
    curves: ClassVar[tuple[str, ...]] = ("valid/macro_f1", "valid/map", "valid/accuracy", "valid/roc_auc")
    thresholds: Tensor

    def __init__(
        self,
        *,
        pooling: nn.Module,
        loss: nn.Module,
        dropout: float = 0.2,
        hidden: int | None = None,
        frozen: bool = False,
        aggregate: str = "mean",
        family_weight: float = 0.0,
        families: dict[str, str] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if aggregate not in METHODS:
            raise UserError(f"task.aggregate={aggregate}{suggest(aggregate, METHODS)}")
        self.pooling, self.criterion = pooling, loss
        self.aggregate, self.family_weight = aggregate, family_weight
        classes = len(self.spec.classes)
        self.head = _head(cast(int, pooling.out_dim), hidden, classes, dropout)
        self.frozen = frozen
        if frozen:
            self.encoder.requires_grad_(False)
            self.encoder.backbone.eval()
        self.register_buffer("thresholds", torch.full((classes,), 0.5))  # tuned on validation, kept with the weights
        self.family = FamilyLoss(self._family_indices(families)) if family_weight else None
        self.scores = nn.ModuleDict({stage: Scores(classes) for stage in ("valid", "test")})
        self._check_loss()

    def _check_loss(self) -> None:
        if len(self.spec.classes) < (1 if self.spec.multilabel else 2):
            found = ", ".join(self.spec.classes) or "none"
            raise UserError(f"task=classification needs at least two classes, the data have: {found}")
        if self.spec.multilabel and self.criterion.activation == "softmax":
            raise UserError("loss=ce needs exactly one label a track, but this corpus is multi-label; use loss=bce")

    def _family_indices(self, families: dict[str, str] | None) -> tuple[int, ...]:
        own = families or dict(zip(self.spec.classes, self.spec.families, strict=True))
        names = [own.get(name, "") for name in self.spec.classes]
        if not any(names):
            raise UserError("task.family_weight needs families: set data.taxonomy=hornbostel_sachs or task.families")
        known = sorted(set(names) - {""})
        return tuple(known.index(name) if name else -1 for name in names)

    def train(self, mode: bool = True) -> Classification:
        """Choose training or evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.encoder.backbone.eval()
        return self

    def embed(self, batch: Batch) -> Tensor:
        """Pooled vector of each excerpt, (B, D)."""
        hidden, mask = self.encoder(batch)  # (B, T', D), (B, T')
        return self.pooling(hidden, mask)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.embed(batch))

    def loss(self, batch: Batch) -> Tensor:
        """Criterion plus the weighted family loss."""
        return self._loss(self(batch), batch["label"])

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = self.criterion(logits, target)
        if self.family is not None:
            loss = loss + self.family_weight * self.family(logits, target)
        return loss

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, K) as the loss defines them."""
        return logits.float().softmax(-1) if self.criterion.activation == "softmax" else logits.float().sigmoid()

    def _evaluate(self, stage: str, batch: Batch) -> None:
        logits = self(batch)
        target = batch["label"]
        loss = self._loss(logits, target)
        self.log(f"{stage}/loss", loss, batch_size=len(target), on_epoch=True, sync_dist=True)
        self._scores(stage).update(self.probabilities(logits), target, batch["row"], batch["start"])

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the probabilities of validation windows."""
        self._evaluate("valid", batch)

    def test_step(self, batch: Batch, index: int) -> None:
        """Collect the probabilities of test windows."""
        self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Tune thresholds on the validation files, then score them."""
        self._finish("valid", tune=True)

    def on_test_epoch_end(self) -> None:
        """Score the test files with the thresholds of the checkpoint."""
        self._finish("test", tune=False)

    def _scores(self, stage: str) -> Scores:
        return cast(Scores, self.scores[stage])

    def _finish(self, stage: str, tune: bool) -> None:
        windows = self._scores(stage).compute()
        self._scores(stage).reset()
        if not len(windows):
            return
        prob, target, _ = per_row(windows.prob, windows.target, windows.row, self.aggregate)
        if tune and self.spec.multilabel:
            self.thresholds.copy_(best_thresholds(prob, target))
        values, per_class = self._score(prob, target)
        if stage == "test":
            counts = group_counts(self.decide(prob), target, torch.arange(len(prob), device=prob.device))
            values["macro_f1_low"], values["macro_f1_high"] = interval(counts)  # 95 %, bootstrap over files
        window_values, _ = self._score(windows.prob, windows.target)
        values |= {f"window_{name}": value for name, value in window_values.items()}
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        named = zip(self.spec.classes, per_class["f1"].tolist(), strict=True)
        self.log_dict({f"{stage}_class/{name}_f1": value for name, value in named})
        kept = {name: metric.cpu() for name, metric in per_class.items()}
        self.outcome[stage] = {
            "prob": prob.cpu(),
            "target": target.cpu(),
            "values": values,
            "per_class": kept,
        }

    def _score(self, prob: Tensor, target: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
        return score(prob, target, self.thresholds.to(prob), self.spec.multilabel)

    def decide(self, prob: Tensor) -> Tensor:
        """Decisions (files, K) bool: above the thresholds, or the most probable class."""
        return decide(prob, self.thresholds.to(prob) if self.spec.multilabel else None).bool()

    def baselines(self, data: Any) -> dict[str, dict[str, float]]:
        """MFCC means and deviations with logistic regression."""
        from tonnetz.baseline import mfcc_baseline

        return {"baseline": mfcc_baseline(data)}

    def figures(self, stage: str) -> dict[str, Any]:
        """Bars per class; of a test also confusion, ROC curves and the histogram of probabilities."""
        found = self.outcome.get(stage)
        if not found:
            return {}
        from tonnetz import figures

        classes, prob, target = self.spec.classes, found["prob"], found["target"]
        bars = {name: found["per_class"][name].tolist() for name in ("f1", "ap")}
        title = f"{stage}: {len(prob)} files, macro F1 {found['values']['macro_f1']:.3f}"
        drawn = {"classes": figures.class_bars(bars, classes, title)}
        if stage == "test":
            areas = found["per_class"]["auc"].tolist()
            drawn["confusion"] = figures.confusion_matrix(*self._confusion(prob, target))
            drawn["roc"] = figures.roc_curves(prob.numpy(), target.numpy(), classes, areas)
            drawn["probabilities"] = figures.score_histogram(prob.numpy(), target.numpy())
        return drawn

    def _confusion(self, prob: Tensor, target: Tensor) -> tuple[Any, tuple[str, ...], str]:
        """Counts (K true, K found); of several labels, how often one is found where another is true."""
        if self.spec.multilabel:
            counts = (target == 1).float().T @ self.decide(prob).float()
            return counts.numpy(), self.spec.classes, "test: files with one class in which the other is found"
        return confusion(prob, target, multilabel=False).numpy(), self.spec.classes, "test files"


def _head(size: int, hidden: int | None, classes: int, dropout: float) -> nn.Sequential:
    """Dropout and a linear layer; with a hidden layer, that and ReLU before it."""
    if hidden is not None and hidden < 1:
        raise UserError(f"task.hidden={hidden}: must be above 0, or null for a linear head")
    before = [nn.Dropout(dropout), nn.Linear(size, hidden), nn.ReLU()] if hidden else []
    return nn.Sequential(*before, nn.Dropout(dropout), nn.Linear(hidden or size, classes))
