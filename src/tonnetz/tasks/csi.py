"""Cover-song identification: versions of a work lie near each other, and retrieval finds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from tonnetz.errors import Diverged, UserError
from tonnetz.losses.views import gathered
from tonnetz.metrics.vectors import Vectors
from tonnetz.reductions import check_distance, check_reduction
from tonnetz.retrieval import Matching, evaluate
from tonnetz.segments import cut, grid
from tonnetz.tasks.base import Batch, Task

CUTS = ("frames", "input")
ACCEPTED = 0.01  # share of strangers that get a match, as job.p


class CSI(Task):
    """Encoder, pooling, projection; a track is the set of vectors of its segments.

    Args:
        pooling: frames of a segment to one vector.
        loss: a metric loss on (segments, works).
        dim: size of the vectors after a linear projection; null has none.
        norm: batch-normalise the pooled vectors before the projection.
        segment: seconds that one vector stands for; null gives one vector to a whole excerpt or window.
        segment_hop: seconds between segments in evaluation; null lays them side by side.
        train_hop: the same in training; null takes `segment_hop`.
        cut: where segments are cut, in the ``frames`` that the backbone returns or in its ``input``.
        distance: of two vectors: cosine | euclidean | squared.
        reduction: the distances between all segments of two tracks to one, see `tonnetz.reductions`.
        transpositions: try the vectors of a query in so many keys, the likeliest ones; 12 tries all, 1 none. Null
            takes 12 where the vectors turn with the key (a backbone with `pitches`, no projection), else 1.
        query_seconds, reference_seconds: evaluate with so much from the middle of each query, each reference; null
            takes all.
        rounds: bootstrap rounds over works for the 95 % intervals of a test.
        compat: CoverHunter's definitions of the metrics.
        projection: how the map of a test is drawn: tsne | umap.
        plan: belongs to the data; named here because the task chooses it.
    """

    monitor: ClassVar[str] = "valid/map"
    mode: ClassVar[str] = "max"
    score: ClassVar[str] = "map"
    curves: ClassVar[tuple[str, ...]] = ("valid/map", "valid/hit1", "valid/mrr")

    def __init__(
        self,
        *,
        pooling: nn.Module,
        loss: nn.Module,
        dim: int | None = None,
        norm: bool = False,
        segment: float | None = None,
        segment_hop: float | None = None,
        train_hop: float | None = None,
        cut: str = "frames",
        distance: str = "cosine",
        reduction: str = "min",
        transpositions: int | None = None,
        query_seconds: float | None = None,
        reference_seconds: float | None = None,
        rounds: int = 1000,
        compat: bool = False,
        projection: str = "tsne",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_distance(distance)
        check_reduction(reduction)
        if cut not in CUTS:
            raise UserError(f"task.cut={cut}: known are {', '.join(CUTS)}")
        if getattr(loss, "kind", "") != "metric":
            raise UserError("task=csi needs a loss on vectors: loss=best_matches, supcon, coverhunter, clews, ...")
        self.pooling, self.criterion = pooling, loss
        size = cast(int, pooling.out_dim)
        layers = [nn.BatchNorm1d(size)] if norm else []
        self.projection = nn.Sequential(*layers, *([nn.Linear(size, dim, bias=False)] if dim else []))
        self.dim = dim or size
        self.segment, self.segment_hop, self.cut = segment, segment_hop, cut
        self.train_hop = train_hop or segment_hop
        lengths = {"segment": segment, "segment_hop": segment_hop, "train_hop": train_hop, "dim": dim}
        lengths |= {"query_seconds": query_seconds, "reference_seconds": reference_seconds, "rounds": rounds or None}
        for name, value in lengths.items():
            if value is not None and value <= 0:
                raise UserError(f"task.{name}={value}: must be above 0, or null")
        self.matching = Matching(distance, reduction, self._turns(transpositions, bool(dim)))
        self.seconds = query_seconds, reference_seconds
        self.rounds, self.compat, self.projection_method = rounds, compat, projection
        self.vectors = nn.ModuleDict()  # set of tracks -> what its evaluation gathers

    def _turns(self, transpositions: int | None, projected: bool) -> int:
        turning = bool(getattr(self.encoder.backbone, "pitches", 0)) and not projected
        if transpositions is None:
            return 12 if turning else 1
        if not 1 <= transpositions <= 12:
            raise UserError(f"task.transpositions={transpositions}: need 1 to 12, or null")
        if transpositions > 1 and not turning:
            raise UserError(
                f"task.transpositions={transpositions}: needs a backbone whose vectors turn with the key "
                "(model=key_equivariant) and no projection (task.dim=null); take task.transpositions=null"
            )
        return transpositions

    @property
    def rate(self) -> float:
        """Frames a second where segments are cut."""
        encoder = self.encoder
        return encoder.rate if self.cut == "frames" else encoder.frontend.sample_rate / encoder.frontend.hop

    def placed(self, plan: Any) -> Any:
        """Evaluation windows whose segments together lie on one grid."""
        if self.segment is None:
            return plan
        size, step = grid(self.rate, self.segment, self.segment_hop)
        frame = round(self.encoder.frontend.sample_rate / self.rate)  # samples
        return replace(plan, grid=(size * frame, step * frame))

    # --- vectors

    def tail(self) -> nn.Module:
        """The projection."""
        return self.projection

    def segments(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors z (B, S, D), the mask (B, S) of valid ones, their starts (B, S) in seconds of the recording."""
        seconds = self.train_hop if self.training else self.segment_hop
        encoder = self.encoder
        batch = encoder.augment.features(encoder.features(batch))
        x, lengths = batch["features"], batch["lengths"]
        if self.segment is None:
            h, mask = encoder.encode(x, lengths)  # (B, T', D), (B, T')
            z, valid = self.pooling(h, mask)[:, None], mask.new_ones(len(x), 1)
            place = torch.zeros_like(valid, dtype=torch.float32)
        elif self.cut == "frames":
            h, mask = encoder.encode(x, lengths)
            parts, valid, place = cut(h, mask.sum(1), self.rate, self.segment, seconds, tail=not self.training)
            inside = torch.arange(parts.shape[2], device=x.device) < mask.sum(1)[:, None, None]
            z = self.pooling(parts.flatten(0, 1), inside.expand(parts.shape[:3]).flatten(0, 1))
            z = z.unflatten(0, parts.shape[:2])  # (B, S, D)
        else:
            frames = x.movedim(-1, 1)  # (B, T, C, F)
            parts, valid, place = cut(frames, lengths, self.rate, self.segment, seconds, tail=not self.training)
            short = lengths.clamp(max=parts.shape[2]).repeat_interleave(parts.shape[1])
            h, mask = encoder.encode(parts.flatten(0, 1).movedim(1, -1), short)
            z = self.pooling(h, mask).unflatten(0, parts.shape[:2])
        z = self.projection(z.flatten(0, 1).float()).unflatten(0, z.shape[:2])
        tempo = batch.get("tempo", torch.ones_like(lengths))
        return z, valid, batch["start"][:, None].to(z.device) + place * tempo[:, None]

    def forward(self, batch: Batch) -> Tensor:
        """Vectors of all segments, (B, S, D)."""
        return self.segments(batch)[0]

    def embed(self, batch: Batch) -> Tensor:
        """Mean vector of each excerpt, (B, D)."""
        z, valid, _ = self.segments(batch)
        return (z * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)

    # --- training

    def loss(self, batch: Batch) -> Tensor:
        """The criterion on all segments of the batches of all processes."""
        z, valid, _ = self.segments(batch)
        loss = self.criterion(*(gathered(part) for part in (z.float(), batch["group"], batch["row"], valid)))
        for name, part in getattr(self.criterion, "last", {}).items():
            self.log(f"train/{name}", part, batch_size=len(z))
        return loss

    # --- evaluation

    def on_validation_start(self) -> None:
        """Empty what an earlier validation may have left."""
        self._empty(self.data.evaluated())

    def on_test_start(self) -> None:
        """Empty what an earlier test may have left."""
        self._empty(["test"])

    def _empty(self, names: list[str]) -> None:
        for name in names:
            if name not in self.vectors:
                self.vectors[name] = Vectors(self.dim).to(self.device)
            cast(Vectors, self.vectors[name]).reset()

    def _gather(self, name: str, batch: Batch) -> None:
        z, valid, start = self.segments(batch)
        tempo = batch.get("tempo", torch.ones(len(z), device=z.device))
        spread = (x[:, None].expand(valid.shape)[valid] for x in (batch["row"], batch["group"], tempo))
        row, group, tempo = spread
        cast(Vectors, self.vectors[name]).update(z[valid], row, group, start[valid], tempo)

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Collect the vectors of validation windows, of the split and of further sets."""
        name = self.data.evaluated()[dataloader_idx]
        if self._due(name):
            self._gather(name, batch)

    def test_step(self, batch: Batch, index: int) -> None:
        """Collect the vectors of test windows."""
        self._gather("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Score every set; the mean mAP of those that may stop a run is `valid/map`, whatever the others say."""
        stopping: list[float] = []
        logged: dict[str, float] = {}
        self.skipped = tuple(f"sets/{name}/" for name in self.data.evaluated() if not self._due(name))
        for name in filter(self._due, self.data.evaluated()):
            values = self._score(name, name)
            if values and self.data.stops(name):
                stopping.append(values["map"])
            stage = name if name == "valid" else f"sets/{name}"
            logged |= {f"{stage}/{key}": value for key, value in values.items()}
        if stopping:
            logged["valid/map"] = sum(stopping) / len(stopping)
        self.log_dict(logged, sync_dist=True)

    def _due(self, name: str) -> bool:
        return bool(self.data.due(name, self.current_epoch, self.current_epoch + 1 == self.trainer.max_epochs))

    def on_test_epoch_end(self) -> None:
        """Score the test set, with intervals from a bootstrap over works."""
        values = self._score("test", self.tested, rounds=self.rounds)
        self.log_dict({f"test/{key}": value for key, value in values.items()}, sync_dist=True)
        if "test" in self.outcome:
            self.outcome["test"] |= {"values": values, "per_class": {}}

    def check(self, data: Any) -> None:
        """Raise UserError now when nothing can be found in what is to validate."""
        for name in data.evaluated():
            if not _findable(data.split(name)["work"], data.roles(name)):
                split, remedy = f"data.sets.{name}", "name recordings with versions among them"
                if name == "valid":
                    split, remedy = "the validation split", "hold back whole works (data.valid_unseen, job.by=works)"
                raise UserError(f"{split}: no work has two recordings there, so there is nothing to find; {remedy}")

    def _score(self, name: str, split: str, rounds: int = 0) -> dict[str, float]:
        metric = cast(Vectors, self.vectors[name])
        found = metric.compute()
        metric.reset()
        if not len(found):
            return {}
        if name != "test" and not torch.isfinite(found.z).all():
            raise Diverged(f"the embeddings became NaN or infinite by step {self.global_step}; lower optimizer.lr")
        facts = {"rounds": rounds, "compat": self.compat, "seconds": self.excerpts(), **self.data.roles(split)}
        result = evaluate(found, self.matching, **facts)
        names = self.data.split(split).select("id", "work").with_row_index("row")
        names = names.with_columns(seen=pl.Series(self.data.seen(split)))
        self.outcome[name] = {"result": result, "names": names}
        return result.values

    def excerpts(self) -> tuple[float | None, ...]:
        """Seconds from the first to the last start of the vectors of a query and of a reference; None for all."""
        each = self.segment or self.data.plan.span  # what one vector stands for
        return tuple(s and max(0.0, s - each) for s in self.seconds)

    def baselines(self, data: Any) -> dict[str, dict[str, float]]:
        """What chance and methods without training reach on the same test set."""
        from tonnetz.csi_baselines import baselines

        return baselines(data)

    def figures(self, stage: str) -> dict[str, Any]:
        """Map of the tracks, distances within and between works, and decisions that there is no match."""
        found = self.outcome.get(stage)
        if not found:
            return {}
        result, title = found["result"], f"{stage}: mAP {found['result'].values['map']:.3f}"
        drawn = self._open_set(result, title) if stage == "test" else {}
        if result.distance is None:
            return drawn
        from tonnetz import figures

        within, between = result.within_between()
        if len(within) and len(between):
            drawn["distances"] = figures.distance_histogram(within, between, title)
        rows, square = result.square()
        if stage == "test" and len(rows) > 1:
            from tonnetz.projection import project

            names = found["names"].filter(found["names"]["row"].is_in(rows.tolist()))
            works = names["work"].fill_null("?").to_list()
            unseen = (~names["seen"]).to_list()
            points = project(square, self.projection_method)
            drawn["map"] = figures.works_map(points, works, unseen, title)
        return drawn

    def _open_set(self, result: Any, title: str) -> dict[str, Any]:
        from tonnetz.calibration import Calibration
        from tonnetz.metrics.ranking import nearest
        from tonnetz.rejection import picture

        kin, stranger = nearest(result.per_query)
        limit = Calibration(stranger[:0], np.sort(stranger)).threshold(ACCEPTED)
        drawn = picture(kin, stranger, limit, f"p = {ACCEPTED}", title)
        return {"open_set": drawn} if drawn else {}


def _findable(work: pl.Series, roles: dict[str, Tensor]) -> bool:
    """Whether some query has another recording of its work among the references, whatever pairs are left out."""
    code = torch.from_numpy(work.rank("dense").fill_null(0).to_numpy()).long()  # (N,) 0 is unknown
    queries, references = (roles.get(side, torch.arange(len(code))) for side in ("queries", "references"))
    versions = torch.bincount(code[references], minlength=len(code) + 1)  # of every work
    versions[0] = 0
    return bool((versions[code[queries]] > torch.isin(queries, references)).any())
