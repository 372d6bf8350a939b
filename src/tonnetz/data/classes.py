"""Splits by class: what is tested was never trained on. The classes are dealt out, and with them their tracks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tonnetz.errors import UserError, suggest
from tonnetz.partition import partition
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import SPLITS, recordings

EXCLUDED = ("non_instruments",)  # families that are no classes
CLASS = "class"  # the column that this module adds


def split_classes(
    frame: pl.DataFrame,
    tree: Taxonomy | None,
    sizes: Mapping[str, float],
    level: int = 2,
    seed: int = 0,
    held_out: Mapping[str, Sequence[str]] | None = None,
    fixed: Mapping[str, Sequence[str]] | None = None,
    known: Mapping[str, str] | None = None,
    base: float = 0.0,
    minimum: int = 1,
    apart: str | None = None,
) -> tuple[pl.DataFrame, dict[str, str], list[str]]:
    """Give every track the split of its class; returns the table with a column class, class -> split, and a report.

    A class is the one label of a track; tracks with none or several, and what is no instrument, get no split. A track
    whose corpus is put into a split (column given) stays there if its class belongs there or nowhere else, and is
    left out otherwise: a corpus added for training never teaches a class that is tested.

    Args:
        frame: track table with columns labels and given.
        tree: of the classes; null where there is none.
        sizes: fractions of the classes by split.
        level, held_out, fixed, seed, minimum: of `tonnetz.partition.partition`.
        known: class -> split of a checkpoint; classes that it does not know were never seen and go to test.
        base: share of the recordings of every training class that the test gets, for episodes of old and new classes.
        apart: column (group, artist) whose values no two splits share: of a song with stems in the test, other stems
            neither train nor validate, and of one in validation none train; null lets them.

    Raises UserError for a share that is none, and for a column that is not there.
    """
    if not 0 <= base < 1:
        raise UserError(f"data.base={base}: must be from 0 up, and below 1")
    frame = frame.with_columns(_class(frame, tree))
    open_rows = frame.filter(pl.col("given").is_null() & pl.col(CLASS).is_not_null())
    counts = dict(open_rows.group_by(CLASS).len().sort(CLASS).iter_rows())
    splits, report = _deal(counts, tree, sizes, level, seed, held_out, fixed, known, minimum)
    for name, given in _claims(frame, splits).items():
        splits.setdefault(name, given)
    own = pl.col(CLASS).replace_strict(splits, default=None, return_dtype=pl.String)
    stays = pl.col("given").is_null() | (pl.col("given") == own)
    frame = frame.with_columns(split=pl.when(stays).then(own))
    if base:
        frame = _lend(frame, base, seed)
    lost = frame.filter(pl.col("split").is_null())
    if lost.height:
        report = [*report, f"{lost.height} tracks left out: {_reasons(lost)}"]
    if apart is not None:
        frame, note = _apart(frame, apart)
        report = [*report, *note]
    return frame, splits, report


def _apart(frame: pl.DataFrame, column: str) -> tuple[pl.DataFrame, list[str]]:
    """Leave out what shares a value of the column with a split that counts more: test before valid before train."""
    if column not in frame.columns:
        raise UserError(f"data.apart={column}: the tracks have no such column{suggest(column, frame.columns)}")
    rank = pl.col("split").replace_strict({name: i for i, name in enumerate(SPLITS)}, default=None)
    highest = rank.max().over(column)
    stays = pl.col("split").is_null() | pl.col(column).is_null() | (rank == highest)
    lost = frame.filter(~stays)["split"].value_counts().sort("split").rows()
    told = ", ".join(f"{count} of {split}" for split, count in lost)
    frame = frame.with_columns(split=pl.when(stays).then("split"))
    return frame, [f"left out, for a later split has their {column}: {told}"] if lost else []


def _class(frame: pl.DataFrame, tree: Taxonomy | None) -> pl.Series:
    """The class of each track, null where it has none or several labels."""
    label = frame.select(pl.when(pl.col("labels").list.len() == 1).then(pl.col("labels").list.first()))[:, 0]
    if tree is not None:
        out = [name for name in label.drop_nulls().unique() if tree.family(name) in EXCLUDED]
        label = label.to_frame("x").select(pl.when(~pl.col("x").is_in(out)).then("x"))[:, 0]
    return label.alias(CLASS)


def _deal(
    counts: Mapping[str, int],
    tree: Taxonomy | None,
    sizes: Mapping[str, float],
    level: int,
    seed: int,
    held_out: Mapping[str, Sequence[str]] | None,
    fixed: Mapping[str, Sequence[str]] | None,
    known: Mapping[str, str] | None,
    minimum: int,
) -> tuple[dict[str, str], list[str]]:
    if known:
        return {**dict.fromkeys(counts, "test"), **known}, []
    if not counts:
        return {}, []
    found = partition(counts, tree, sizes, level=level, seed=seed, held_out=held_out, fixed=fixed, minimum=minimum)
    return dict(found.splits), list(found.report)


def _claims(frame: pl.DataFrame, splits: Mapping[str, str]) -> dict[str, str]:
    """Splits of classes that only tracks with a given split have; the split that is tested wins."""
    rows = frame.filter(
        pl.col("given").is_not_null() & pl.col(CLASS).is_not_null() & ~pl.col(CLASS).is_in(list(splits))
    )
    order = {name: i for i, name in enumerate(SPLITS)}
    found: dict[str, str] = {}
    for name, given in rows.select(CLASS, "given").unique().sort(CLASS, "given").iter_rows():
        found[name] = max(found.get(name, given), given, key=order.__getitem__)
    return found


def _lend(frame: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """Give some recordings of every training class to the test; one at least goes, and one stays."""
    unit = pl.Series("unit", units(frame, "track"))
    frame = frame.with_columns(unit)
    open_rows = frame.filter((pl.col("split") == "train") & pl.col("given").is_null())
    random = np.random.default_rng([seed, 4])
    lent: list[int] = []
    for (_,), rows in sorted(open_rows.group_by(CLASS), key=lambda item: str(item[0][0])):
        mine = random.permutation(rows["unit"].unique().sort().to_numpy())
        lent += mine[: min(max(1, int(share * len(mine))), len(mine) - 1)].tolist()
    away = pl.col("unit").is_in(lent) & (pl.col("split") == "train")
    return frame.with_columns(split=pl.when(away).then(pl.lit("test")).otherwise("split")).drop("unit")


def _reasons(lost: pl.DataFrame) -> str:
    named = lost[CLASS].is_not_null()
    parts = []
    if int(named.sum()):
        names = sorted(set(lost.filter(named)[CLASS]))
        parts.append(f"{int(named.sum())} of a corpus for one split whose class is in another ({', '.join(names)})")
    if int((~named).sum()):
        parts.append(f"{int((~named).sum())} without exactly one instrument as label")
    return "; ".join(parts)


def read_parts(fixed: Mapping[str, Sequence[str]] | str | None) -> Mapping[str, Sequence[str]] | None:
    """Split -> classes, as given or from a file of job=partition. Raises UserError for another file."""
    if not isinstance(fixed, str):
        return fixed or None
    try:
        parts = json.loads(Path(fixed).read_text(encoding="utf-8"))
        return {str(part): [str(name) for name in names] for part, names in parts.items()}
    except OSError:
        raise UserError(f"data.fixed={fixed}: no such file; job=partition writes partition.json") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"data.fixed={fixed}: is no partition of classes ({error}); job=partition writes one") from None


def units(frame: pl.DataFrame, disjoint: str) -> np.ndarray | None:
    """Code (rows,) of what may not be on both sides of an episode; null where that is the clip itself.

    A track is its group (song, player) or, without one, its file; an artist is named by the column of that name, and
    is the track where nobody is named.
    """
    if disjoint == "clip":
        return None
    names = frame["artist"].fill_null(recordings(frame)) if disjoint == "artist" else recordings(frame)
    return names.rank("dense").to_numpy().astype(np.int64)
