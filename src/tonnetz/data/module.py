"""The one LightningDataModule: corpora in, batches out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import torch

from tonnetz import tracks as track_table
from tonnetz.alignment import Alignment
from tonnetz.audio import read_prepared
from tonnetz.data.classes import CLASS, read_parts, split_classes, units
from tonnetz.data.episodes import EpisodePlan
from tonnetz.data.excerpts import Loader, Tracks, TrainExcerpts, Windows, peaks
from tonnetz.data.labels import name_labels
from tonnetz.data.plan import Chunks, Plan, Stream
from tonnetz.data.prepare import prepare
from tonnetz.data.segmentation import window_rows
from tonnetz.data.sets import EvaluationSet, check_names, read_roles
from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Pool
from tonnetz.fraction import thinned
from tonnetz.frontend import Frontend, fingerprint
from tonnetz.progress import progress_bar
from tonnetz.splits import fold_tracks, split_works
from tonnetz.store import DECIBELS, FeatureStore
from tonnetz.taxonomy import Taxonomy
from tonnetz.threads import one_thread
from tonnetz.tracks import DataSpec


class AudioData(L.LightningDataModule):
    """Any corpora, for any task.

    Args:
        corpora: what to learn from; several are concatenated.
        frontend: gives the sample rate, and the features when the plan's source is ``features``.
        plan: the task's sampling plan.
        cache: folder of prepared audio and features.
        seed: keys splits and excerpts.
        spec: class names of a restored checkpoint; labels outside them are refused.
        batch_size: excerpts a batch, per process.
        workers: threads that read ahead; results do not depend on their number.
        valid, test: fractions of the tracks for which the corpus names no split.
        split_seed: keys the split alone, so that runs with other seeds share it.
        split: how tracks without a split get one: by ``labels`` (stratified, groups together), by ``works``:
            fractions `valid`, `test` of the recordings of every work and `valid_unseen`, `test_unseen` of whole works,
            or by ``classes``: fractions `valid`, `test` of the classes, with all of their tracks.
        split_level: with classes: deal them out within the nodes of so high a level of the taxonomy; 1 at the root.
        held_out: with classes: split -> nodes of the taxonomy (families) all of whose classes go there.
        fixed: with classes: split -> classes that go there, or the file partition.json of job=partition.
        min_classes: with classes: so many go to every split at least.
        apart: with classes: column (group, artist) whose values no two splits may share.
        base: with classes: share of the recordings of training classes that the test gets, too.
        select: split whose score chooses checkpoints; ``test`` cheats, and needs `allow_test_selection`.
        windows: cut recordings into rows of so many `seconds` every `hop`, see `tonnetz.data.segmentation`.
        sets: further sets by name that are evaluated in every validation.
        lists: files that name queries, references and pairs to exclude in the test split.
        folds: deal the tracks of the training and validation splits out to so many folds.
        fold: the fold (from 0) that validates while the others train; ``all`` trains on both splits.
        fold_by: ``recordings``, of a work two at least in each fold that has any; whole ``works``; or ``table``: the
            corpus's column fold.
        fraction: part of the training tracks to keep, of every class its share, see `tonnetz.fraction`.
        taxonomy: name or file of an instrument tree; labels are mapped to its nodes. Null keeps them as they are.
        unlisted: ``fail`` or ``drop``, for tracks with a label that the taxonomy lacks.
        multilabel: null finds out.
        normalize: scale every recording to peak 1.
        on_error: ``fail`` or ``skip``, for files that cannot be used.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        frontend: Frontend,
        plan: Plan,
        cache: str | Path,
        seed: int = 0,
        spec: DataSpec | None = None,
        batch_size: int = 32,
        workers: int = 2,
        valid: float = 0.15,
        test: float = 0.15,
        split_seed: int = 0,
        fraction: float = 1.0,
        taxonomy: str | None = None,
        unlisted: str = "fail",
        multilabel: bool | None = None,
        normalize: bool = True,
        on_error: str = "fail",
        split: str = "labels",
        valid_unseen: float = 0.15,
        test_unseen: float = 0.15,
        sets: Mapping[str, EvaluationSet] | None = None,
        lists: Mapping[str, str | None] | None = None,
        folds: int | None = None,
        fold: int | str | None = None,
        fold_by: str = "recordings",
        split_level: int = 2,
        held_out: Mapping[str, Sequence[str]] | None = None,
        fixed: Mapping[str, Sequence[str]] | str | None = None,
        min_classes: int = 1,
        apart: str | None = None,
        base: float = 0.0,
        select: str = "valid",
        allow_test_selection: bool = False,
        windows: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if on_error not in ("fail", "skip"):
            raise UserError(f"data.on_error={on_error}: known are fail, skip")
        if unlisted not in ("fail", "drop"):
            raise UserError(f"data.unlisted={unlisted}: known are fail, drop")
        if batch_size < 1 or workers < 0 or not 0 < fraction <= 1:
            given = f"data.batch_size={batch_size} data.workers={workers} data.fraction={fraction}"
            raise UserError(f"{given}: need at least 1, at least 0, and more than 0 up to 1")
        if seed < 0 or split_seed < 0:
            raise UserError(f"seed={seed} data.split_seed={split_seed}: must not be negative")
        if not corpora:
            raise UserError("data.sources is empty: name at least one, e.g. data.sources=[philharmonia:/folder]")
        self.corpora, self.frontend, self.plan, self.cache = corpora, frontend, plan, Path(cache)
        self.seed, self.split_seed, self.batch_size, self.workers = seed, split_seed, batch_size, workers
        if split not in ("labels", "works", "classes"):
            raise UserError(f"data.split={split}: known are labels, works, classes")
        _check_select(select, allow_test_selection)
        self.fractions = {"valid": valid, "test": test}
        self.split_by, self.unseen = split, {"valid_unseen": valid_unseen, "test_unseen": test_unseen}
        self.split_level, self.held_out, self.fixed = split_level, held_out or None, read_parts(fixed)
        self.base, self.select, self.window_keys = base, select, windows
        self.min_classes, self.apart = min_classes, apart
        self.partition: dict[str, str] = {}  # class -> split, where the classes are dealt out
        self.notes: list[str] = []  # what to say about labels and splits
        self.lists = dict(lists or {})
        self.sets = dict(sets or {})
        check_names(self.sets)
        self.folds, self.fold, self.fold_by = folds, fold, fold_by
        self.aligner: str | None = None  # fingerprint of the model that must have made the plan's alignment
        self.fraction, self.normalize, self.on_error = fraction, normalize, on_error
        self.taxonomy, self.unlisted, self.multilabel = taxonomy, unlisted, multilabel
        self.given = spec
        self._table: pl.DataFrame | None = None
        self._everything: pl.DataFrame | None = None

    # Lightning would prepare on one process and set up on all; these do both, once, when they are first needed.

    @property
    def everything(self) -> pl.DataFrame:
        """All usable tracks with their split and `number`: one row a track."""
        if self._everything is None:
            self._everything = self._read()
        return self._everything

    @property
    def table(self) -> pl.DataFrame:
        """The tracks that are used: all, or `fraction` of the training tracks and all others."""
        if self._table is None:
            self._table = self._thin(self.everything)
        return self._table

    def _read(self) -> pl.DataFrame:
        rate = self.frontend.sample_rate
        frames = []
        for corpus in self.corpora:
            frame = prepare(corpus, self.cache, rate, self.on_error)
            frame = frame.with_columns(
                split=pl.coalesce(pl.lit(corpus.split, pl.String), "split"),
                given=pl.lit(corpus.split, pl.String),
                group=pl.concat_str("corpus", "group", separator="/"),  # equal names of two corpora are two groups
                work=pl.concat_str("corpus", "work", separator="/") if len(self.corpora) > 1 else "work",
            )
            frames.append(self._name_labels(frame, corpus))
        frame = track_table.concat(frames)
        foreign = set(frame["split"].drop_nulls()) - set(track_table.SPLITS)
        if foreign:
            raise UserError(f"split '{min(foreign)}': known are train, valid, test")
        if self.split_by == "works":
            frame = split_works(frame, **self.fractions, **self.unseen, seed=self.split_seed)
        elif self.split_by == "classes":
            frame = self._split_classes(frame)
        else:
            frame = track_table.split_tracks(frame, self.fractions["valid"], self.fractions["test"], self.split_seed)
        if self.fold is not None:
            frame = fold_tracks(frame, self.folds, self.fold, self.fold_by, self.split_seed)
        if self.split_by == "works" and not _versions(frame, self.plan.group):
            self.notes.append("no work has two recordings in training: what versions share cannot be learned from it")
        self.notes += _lonely(frame) if self.plan.group == "work" else []
        for name, chosen in self.sets.items():
            more = prepare(chosen.corpus, self.cache, rate, self.on_error)
            group = pl.concat_str("corpus", "group", separator="/")
            frame = track_table.concat([frame, more.with_columns(split=pl.lit(name), group=group)])
        by = ("path",) if self.split_by == "classes" else ("path", "group")  # one song may have stems of all classes
        watched = [name for name, chosen in self.sets.items() if chosen.role == "benchmark"]
        tested = frame.filter(split="test")["path"]  # a benchmark may watch them: it decides nothing
        again = pl.col("split").is_in(watched) & pl.col("path").is_in(tested.implode())
        track_table.check_disjoint(frame.filter(~again), by)  # of a further set, nothing may be in training either
        if self.window_keys:  # after the split, which so does not depend on them
            frame = window_rows(frame, rate, **self.window_keys)
        return frame.with_row_index("number")  # features are stored for all tracks, whatever is used of them

    def _name_labels(self, frame: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
        """Map the corpus's labels to nodes of the taxonomy. Raises UserError for one that is not in it."""
        if self.taxonomy is None:
            return frame
        tree = Taxonomy.load(self.taxonomy)
        try:
            named, lacking = name_labels(frame, tree, corpus.name, self.unlisted)
        except UserError as error:
            remedy = "data.unlisted=drop leaves its tracks out"
            raise UserError(f"{corpus.root}: {error} (data.taxonomy={self.taxonomy}; {remedy})") from None
        if lacking:
            labels = ", ".join(f"{name} {count}" for name, count in lacking.items())
            if not named.height:
                raise UserError(f"{corpus.root}: {self.taxonomy} lacks the labels of every track: {labels}")
            left = frame.height - named.height
            self.notes.append(f"{corpus.name}: {left} tracks left out; {self.taxonomy} lacks their labels: {labels}")
        return named

    def _split_classes(self, frame: pl.DataFrame) -> pl.DataFrame:
        tree = Taxonomy.load(self.taxonomy) if self.taxonomy else None
        sizes = {"train": 1 - sum(self.fractions.values()), **self.fractions}
        known = self.given.partition if self.given else None
        frame, self.partition, notes = split_classes(
            frame,
            tree,
            sizes,
            self.split_level,
            self.split_seed,
            self.held_out,
            self.fixed,
            known,
            self.base,
            self.min_classes,
            self.apart,
        )
        self.notes += notes
        return frame

    def _thin(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Keep `fraction` of the training tracks, drawn by the seed of the split."""
        return thinned(frame, self.fraction, self.split_seed)

    @property
    def spec(self) -> DataSpec:
        """What the task may know: from the checkpoint when restored, else from the training split."""
        return self.given or self.describe()

    def describe(self) -> DataSpec:
        """Describe the training split. Raises UserError when a class has no training track."""
        self._check_group()
        splits = ["train"] if self.fold is None else ["train", "valid"]  # the same classes and groups in every fold
        train = self.table.filter(pl.col("split").is_in(splits))
        if not train.height:
            raise UserError("no training tracks: the corpus gives all of them to other splits (data.valid, data.test)")
        classes = sorted(set(self.table["labels"].explode().drop_nulls()))
        taught = set(train["labels"].explode().drop_nulls())
        for name in classes:
            if name not in taught and self.plan.group is None:  # groups are what is learned otherwise
                place = self.table.filter(pl.col("labels").list.contains(name)).row(0, named=True)
                raise UserError(
                    f"class '{name}' has no training file (it is in {place['split']}: {place['path']}); "
                    "add some or leave it out"
                )
        matrix = track_table.label_matrix(train.with_columns(pl.col("labels").fill_null([])), classes)
        several = any(c.multilabel for c in self.corpora) or bool((self.table["labels"].list.len() != 1).any())
        return DataSpec(
            classes=tuple(classes),
            multilabel=several if self.multilabel is None else self.multilabel,
            positives=tuple(int(n) for n in (matrix == 1).sum(0)),
            known=tuple(int(n) for n in np.isfinite(matrix).sum(0)),
            families=_families(classes, self.taxonomy),
            groups=tuple(train[self.plan.group].drop_nulls().unique().sort()) if self.plan.group else (),
            corpora=self._marks(train["corpus"]) if self.plan.group else {},
            taxonomy=self.taxonomy,
            tracks={name: int((self.table["split"] == name).sum()) for name in track_table.SPLITS},
            partition=self.partition,
        )

    def _check_group(self) -> None:
        """Raise UserError when the table lacks the column that the plan groups by."""
        group = self.plan.group
        if group is not None and group not in self.table.columns:
            remedy = f"data.split=classes makes it (data.split={self.split_by})" if group == CLASS else "name another"
            raise UserError(f"task.plan.group={group}: the tracks have no such column; {remedy}")

    def _marks(self, corpora: pl.Series) -> dict[str, str]:
        return track_table.corpus_marks(self.everything.filter(pl.col("corpus").is_in(corpora.implode())))

    def seen(self, name: str) -> np.ndarray:
        """Whether training had the work of each track of a split (rows,), by its corpus and name."""
        frame = self.split(name)
        return track_table.seen_works(frame, self._marks(frame["corpus"]), self.spec)

    def split(self, name: str) -> pl.DataFrame:
        """The table of one split."""
        return self.table.filter(pl.col("split") == (self.select if name == "valid" else name))

    def holding(self, table: pl.DataFrame) -> AudioData:
        """The same prepared audio and features, with other rows of the table."""
        other = copy(self)
        other._table = table
        return other

    @property
    def validates(self) -> bool:
        """Whether anything is there to choose a checkpoint by."""
        return self.split("valid").height > 0 or any(chosen.role == "stop" for chosen in self.sets.values())

    def evaluated(self) -> list[str]:
        """Names of what a validation evaluates, in the order of the loaders."""
        return [*(["valid"] if self.split("valid").height else []), *self.sets]

    def due(self, name: str, epoch: int, last: bool = False) -> bool:
        """Whether a set is evaluated in this epoch: every so many, and in the last one."""
        return name not in self.sets or last or epoch % self.sets[name].every == 0

    def stops(self, name: str) -> bool:
        """Whether a set may choose checkpoints and stop a run."""
        return name not in self.sets or self.sets[name].role == "stop"

    def roles(self, name: str) -> dict[str, torch.Tensor]:
        """Which rows of a split or set are queries and references, and which pairs are left out."""
        lists = (self.sets[name].lists or {}) if name in self.sets else self.lists if name == "test" else {}
        return read_roles(lists, self.split(name))

    def dataset(self, name: str, train: bool = False, most: int | None = None) -> TrainExcerpts | Windows:
        """Excerpts (train), or covering windows, of one split, `most` of a track. Raises UserError when it is empty."""
        frame = self.split(name)
        if not frame.height:
            raise UserError(f"no tracks in the split '{name}'; see data.valid and data.test, or the corpus's own lists")
        pool = self.pool(name, train) if train else None  # an evaluation draws its episodes when all is embedded
        tracks = Tracks(frame, self._labels(frame), self.normalize, self._groups(frame, train), pool)
        store = self.features() if self.plan.source == "features" else None
        if train:
            together = self.batch_size * self._ranks()["world"]  # one length for the batches of all ranks
            return TrainExcerpts(tracks, self.plan, self.frontend, self.seed, together, store, self._alignment())
        return Windows(tracks, self.plan, self.frontend, store, most)

    def _alignment(self) -> Alignment | None:
        path = self.plan.alignment
        return Alignment.load(path, self.aligner, self.plan.floor) if path else None

    def _labels(self, frame: pl.DataFrame) -> np.ndarray:
        if self.plan.group is not None:  # groups are what is learned: other corpora may have other labels
            known = pl.element().filter(pl.element().is_in(list(self.spec.classes)))
            frame = frame.with_columns(pl.col("labels").list.eval(known))
        return track_table.label_matrix(frame, self.spec.classes)

    def _groups(self, frame: pl.DataFrame, train: bool) -> np.ndarray | None:
        """Codes (rows,) of the plan's group: of the spec in training, of this split otherwise; -1 for a null."""
        if self.plan.group is None:
            return None
        names = frame[self.plan.group]
        known = self.spec.groups if train else names.drop_nulls().unique().sort().to_list()
        codes = pl.DataFrame({"name": known, "code": range(len(known))}, schema={"name": pl.String, "code": pl.Int64})
        found = names.rename("name").to_frame().join(codes, on="name", how="left", maintain_order="left")
        return found["code"].fill_null(-1).to_numpy()

    def pool(self, name: str, train: bool = False) -> Pool | None:
        """The rows of a split by class, for drawing episodes; null where the plan asks for none."""
        if not isinstance(self.plan, EpisodePlan):
            return None
        self._check_group()
        frame = self.split(name)
        groups = self._groups(frame, train)
        assert groups is not None
        found = frame["class"].drop_nulls().unique().sort().to_list()
        names = list(self.spec.groups) if train else found
        related = Taxonomy.load(self.taxonomy).related(names) if self.taxonomy else None
        return Pool(groups, units(frame, self.plan.disjoint), names, related)

    def features(self) -> FeatureStore:
        """The stored features of all tracks, row by `number`; computed when they are not there."""
        frame = self.everything
        mark = fingerprint(self.frontend)
        channels, bins, hop = self.frontend.channels, self.frontend.bins, self.frontend.hop
        quantum = DECIBELS if self.frontend.decibels else None
        folder = self.cache / "features" / (mark if quantum is None else f"{mark}-{quantum}")
        store = FeatureStore(folder, mark, channels, bins, hop, self.frontend.floor, quantum)
        places = frame.select("audio", "header", "first", "samples", peaks(self.normalize)).rows()

        device = next((buffer.device for buffer in self.frontend.buffers()), torch.device("cpu"))

        def compute(i: int) -> np.ndarray:
            signal = torch.from_numpy(read_prepared(*places[i])).to(device)
            with torch.inference_mode():
                return self.frontend(signal[None, None])[0].cpu().numpy()  # (C, F, T)

        stamps = [f"|{stamp}" if stamp else "" for stamp in frame["stamp"]]
        keys = ["|".join(map(str, place)) + stamp for place, stamp in zip(places, stamps, strict=True)]
        threads = os.cpu_count() or 1 if device.type == "cpu" else 1
        with progress_bar("computing features") as advance, one_thread():  # recordings side by side scale, FFTs do not
            store.build(keys, compute, advance, threads)
        return store

    def _loader(self, name: str, sampler: Any, train: bool = False, most: int | None = None) -> Loader:
        dataset = self.dataset(name, train, most)
        return Loader(dataset, sampler(dataset), self.workers)

    def _ranks(self) -> dict[str, int]:
        trainer = self.trainer
        return {"rank": trainer.global_rank, "world": trainer.world_size} if trainer else {"rank": 0, "world": 1}

    def train_dataloader(self) -> Loader:
        """Shuffled excerpts of the training split."""

        def sampler(dataset: TrainExcerpts) -> Stream:
            return self.plan.stream(dataset.tracks, self.batch_size, self.seed, self._ranks())

        return self._loader("train", sampler, train=True)

    @property
    def steps(self) -> int:
        """Batches an epoch, on each process."""
        if self.plan.steps:
            return self.plan.steps
        rows = self.split("train").height
        if self.plan.group:
            rows = sum(
                max(n, self.plan.items)
                for n in self.split("train")[self.plan.group].drop_nulls().value_counts()["count"]
            )
        return max(1, rows // (self.batch_size * self._ranks()["world"]))

    def windows(self, name: str, alone: bool = False, most: int | None = None) -> Loader:
        """Windows that cover every track of a split, dealt out to the ranks, or all of them (`alone`).

        With `most`, so many of a track, evenly spread.
        """
        ranks = {} if alone else self._ranks()
        return self._loader(name, lambda dataset: Chunks(len(dataset), self.batch_size, **ranks), most=most)

    def windows_of(self, frame: pl.DataFrame) -> Loader:
        """Windows that cover some rows of the table, whatever their split and group; `row` counts them."""
        data = copy(self)  # the same prepared audio and features, another choice of tracks
        if self.plan.group not in (None, *frame.columns):  # a corpus of recordings has no classes
            frame = frame.with_columns(pl.lit(None, pl.String).alias(str(self.plan.group)))
        data.given, data._table = self.spec, frame.with_columns(split=pl.lit("test"))
        return data.windows("test", alone=True)

    def val_dataloader(self) -> Loader | list[Any]:
        """Windows of the validation split and of further sets, or nothing when there are none."""
        loaders: list[Any] = [self.windows(name, most=self.plan.valid_windows) for name in self.evaluated()]
        return loaders[0] if len(loaders) == 1 else loaders

    def test_dataloader(self) -> Loader:
        """Windows of the test split."""
        return self.windows("test")


def _versions(frame: pl.DataFrame, group: str | None) -> bool:
    """Whether some two training tracks have the same `group`; also when there is nothing to train on."""
    train = frame.filter(split="train")
    return not group or not train.height or bool(train[group].drop_nulls().is_duplicated().any())


def _lonely(frame: pl.DataFrame) -> list[str]:
    """What to say of splits to evaluate on whose recordings are all of one work."""
    found = [name for name in ("valid", "test") if frame.filter(split=name)["work"].drop_nulls().n_unique() == 1]
    return [
        f"the {name} split has one work alone, so every answer is right and its scores say nothing; "
        f"more works (data.{name}_unseen=0.3) make them mean something"
        for name in found
    ]


def _check_select(select: str, allowed: bool) -> None:
    if select not in ("valid", "test"):
        raise UserError(f"data.select={select}: known are valid, test")
    if select == "test" and not allowed:
        raise UserError(
            "data.select=test: a checkpoint chosen on the test split has no honest test score; take data.select=valid, "
            "or say data.allow_test_selection=true, which the results will tell"
        )


def _families(classes: Sequence[str], taxonomy: str | None) -> tuple[str, ...]:
    if taxonomy is None:
        return ("",) * len(classes)
    tree = Taxonomy.load(taxonomy)
    return tuple(tree.family(name) for name in classes)
