"""Lightning callbacks of a training run: history, interruption, pictures."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from tonnetz import figures
from tonnetz.atomic import replacing
from tonnetz.errors import UserError
from tonnetz.frontend import Frontend, LogMel
from tonnetz.loggers import board_of, show
from tonnetz.tasks.base import Batch, Task

EXAMPLES = 4  # spectrograms and sounds that a dashboard shows
POINTS = 2000  # embeddings that the projector gets


class History(L.Callback):
    """Keeps `metrics.csv`: one row a validation, continued without gaps or doubles when a run is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        self.begin = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the rows up to the step that training goes on from; their seconds count on."""
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]
        before = float(self.rows[-1].get("seconds") or 0) if self.rows else 0.0
        self.begin = time.monotonic() - before

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add a row with the metrics of this validation."""
        if trainer.sanity_checking or not trainer.is_global_zero or not trainer.fit_loop.epoch_progress.total.ready:
            return
        assert isinstance(pl_module, Task)
        skipped = ("test", *pl_module.skipped)  # Lightning keeps what an earlier validation found
        values = {k: v for k, v in trainer.callback_metrics.items() if not k.startswith(skipped)}
        lr = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else float("nan")
        row = {"step": str(trainer.global_step), "epoch": str(trainer.current_epoch), "lr": f"{lr:.6g}"}
        row["seconds"] = f"{time.monotonic() - self.begin:.1f}"
        row |= {name: f"{float(value):.6f}" for name, value in values.items()}
        self.rows = [old for old in self.rows if old["step"] != row["step"]] + [row]
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    def points(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a metric."""
        return [(float(row["step"]), float(row[name])) for row in self.rows if row.get(name)]


class Interrupt(L.Callback):
    """Ctrl-C once: save and stop after this batch, then test. Twice: stop now.

    Lightning itself would exit the process at the first one.
    """

    def __init__(self, last: Path, abandon: Callable[[], None]) -> None:
        self.last, self.abandon = last, abandon
        self.moment = last.with_name("interrupted.ckpt")  # the end of this broken epoch must not overwrite it
        self.presses = 0
        self._previous: Any = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.presses += 1
        if self.presses > 1:  # an exception could be swallowed where this lands, in a destructor for one
            self.abandon()
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(130)
        print("\nstopping after this batch, then testing; press Ctrl-C again to stop now", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def keep(self) -> None:
        """Let a later run go on from the batch at which this one was interrupted."""
        if self.moment.exists() and not int(os.environ.get("LOCAL_RANK", 0)):
            os.replace(self.moment, self.last)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where the first Ctrl-C asks for it."""
        if self.presses and not trainer.should_stop:
            trainer.save_checkpoint(self.moment)
            trainer.should_stop = True


class Patience(L.Callback):
    """Stops a run whose smoothed metric has not improved for `patience` validations.

    The exponential moving average (weight `alpha` on the newest value, 1 = none) decides when to stop; which
    checkpoint is the best is for the raw value to say. While the schedule holds the rate (`hold` steps), waiting
    does not count. The state is part of the checkpoint.
    """

    def __init__(self, monitor: str, mode: str, patience: int, alpha: float = 1.0) -> None:
        if not 0 < alpha <= 1:
            raise UserError(f"job.smoothing={alpha}: must be above 0 and at most 1 (1 = no smoothing)")
        self.monitor, self.sign, self.patience, self.alpha = monitor, 1 if mode == "max" else -1, patience, alpha
        self.smooth: float | None = None
        self.best = -float("inf")
        self.waited = 0

    def observe(self, value: float, held: bool = False) -> bool:
        """Take in the value of a validation; returns whether it is time to stop."""
        value *= self.sign
        self.smooth = value if self.smooth is None else self.alpha * value + (1 - self.alpha) * self.smooth
        if self.smooth > self.best:
            self.best, self.waited = self.smooth, 0
        elif not held:
            self.waited += 1
        return self.waited >= self.patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do not go on with a run that had stopped before it was interrupted."""
        if self.waited >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop when it is time."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or not trainer.fit_loop.epoch_progress.total.ready:
            return
        schedule = trainer.lr_scheduler_configs[0].scheduler if trainer.lr_scheduler_configs else None
        if self.observe(float(value), trainer.global_step <= getattr(schedule, "hold", 0)):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Average, best and validations waited."""
        return {"smooth": self.smooth, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.smooth, self.best, self.waited = state_dict["smooth"], state_dict["best"], state_dict["waited"]


class MovingAverage(WeightAveraging):
    """Exponential moving average of all weights and buffers, which is what is evaluated, and stored as the model.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so that the untrained weights are soon forgotten. The
    weights that training goes on from are in the checkpoint, too.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"job.ema={decay}: must be between 0 and 1, e.g. 0.999; null keeps no average")
        self.decay = decay
        super().__init__(multi_avg_fn=self.blend)

    @torch.no_grad()
    def blend(self, average: Any, current: Any, count: Tensor | int) -> None:
        """Move lists of averages of one type towards the current values; whole numbers are copied."""
        n = int(count)
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - min(self.decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(average, current)


class Dashboard(L.Callback):
    """Puts into TensorBoard (figures into W&B too), and into `figures/` as PNG, what a person wants to look at."""

    def __init__(self, folder: Path, history: History, names: dict[str, list[str]]) -> None:
        self.folder, self.history = folder, history
        self.names = names  # split -> track ids, for the projector

    def _board(self, trainer: L.Trainer) -> Any:
        return board_of(trainer.loggers)

    def _show(self, trainer: L.Trainer, name: str, figure: Any) -> None:
        picture = self.folder / "figures" / f"{name.replace('/', '_')}.png"
        figures.save(figure, picture)
        show(trainer.loggers, name, figure, picture, trainer.global_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Show the first batch before and after augmentation, to the eye and to the ear."""
        if batch_idx or trainer.current_epoch or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Task)
        few = {key: value[:EXAMPLES] for key, value in batch.items()}
        with torch.no_grad():
            before = pl_module.encoder.features(few)
            changed = pl_module.augment.wave(few)
            after = pl_module.augment.features(pl_module.encoder.features(changed))
        frontend = pl_module.encoder.frontend
        images = [_images(item["features"], frontend) for item in (before, after)]
        if images[0] is not None and images[1] is not None:
            titles = _titles(pl_module.spec.classes, few)
            samples = batch["audio"].shape[-1] / images[0].shape[-1] if "audio" in batch else frontend.hop  # of a frame
            step = float(samples / frontend.sample_rate)
            self._show(trainer, "input/augmentation", figures.spectrogram_pairs(images[0], images[1], titles, step))
        if "audio" in batch and (board := self._board(trainer)):
            for i in range(len(few["row"])):
                for when, item in (("before", few), ("after", changed)):
                    sound = item["audio"][i, 0].cpu()
                    sound = sound / sound.abs().max().clamp(min=1e-5)
                    board.add_audio(f"input/{i}_{when}", sound, 0, sample_rate=frontend.sample_rate)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the texts of the task."""
        assert isinstance(pl_module, Task)
        if trainer.is_global_zero and (board := self._board(trainer)):
            for name, text in pl_module.texts().items():
                board.add_text(name, text)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the curves so far and what the task shows of this validation."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self.history.rows:
            return
        assert isinstance(pl_module, Task)
        points = {name: self.history.points(name) for name in ("train/loss", "valid/loss", *pl_module.curves)}
        figures.save(figures.curves(points, self.folder.name), self.folder / "figures" / "curves.png")
        self._task_figures(trainer, pl_module, "valid")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what the task shows of a test."""
        assert isinstance(pl_module, Task)
        if trainer.is_global_zero:
            self._task_figures(trainer, pl_module, "test")

    def _task_figures(self, trainer: L.Trainer, task: Task, stage: str) -> None:
        for name, figure in task.figures(stage).items():
            self._show(trainer, f"{stage}/{name}", figure)

    def project(self, trainer: L.Trainer, task: Task, loader: Any, split: str) -> None:
        """Send one embedding a window, up to 2,000, to TensorBoard's projector."""
        board = self._board(trainer)
        if board is None or not trainer.is_global_zero:
            return
        if found := task.projector(split):
            vectors, texts, header, pictures = found
            few = None if pictures is None else pictures[:POINTS]
            board.add_embedding(vectors[:POINTS], texts[:POINTS], few, metadata_header=header, tag=split)
            return
        parts: list[Tensor] = []
        meta: list[list[str]] = []
        task.eval()
        with torch.inference_mode():
            for batch in loader:
                moved = {key: value.to(task.device) for key, value in batch.items()}
                parts.append(task.embed(moved).float().cpu())
                titles = [_title(task.spec.classes, label) for label in batch["label"]]
                meta += [
                    [name, self.names[split][row]] for name, row in zip(titles, batch["row"].tolist(), strict=True)
                ]
                if len(meta) >= POINTS:
                    break
        board.add_embedding(torch.cat(parts)[:POINTS], meta[:POINTS], metadata_header=["label", "track"], tag=split)


class Milestones(L.Callback):
    """Keeps ``FOLDER/epoch-N.ckpt`` of every so many epochs."""

    def __init__(self, folder: Path, every: int) -> None:
        if not isinstance(every, int) or every < 1:
            raise UserError(f"job.keep_every={every}: must be a whole number of epochs above 0")
        self.folder, self.every = folder, every

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, after the validation of the epoch."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch}.ckpt")


def _images(features: Tensor, frontend: Frontend) -> Any:
    """First channel as (B, F, T) for a picture, of a waveform as log-mel; None for others without bins."""
    if features.shape[2] == 1 and frontend.hop == 1:
        features = LogMel(frontend.sample_rate)(features[:, :1, 0].float().cpu())  # (B, 1, F, T)
    return features[:, 0].float().cpu().numpy() if features.shape[2] > 1 else None


def _titles(classes: tuple[str, ...], batch: Batch) -> list[str]:
    """Labels of excerpts, or the number of their track; which view of it, where several are in the batch."""
    rows = batch["row"].tolist()
    labels = [_title(classes, label) for label in batch["label"]] if classes else [""] * len(rows)
    names = [label or f"track {row}" for label, row in zip(labels, rows, strict=True)]
    views = [f", view {rows[:i].count(row) + 1}" if rows.count(row) > 1 else "" for i, row in enumerate(rows)]
    return [name + view for name, view in zip(names, views, strict=True)]


def _title(classes: tuple[str, ...], label: Tensor) -> str:
    return ", ".join(name for name, value in zip(classes, label.tolist(), strict=True) if value == 1)
