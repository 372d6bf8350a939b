"""Self-supervised pretraining: two views of a track should look alike to the encoder; no labels are needed."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from tonnetz.errors import UserError, suggest
from tonnetz.learned import opened
from tonnetz.losses.views import gathered
from tonnetz.metrics import representation as measures
from tonnetz.metrics.classification import accuracy, average_precision, decide, exclusive, per_row
from tonnetz.metrics.vectors import Vectors
from tonnetz.models.base import length_mask
from tonnetz.tasks.base import Batch, Task, total_steps

SELECT = {"loss": "min", "knn": "max", "linear": "max", "rank": "max"}  # how checkpoints may be chosen: the better


class Contrastive(Task):
    """Encoder, pooling, projector; and where the loss wants them, a predictor and a moving average of it all.

    `embed`, and whatever starts from a checkpoint, uses the pooled vectors; projector and predictor serve the loss.

    Args:
        pooling: frames to one vector.
        loss: compares the views, see `tonnetz.losses.views`.
        dim: size of the projection; null takes that of the pooled vector.
        layers: linear layers of the projector; 0 has none, and `dim` must then be null.
        hidden: size between them; null takes that of the pooled vector.
        norm: batch-normalise between them; null does what the loss's method does.
        predictor: size of the predictor's hidden layer, for a loss that predicts.
        kin: column of the table (group is the recording; artist, work, labels, ...) whose equal values make two tracks
            kin, which `loss.kin` masks or uses as positives; null: a track is kin to itself alone.
        together: encode both views in one pass; false has two passes, with batch statistics of their own.
        clean: leave one of the two views as it is; only the other one is augmented.
        select: what chooses the best checkpoint on the validation split: loss | knn | linear | rank.
        bank: labelled training tracks that the monitors knn and linear learn from; 0 turns them off.
        neighbours: of the monitor knn.
        allow_transductive: pretrain on validation and test tracks that a corpus names, where data.corpus.split=train
            asks for it. Results tell.
        plan: belongs to the data; named here because the task chooses it.
    """

    curves: ClassVar[tuple[str, ...]] = ("valid/knn", "valid/linear", "valid/deviation")

    def __init__(
        self,
        *,
        pooling: nn.Module,
        loss: nn.Module,
        dim: int | None = 64,
        layers: int = 2,
        hidden: int | None = None,
        norm: bool | None = None,
        predictor: int = 512,
        kin: str | None = "group",
        together: bool = True,
        clean: bool = False,
        select: str = "loss",
        bank: int = 1000,
        neighbours: int = 20,
        allow_transductive: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        _check(loss, select, dim, layers, hidden, predictor, neighbours)
        self.pooling, self.criterion = pooling, cast(Any, loss)
        size = cast(int, pooling.out_dim)
        self.dim, self.kin, self.together, self.clean = dim or size, kin, together, clean
        self.allow_transductive = allow_transductive
        normed = self.criterion.norm if norm is None else norm
        self.projection = projector(size, hidden or size, self.dim, layers, normed)
        self.predictor = _predictor(self.dim, predictor, normed) if self.criterion.predicts else None
        self.target = self._copy() if self.criterion.momentum else None
        self.monitor, self.mode, self.score = f"valid/{select}", SELECT[select], select  # type: ignore[misc]
        self.bank, self.neighbours = bank if self.spec.classes else 0, neighbours
        if select in ("knn", "linear") and not self.bank:
            raise UserError(f"task.select={select}: needs labels and task.bank above 0; take task.select=loss or rank")
        self.parts = [size, 2 * self.dim, 2 * self.dim, len(self.spec.classes)]  # of what evaluation gathers
        self.seen = nn.ModuleDict({stage: Vectors(sum(self.parts)) for stage in ("valid", "test")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("valid", "test")})  # of a loss on frames
        self.learned = Vectors(size + len(self.spec.classes))
        self._codes: dict[str, Tensor] = {}  # split -> number of the kin of each of its tracks

    # --- vectors

    def embed(self, batch: Batch) -> Tensor:
        """Pooled vector of each excerpt, (B, D)."""
        return self.pooling(*self.encoder(batch))

    def forward(self, batch: Batch) -> Tensor:
        """Projection of each excerpt, (B, D')."""
        return self.projection(self.embed(batch))

    def views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Online and target vectors, both (N, 2, D'), of 2N excerpts of which two neighbours are views of one track."""
        x, lengths = self._entering(batch)
        online = self._both(self._online(), x, lengths)
        target = online.detach() if self.target is None else self._targets(self.target, x, lengths)
        if self.predictor is not None:
            online = self.predictor(online.flatten(0, 1)).view_as(online)
        return online, target

    def augmented(self, batch: Batch) -> Batch:
        """The batch of views with their sound augmented, or with that of every other one."""
        return self._spared(batch, self.augment.wave(batch))

    def _spared(self, before: Batch, after: Batch) -> Batch:
        if not self.clean:
            return after
        first = {key: before[key][::2] for key in ("audio", "features", "lengths") if key in before}
        return after | {key: torch.stack([x, after[key][1::2]], 1).flatten(0, 1) for key, x in first.items()}

    def _entering(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Augmented features (2N, C, F, T) and their valid frames (2N,)."""
        plain = self.encoder.features(batch)
        batch = self._spared(plain, self.encoder.augment.features(plain))
        return batch["features"], batch["lengths"]

    def _online(self) -> nn.ModuleDict:
        return nn.ModuleDict(
            {"backbone": self.encoder.backbone, "pooling": self.pooling, "projection": self.projection}
        )

    @torch.no_grad()
    def _targets(self, average: nn.ModuleDict, x: Tensor, lengths: Tensor) -> Tensor:
        """In evaluation mode: the statistics of the batch cannot tell which target belongs to a view."""
        return self._both(average.eval(), x, lengths)

    def _both(self, parts: nn.ModuleDict, x: Tensor, lengths: Tensor) -> Tensor:
        if self.together:
            return _project(parts, x, lengths).unflatten(0, (-1, 2))  # (N, 2, D')
        return torch.stack([_project(parts, x[i::2], lengths[i::2]) for i in (0, 1)], 1)

    # --- training

    def check(self, data: Any) -> None:
        """Raise UserError for tracks that a corpus gives to validation or test, unless they are allowed, for excerpts
        of too few frames for a loss that looks ahead, and for a batch in which there is nothing to compare with.
        """
        if self.criterion.others and data.batch_size < 2:
            raise UserError(
                f"data.batch_size=1: {type(self.criterion).__name__} compares the excerpts of a batch; take 2 at least "
                "and better a hundred, or loss=moco, byol or simsiam"
            )
        if self.criterion.frames:
            self._check_frames(data.plan)
        names = [] if self.allow_transductive else opened(data.corpora)
        if names:
            raise UserError(
                f"split=train: {names[0]} names tracks to validate or test, which would be pretrained on; "
                "leave it out, or say task.allow_transductive=true, which results will tell"
            )

    def _check_frames(self, plan: Any) -> None:
        frontend, least = self.encoder.frontend, self.criterion.steps + 1
        seconds = min(*plan.lengths, plan.span)
        samples = torch.tensor([round(seconds * frontend.sample_rate)])
        frames = int(self.encoder.backbone.frames(frontend.frames(samples)))
        if frames < least:
            raise UserError(
                f"loss.steps={self.criterion.steps}: {seconds:g} s are {frames} frames here, {least} are needed; "
                "take longer task.plan.seconds, a network of more frames (model=cnn, fewer model.widths) or fewer steps"
            )

    def facts(self, data: Any) -> dict[str, Any]:
        """Whether validation or test tracks were pretrained on."""
        return {"transductive": bool(opened(data.corpora))}

    def loss(self, batch: Batch) -> Tensor:
        """The criterion on the views of all processes."""
        if self.criterion.frames:
            frames, mask, _ = self._frames(batch)
            return self._ahead(*(gathered(x) for x in (frames, mask, self.codes("train", batch["row"]))))
        online, target = self.views(batch)
        code = self.codes("train", batch["row"][::2])
        return self._compare(*(gathered(part) for part in (online, target, code)))

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Frames (2N, T', D) of augmented excerpts with their mask (2N, T'), and their vectors (N, 2, D)."""
        frames, mask = self.encoder.encode(*self._entering(batch))
        return frames, mask, self.pooling(frames, mask).unflatten(0, (-1, 2))

    def _ahead(self, frames: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        """A criterion on frames."""
        with torch.autocast(frames.device.type, enabled=False):
            return self.criterion.compare(frames.float(), mask, code)

    def _compare(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        with torch.autocast(online.device.type, enabled=False):
            return self.criterion(online.float().transpose(0, 1), target.float().transpose(0, 1), code)

    def codes(self, split: str, row: Tensor) -> Tensor:
        """The number of the kin of each row (N,) of a split; the same in all splits, since a queue outlives one."""
        if self.data is None:
            return row
        if split not in self._codes:
            table = self.data.table
            code = dict(zip(table["number"], kin_codes(table, self.kin).tolist(), strict=True))
            self._codes[split] = torch.tensor([code[number] for number in self.data.split(split)["number"]])
        return self._codes[split].to(row.device)[row]

    def on_train_start(self) -> None:
        """Start the moving average where training starts."""
        super().on_train_start()
        if self.trainer.global_step == 0:
            self._follow(0.0)

    def optimizer_step(self, *args: Any, **keywords: Any) -> None:
        """Move the weights, and the moving average after them."""
        super().optimizer_step(*args, **keywords)
        if self.target is not None:
            first, last = self.criterion.momentum
            progress = min(1.0, self.trainer.global_step / total_steps(self.trainer))
            self._follow(last - (last - first) * (1 + math.cos(math.pi * progress)) / 2)

    def _copy(self) -> nn.ModuleDict:
        return copy.deepcopy(self._online()).requires_grad_(False)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Average <- decay x average + (1 - decay) x online, of weights and statistics; counts are copied."""
        if self.target is None:
            return
        online, target = self._online().state_dict().values(), self.target.state_dict().values()
        for new, old in zip(online, target, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)

    # --- evaluation

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the vectors of validation windows."""
        self._collect("valid", batch, index)

    def test_step(self, batch: Batch, index: int) -> None:
        """Collect the vectors of test windows."""
        self._collect("test", batch, index)

    def _collect(self, stage: str, batch: Batch, index: int) -> None:
        pooled = self.embed(batch)  # (B, D), as they are
        twice = {key: value.repeat_interleave(2, 0) for key, value in batch.items()}
        with self._augmenting(index):
            online, target = self._judged(stage, self.augmented(twice))
        found = torch.cat([pooled, online.flatten(1), target.flatten(1), batch["label"].to(pooled)], 1)
        row, start = batch["row"], batch["start"]
        self._seen(stage).update(found, row, torch.zeros_like(row), start, torch.ones_like(start))

    def _judged(self, stage: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """The views of a batch to evaluate; a criterion on frames is asked at once, on each process by itself."""
        if not self.criterion.frames:
            return self.views(batch)
        frames, mask, vectors = self._frames(batch)
        value = self._ahead(frames, mask, self.codes(stage, batch["row"]))
        cast(Any, self.losses[stage]).update(value, len(vectors))
        return vectors, vectors

    def _seen(self, stage: str) -> Vectors:
        return cast(Vectors, self.seen[stage])

    @contextmanager
    def _augmenting(self, index: int) -> Iterator[None]:
        """Augmentation in evaluation, the same in every epoch."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(hash((self.seed, self.global_rank, index)) & (2**63 - 1))
            self.augment.train()
            yield
            self.augment.eval()

    def on_validation_epoch_end(self) -> None:
        """Judge the encoder on the validation split."""
        self._finish("valid")

    def on_test_epoch_end(self) -> None:
        """Judge the encoder on the test split."""
        self._finish("test")

    def _finish(self, stage: str) -> None:
        found = self._seen(stage).compute()
        self._seen(stage).reset()
        if not len(found):
            return
        pooled, online, target, label = found.z.split(self.parts, 1)
        online, target = (x.unflatten(1, (2, self.dim)) for x in (online, target))  # (M, 2, D')
        partner = self.data.plan.partners(found.row.cpu().numpy())
        online, target = (torch.stack([x[:, 0], x[partner, 1]], 1) for x in (online, target))
        values = {"loss": self._validated_loss(stage, online, target, found.row)}
        values |= {"deviation": measures.deviation(pooled), "rank": measures.effective_rank(pooled)}
        values["alignment"] = measures.alignment(online[:, 0], online[:, 1])
        values["uniformity"] = measures.uniformity(online[:, 0])
        values |= self._read(pooled, label, found.row)
        plain = {name: float(value) for name, value in values.items()}
        self.log_dict({f"{stage}/{name}": value for name, value in plain.items()}, sync_dist=True)
        self.outcome[stage] = {"values": plain, "per_class": {}}

    def _validated_loss(self, stage: str, online: Tensor, target: Tensor, row: Tensor) -> Tensor:
        if not self.criterion.frames:
            return self._mean_loss(online, target, self.codes(stage, row))
        mean = cast(Any, self.losses[stage])
        value = mean.compute()
        mean.reset()
        return value

    def _mean_loss(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Mean loss of pairs (M, 2, D') in shuffled batches as large as in training; what is left over is left out."""
        size = min(self.data.batch_size * self.trainer.world_size, len(code))
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(code))).to(code.device)
        batches = order[: len(code) // size * size].view(-1, size)
        return torch.stack([self._compare(online[b], target[b], code[b]) for b in batches]).mean()

    def _read(self, pooled: Tensor, label: Tensor, row: Tensor) -> dict[str, Tensor]:
        """How well labels of tracks are read from their vectors (M, D), by nearest neighbours and linearly.

        Accuracy, or mean average precision where tracks may have several labels.
        """
        if not self.bank or not label.isfinite().any():
            return {}
        bank, known = self._learned().split([self.parts[0], self.parts[3]], 1)
        if not len(bank):
            return {}
        guesses = {
            "knn": measures.nearest(bank, known, pooled, self.neighbours),
            "linear": measures.ridge(bank, known, pooled),
        }
        return {name: self._right(*per_row(guess, label, row, "mean")[:2]) for name, guess in guesses.items()}

    def _right(self, guess: Tensor, label: Tensor) -> Tensor:
        if self.spec.multilabel:
            return average_precision(guess, label).nanmean()
        return accuracy(decide(guess), exclusive(label))

    @torch.no_grad()
    def _learned(self) -> Tensor:
        """Vectors and labels (N, D + K) of the middle of up to `bank` labelled training tracks."""
        source = self.data.dataset("train", train=True)
        known = np.flatnonzero(np.isfinite(source.tracks.labels).any(1))
        known = np.sort(np.random.default_rng(self.seed).permutation(known)[: self.bank])
        known = known[self.global_rank :: self.trainer.world_size]
        window = source.samples(self.data.plan.span)
        for rows in np.split(known, range(self.data.batch_size, len(known), self.data.batch_size)):
            if len(rows):
                starts = np.maximum(source.tracks.samples[rows] - window, 0) // 2
                batch = {key: value.to(self.device) for key, value in source.read(rows, starts, window).items()}
                found = torch.cat([self.embed(batch).float(), batch["label"]], 1)
                row, start = batch["row"], batch["start"]
                self.learned.update(found, row, torch.zeros_like(row), start, torch.ones_like(start))
        found = self.learned.compute().z
        self.learned.reset()
        return found


def _project(parts: nn.ModuleDict, x: Tensor, lengths: Tensor) -> Tensor:
    """Projections (B, D') of features (B, C, F, T)."""
    backbone = cast(Any, parts["backbone"])
    hidden = backbone(x, length_mask(lengths, x.shape[-1]))  # (B, T', D)
    pooled = parts["pooling"](hidden, length_mask(backbone.frames(lengths), hidden.shape[1]))
    return parts["projection"](pooled)


def projector(size: int, hidden: int, dim: int, layers: int, norm: bool) -> nn.Sequential:
    """`layers` linear layers without bias, size -> hidden -> ... -> dim, with (batch norm and) ReLU between them."""
    sizes = [size, *[hidden] * (layers - 1), dim] if layers else [size]
    made: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        made.append(nn.Linear(before, after, bias=False))
        if i < layers - 1:
            made += [nn.BatchNorm1d(after), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*made)


def _predictor(dim: int, hidden: int, norm: bool) -> nn.Sequential:
    between = [nn.BatchNorm1d(hidden), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(nn.Linear(dim, hidden, bias=not norm), *between, nn.Linear(hidden, dim))


def _check(
    loss: Any, select: str, dim: int | None, layers: int, hidden: int | None, predictor: int, neighbours: int
) -> None:
    if getattr(loss, "kind", "") != "views":
        raise UserError("task=contrastive needs a loss on views: loss=simclr, dcl, moco, vicreg, byol, ...")
    if select not in SELECT:
        raise UserError(f"task.select={select}{suggest(select, SELECT)}")
    if loss.frames and (layers or dim):
        raise UserError(
            f"task.layers={layers} task.dim={dim}: this loss compares frames; take task.layers=0 task.dim=null"
        )
    if layers < 0 or (layers == 0 and dim):
        raise UserError(f"task.layers={layers} task.dim={dim}: without a projector (layers=0) take task.dim=null")
    for name, value in {"dim": dim, "hidden": hidden, "predictor": predictor, "neighbours": neighbours}.items():
        if value is not None and value < 1:
            raise UserError(f"task.{name}={value}: must be above 0")


def kin_codes(frame: pl.DataFrame, column: str | None) -> np.ndarray:
    """One number for all tracks of a table (rows,) with the same value of a column; a track without has its own.

    Raises UserError for a column that is not there.
    """
    if column is None:
        return np.arange(frame.height)
    if column not in frame.columns:
        raise UserError(f"task.kin={column}: the tracks have no such column{suggest(column, frame.columns)}")
    value = pl.col(column)
    if isinstance(frame.schema[column], pl.List):
        value = pl.when(value.list.len() > 0).then(value.list.sort().list.join("\n"))
    named = pl.concat_str(pl.lit("="), value.cast(pl.String))
    alone = pl.concat_str(pl.lit("#"), pl.int_range(pl.len()).cast(pl.String))
    numbers = frame.select(pl.coalesce(named, alone).rank("dense").cast(pl.Int64) - 1).to_series()
    return np.array(numbers)
