"""What all tasks share: steps, logging, optimizer, schedule, checkpoint payload, random keys."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tonnetz.augment import Augment
from tonnetz.errors import Diverged, UserError
from tonnetz.models.encoder import Encoder
from tonnetz.tasks.optimizer import parameter_groups
from tonnetz.tracks import DataSpec

Batch = dict[str, Tensor]


PATIENCE = 3  # broken steps in a row that make a run diverged


class Task(L.LightningModule):
    """A training regime around an encoder. A subclass writes `forward`, `loss` and the evaluation hooks.

    Args:
        encoder: front-end, spectral augmentation and backbone.
        augment: its `wave` part is applied to training batches here.
        optimizer: called with parameter groups.
        schedule: called with (optimizer, steps=total steps).
        spec: what the task knows about the data.
        seed: keys the random numbers of training steps.
    """

    monitor: ClassVar[str] = "valid/loss"
    mode: ClassVar[str] = "min"
    score: ClassVar[str] = "loss"  # the metric that stands for a run in tables and sweeps
    curves: ClassVar[tuple[str, ...]] = ()  # validation metrics drawn over the steps, beside the losses

    def __init__(
        self,
        *,
        encoder: Encoder,
        augment: Augment,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any],
        spec: DataSpec,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.augment = encoder, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.spec, self.seed = spec, seed
        self.payload: dict[str, Any] = {}  # filled by build; plain values only
        self.data: Any = None  # the data module, set by build: evaluation may ask which tracks there are
        self.tested = "test"  # the split or set that a test reads
        self.outcome: dict[str, dict[str, Any]] = {}  # stage -> what its last evaluation found, for figures
        self.skipped: tuple[str, ...] = ()  # beginnings of metrics that the last validation did not measure
        self._broken = 0  # steps in a row without a finite loss
        self.warm_state: dict[str, Any] | None = None  # of an optimizer, that a new run starts from

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of a batch, a scalar."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def on_train_start(self) -> None:
        """Take over the optimizer's moments of a warm start, not its rates."""
        if self.warm_state is None or self.trainer.global_step:
            return
        optimizer = self.trainer.optimizers[0]
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(self.warm_state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """Augment, encode, compare. A step without a finite loss is left out; a third in a row raises Diverged."""
        loss = self.loss(self.augmented(batch))
        if not torch.isfinite(loss):
            self._broken += 1
            if self._broken >= PATIENCE or self.trainer.world_size > 1:  # other ranks wait for our gradients
                raise Diverged(f"the training loss became {loss.item()} at step {self.global_step}; lower optimizer.lr")
            return None
        self._broken = 0
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["row"]))
        return loss

    def augmented(self, batch: Batch) -> Batch:
        """The batch with its sound augmented."""
        return self.augment.wave(batch)

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Key all random numbers of a step by (seed, rank, epoch, batch): nothing depends on what ran before it."""
        torch.manual_seed(hash((self.seed, self.global_rank, self.current_epoch, index)) & (2**63 - 1))

    def embed(self, batch: Batch) -> Tensor:
        """One vector an excerpt, (B, D)."""
        raise TypeError(f"{type(self).__name__} has no embedding")

    def tail(self) -> nn.Module:
        """What `embed` does after pooling, as a module that can be exported."""
        return nn.Identity()

    def placed(self, plan: Any) -> Any:
        """The sampling plan as this task evaluates it."""
        return plan

    def settle(self) -> None:
        """Learn what needs no training step, before a network that is not trained is kept."""

    def check(self, data: Any) -> None:
        """Raise UserError now for what an evaluation would raise after training."""

    def facts(self, data: Any) -> dict[str, Any]:
        """What `metrics.json` tells beside the scores, about how they came to be."""
        return {}

    def baselines(self, data: Any) -> dict[str, dict[str, float]]:
        """Scores of simple methods on the test split that stand beside this task's in every table."""
        return {}

    def report(self, folder: Path, data: Any) -> None:
        """Print and write into the run's folder what the table of test scores cannot hold."""

    def figures(self, stage: str) -> dict[str, Any]:
        """Figures by name that show the last evaluation of a stage (valid or test)."""
        return {}

    def projector(self, stage: str) -> tuple[Tensor, list[list[str]], list[str], Tensor | None] | None:
        """For TensorBoard: vectors (N, D), texts of each with their header, pictures (N, 1, H, W) or null.

        Null altogether: one vector a window.
        """
        return None

    def texts(self) -> dict[str, str]:
        """Texts by name that TensorBoard shows, in Markdown."""
        return {}

    def on_test_end(self) -> None:
        """Keep the logged test metrics for the final table, unless the task kept more itself."""
        logged = {
            k.removeprefix("test/"): float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith("test/")
        }
        self.outcome.setdefault("test", {"values": logged, "per_class": {}})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer with no decay on vectors; the schedule moves every step (plateau: every validation)."""
        decay = float(getattr(self.optimizer, "keywords", {}).get("weight_decay", 0.0))
        try:
            optimizer = self.optimizer(parameter_groups(self, decay))
        except ValueError as error:
            raise UserError(f"optimizer: {error}") from None
        steps = total_steps(self.trainer)
        direction = {"mode": self.mode} if "mode" in inspect.signature(self.schedule).parameters else {}
        scheduler = self.schedule(optimizer, steps=steps, **direction)
        if isinstance(scheduler, ReduceLROnPlateau):
            config: LRSchedulerConfigType = {"scheduler": scheduler, "interval": "epoch", "monitor": self.monitor}
        else:
            config = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint describe itself."""
        checkpoint["tonnetz"] = self.payload


def total_steps(trainer: L.Trainer) -> int:
    """Optimizer steps of the whole run.

    Lightning's own estimate would start the loader before a checkpoint's place in the epoch is restored.
    """
    batches = trainer.datamodule.steps  # type: ignore[attr-defined]
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    batches = int(getattr(trainer, "fast_dev_run", 0)) or batches
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
    if trainer.max_steps == -1:
        return steps
    return trainer.max_steps if trainer.max_epochs in (None, -1) else min(trainer.max_steps, steps)
