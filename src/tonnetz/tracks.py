"""Track tables: one row a track or excerpt, columns in memory, JSON Lines on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonnetz.atomic import replacing
from tonnetz.errors import UserError, suggest

SPLITS = ("train", "valid", "test")
KEY, DRAWN = "\0key", "\0split"  # columns for the time of a computation

# Fixed columns; a corpus may add more (pitch, dynamic, key_shift, ...), which are carried along untouched.
SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "path": pl.String,
    "duration": pl.Float64,  # seconds; of the excerpt when `offset` is set
    "offset": pl.Float64,  # seconds into the file
    "split": pl.String,  # train | valid | test | null
    "labels": pl.List(pl.String),  # positive classes
    "unknown": pl.List(pl.String),  # classes nobody judged for this track: neither positive nor negative
    "group": pl.String,  # tracks of a group never straddle a split (song, recording, player)
    "work": pl.String,
    "artist": pl.String,
    "fold": pl.Int64,
    "notes": pl.List(pl.List(pl.Float64)),  # [onset s, offset s, MIDI pitch, velocity]
}


def table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Build a track table from rows; absent fixed columns become null, extra columns are kept."""
    frame = pl.DataFrame(list(rows), infer_schema_length=None, schema_overrides=SCHEMA)
    return _complete(frame)


def _complete(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the fixed columns that a frame lacks and put them first."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if name not in frame.columns]
    frame = frame.with_columns(missing).with_columns(pl.col("offset").fill_null(0.0))
    extra = [name for name in frame.columns if name not in SCHEMA]
    return frame.select([*SCHEMA, *extra])


def read_table(path: str | Path) -> pl.DataFrame:
    """Read a ``tracks.jsonl`` file. Raises UserError when it is missing or not JSON Lines."""
    try:
        frame = pl.read_ndjson(path, infer_schema_length=None)
        return _complete(frame.cast({name: SCHEMA[name] for name in frame.columns if name in SCHEMA}))
    except FileNotFoundError:
        raise UserError(f"{path}: no such track table; run job=prepare first") from None
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a JSON Lines track table ({str(error).splitlines()[0]})") from None


def write_table(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a track table as JSON Lines, atomically."""
    with replacing(path) as part:
        frame.write_ndjson(part)


def concat(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Stack tables; columns that only some have become null elsewhere. Ids are made unique by the caller."""
    return _complete(pl.concat(frames, how="diagonal_relaxed"))


def fingerprint(frame: pl.DataFrame) -> str:
    """Return 16 hex digits that identify what is learned from: ids, splits, labels, positions and durations."""
    columns = frame.select("id", "split", "labels", "unknown", "offset", "duration").sort("id")
    return hashlib.blake2b(columns.write_ndjson().encode(), digest_size=8).hexdigest()


def recordings(frame: pl.DataFrame) -> pl.Series:
    """What each row is of: its group (song, player) or, without one, its file."""
    return frame.select(pl.coalesce("group", "path"))[:, 0]


def corpus_marks(frame: pl.DataFrame) -> dict[str, str]:
    """16 hex digits for each corpus (column corpus) of a table: its ids and durations, wherever its folder lies."""
    columns = frame.select("corpus", "id", pl.col("duration").round(2)).unique().sort("corpus", "id", "duration")
    lines = columns.group_by("corpus", maintain_order=True).agg(pl.struct("id", "duration"))
    return {
        key: hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest() for key, rows in lines.iter_rows()
    }


def check_disjoint(frame: pl.DataFrame, columns: Sequence[str] = ("path", "group")) -> None:
    """Raise UserError when a file, or a group of files, is in two splits."""
    remedies = {"path": "give each file one split", "group": "split by group"}
    for column, remedy in ((name, remedies[name]) for name in columns):
        spread = (
            frame.filter(pl.col("split").is_not_null() & pl.col(column).is_not_null())
            .group_by(column)
            .agg(pl.col("split").unique().sort())
            .filter(pl.col("split").list.len() > 1)
            .sort(column)
        )
        if spread.height:
            name, splits = spread.row(0)
            raise UserError(
                f"{name}: this {column} is in the splits {' and '.join(splits)} ({spread.height} in all); {remedy}"
            )


@dataclass(frozen=True)
class DataSpec:
    """All that a task may know about data; taken from the training split and stored in the checkpoint."""

    classes: tuple[str, ...] = ()
    multilabel: bool = False
    positives: tuple[int, ...] = ()  # known-positive training tracks per class
    known: tuple[int, ...] = ()  # training tracks with a known label per class
    families: tuple[str, ...] = ()  # top-level taxonomy node of each class, "" when it has none
    taxonomy: str | None = None
    groups: tuple[str, ...] = ()  # of the training tracks, in the order of their codes: works, ...
    corpora: dict[str, str] = field(default_factory=dict)  # of the training tracks: key -> mark, see `corpus_marks`
    tracks: dict[str, int] = field(default_factory=dict)  # tracks per split
    partition: dict[str, str] = field(default_factory=dict)  # class -> split, where the classes are dealt out

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers: fit for a weights-only checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """Rebuild a spec from ``to_dict``."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


def seen_works(frame: pl.DataFrame, marks: Mapping[str, str], spec: DataSpec) -> np.ndarray:
    """Whether training had the work of each row (rows,): a work of that name, of the same corpus.

    The corpus is the same when its key is, or what it holds (`marks`, of the corpora of the table). A checkpoint that
    knows no corpora is judged by names alone.
    """
    if not spec.corpora:
        return frame["work"].is_in(list(spec.groups)).fill_null(False).to_numpy()
    moved = {mark: key for key, mark in spec.corpora.items()}
    stored = {key: key if key in spec.corpora else moved.get(mark) for key, mark in marks.items()}
    plain = pl.col("work").str.strip_prefix(pl.concat_str("corpus", pl.lit("/")))  # of several corpora, it has both
    there = pl.col("corpus").replace_strict(stored, default=None, return_dtype=pl.String)
    known = list(spec.groups)
    either = plain.is_in(known) | pl.concat_str(there, pl.lit("/"), plain).is_in(known)
    return frame.select((there.is_not_null() & either).fill_null(False))[:, 0].to_numpy()


def label_matrix(frame: pl.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return (tracks, classes) float32: 1 positive, 0 negative, NaN unknown; NaN rows where labels are null.

    Raises UserError for a label outside `classes`, naming the file and the nearest class.
    """
    index = pl.DataFrame(
        {"name": list(classes), "column": range(len(classes))}, schema={"name": pl.String, "column": pl.Int64}
    )
    matrix = np.zeros((frame.height, len(classes)), np.float32)
    matrix[frame["labels"].is_null().to_numpy()] = np.nan
    for column, value in (("unknown", np.nan), ("labels", 1.0)):
        cells = frame.select("path", column).with_row_index("row").explode(column).drop_nulls(column)
        cells = cells.join(index, left_on=column, right_on="name", how="left")
        foreign = cells.filter(pl.col("column").is_null())
        if column == "labels" and foreign.height:
            path, label = foreign.select("path", column).row(0)
            raise UserError(f"{path}: label '{label}' is not a class of this model{suggest(label, classes)}")
        cells = cells.drop_nulls("column")
        matrix[cells["row"].to_numpy(), cells["column"].to_numpy()] = value
    return matrix


def split_tracks(frame: pl.DataFrame, valid: float, test: float, seed: int) -> pl.DataFrame:
    """Give every track without a split one: stratified by label, whole groups together.

    Greedy iterative stratification (Sechidis et al. 2011): the rarest label first, each group goes to the split that
    lacks most of that label. Tracks that have a split keep it, and lend it to the rest of their group.
    """
    if not 0 <= valid < 1 or not 0 <= test < 1 or valid + test >= 1:
        raise UserError(f"data.valid={valid} data.test={test}: fractions must be in [0, 1) and leave some for training")
    key = recordings(frame).alias(KEY)  # names that no list has for a column
    frame = frame.with_columns(key).with_columns(pl.col("split").fill_null(pl.col("split").max().over(KEY)))
    todo = frame.filter(pl.col("split").is_null())
    if todo.height:
        labels = pl.col("labels").list.explode(keep_nulls=False, empty_as_null=False)
        groups = todo.group_by(KEY).agg(labels, pl.len().alias("size")).sort(KEY)
        fractions = _open_fractions(frame, valid, test)
        chosen = _stratify(groups["labels"].to_list(), groups["size"].to_numpy(), fractions, seed)
        split = groups.select(KEY, pl.Series(DRAWN, [SPLITS[i] for i in chosen], dtype=pl.String))
        frame = frame.join(split, on=KEY, how="left", maintain_order="left")
        frame = frame.with_columns(pl.coalesce("split", DRAWN).alias("split")).drop(DRAWN)
    return frame.drop(KEY)


def _open_fractions(frame: pl.DataFrame, valid: float, test: float) -> np.ndarray:
    """Fractions for the tracks that have no split: a split that the corpus itself gives is not filled up."""
    given = set(frame["split"].drop_nulls())
    fractions = np.array([1 - valid - test, valid, test])
    official = np.array([name in given for name in ("valid", "test")])
    fractions[1:][official] = 0.0
    fractions[0] = 1 - fractions[1:].sum()
    return fractions


def _stratify(labels: list[list[str]], sizes: np.ndarray, fractions: np.ndarray, seed: int) -> np.ndarray:
    """Return the split index of each group. `sizes` counts its tracks."""
    names, codes = np.unique([name for group in labels for name in group], return_inverse=True)
    counts = np.zeros((len(labels), len(names) + 1))  # the last column stands for groups without labels
    owner = np.repeat(np.arange(len(labels)), [len(group) for group in labels])
    np.add.at(counts, (owner, codes), 1)
    counts[counts.sum(1) == 0, -1] = sizes[counts.sum(1) == 0]
    wanted = fractions[:, None] * counts.sum(0)  # (splits, labels) still lacking
    room = fractions * sizes.sum()
    order = np.random.default_rng(seed).permutation(len(labels))
    result = np.full(len(labels), -1)
    for column in np.argsort(counts.sum(0), kind="stable"):
        members = order[(counts[order, column] > 0) & (result[order] < 0)]
        for group in members[np.argsort(-sizes[members], kind="stable")]:  # large groups while there is room
            choice = max(range(len(fractions)), key=lambda s: (fractions[s] > 0, wanted[s, column], room[s]))
            result[group] = choice
            wanted[choice] -= counts[group]
            room[choice] -= sizes[group]
    return result
