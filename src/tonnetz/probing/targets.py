"""Targets of probes, from the labels of a track table or from any of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest
from tonnetz.metrics.key import KEYS, parse_key
from tonnetz.probing.goal import Goal
from tonnetz.tracks import label_matrix

Frames = Mapping[str, pl.DataFrame]  # split -> its tracks


def targets(
    frames: Frames,
    target: str | Sequence[str],
    kind: str | None = None,
    metric: str | None = None,
    bins: int | None = None,
    unseen: str = "fail",
) -> tuple[Goal, dict[str, Tensor]]:
    """The goal, and the target of every track by split: (N,), or (K, N) of labels and numbers.

    Args:
        frames: tracks by split.
        target: ``labels``, a column, or several columns of numbers.
        kind: multilabel, classes, key or number; null finds out: labels are multilabel when a track has another number
            than one, a column of fractions is number, any other classes.
        metric: that chooses; null takes the kind's first.
        bins: numbers become so many classes, of equal size in training.
        unseen: what becomes of classes without a training track: ``fail``, or ``drop`` leaves their tracks out.
    """
    if unseen not in ("fail", "drop"):
        raise UserError(f"job.unseen={unseen}: known are fail and drop")
    columns = [target] if isinstance(target, str) else list(target)
    for name in columns:
        known = next(iter(frames.values())).columns
        if name not in known:
            raise UserError(f"job.target={name}: the track table has no such column{suggest(name, known)}")
    kind = kind or ("classes" if bins is not None else _guess(frames, columns))
    scale: tuple[tuple[float, float], ...] = ()
    if bins is not None:
        if kind != "classes":
            raise UserError(f"job.kind={kind}: job.bins makes classes of numbers; leave one of them out")
        names, values = _binned(frames, columns, bins)
    elif kind == "multilabel":
        names, values = _multilabel(frames, columns)
    elif kind == "number":
        names = tuple(columns)
        values, scale = _numbers(frames, columns)
    else:
        names, values = _classes(frames, columns, kind, unseen)
    return Goal(kind, names, metric or "", scale), values


def _guess(frames: Frames, columns: list[str]) -> str:
    if columns == ["labels"]:
        several = any(bool((f["labels"].drop_nulls().list.len() != 1).any()) for f in frames.values())
        judged = any(bool((f["unknown"].list.len() > 0).any()) for f in frames.values())
        return "multilabel" if several or judged else "classes"
    found = [_numeric(frame[name]) for frame in frames.values() for name in columns]
    if len(columns) == 1 and any(values is None for values in found):
        return "classes"
    fractions = any(values.dtype.is_float() for values in found if values is not None)
    return "number" if len(columns) > 1 or fractions else "classes"


def _numeric(values: pl.Series) -> pl.Series | None:
    """A column as numbers, whole ones as integers, of a list that has no types too; None for words."""
    if values.dtype != pl.String:
        return values if values.dtype.is_numeric() or values.dtype == pl.Null else None
    for kind in (pl.Int64, pl.Float64):
        cast = values.cast(kind, strict=False)
        if cast.null_count() == values.null_count():
            return cast
    return None


def _multilabel(frames: Frames, columns: list[str]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    if columns != ["labels"]:
        raise UserError(
            f"job.target={','.join(columns)}: only labels can be several; set job.kind to classes or number"
        )
    names = sorted({name for frame in frames.values() for name in frame["labels"].explode().drop_nulls()})
    return tuple(names), {split: torch.from_numpy(label_matrix(frame, names).T) for split, frame in frames.items()}


def _numbers(frames: Frames, columns: list[str]) -> tuple[dict[str, Tensor], tuple[tuple[float, float], ...]]:
    """Numbers (K, N), scaled by mean and deviation of the training tracks, and those of each column."""
    found = {split: _columns(frame, columns) for split, frame in frames.items()}
    mean, std = np.nanmean(found["train"], 1, keepdims=True), np.nanstd(found["train"], 1, keepdims=True)
    if not (std > 0).all():
        raise UserError(f"job.target={columns[int((std[:, 0] > 0).argmin())]}: is the same for all training tracks")
    scaled = {split: torch.from_numpy((value - mean) / std).float() for split, value in found.items()}
    return scaled, tuple(zip(mean[:, 0].tolist(), std[:, 0].tolist(), strict=True))


def _columns(frame: pl.DataFrame, columns: list[str]) -> np.ndarray:
    """Columns of numbers (K, N), NaN where unknown. Raises UserError for words."""
    found = []
    for name in columns:
        values = _numeric(frame[name])
        if values is None:
            raise UserError(f"job.target={name}: holds {frame[name].dtype}, no numbers; set job.kind=classes")
        found.append(values.cast(pl.Float64).to_numpy())
    return np.stack(found)


def _binned(frames: Frames, columns: list[str], bins: int) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Classes (N,) of a number, cut where training falls into `bins` parts of equal size; -1 where unknown."""
    if len(columns) != 1 or columns == ["labels"] or bins < 2:
        raise UserError(f"job.bins={bins}: needs one column of numbers as job.target, and 2 or more")
    found = {split: _columns(frame, columns)[0] for split, frame in frames.items()}
    edges = np.nanquantile(found["train"], np.arange(1, bins) / bins)
    ends = ["", *(f"{edge:.4g}" for edge in edges), ""]
    names = tuple(f"{low}..{high}" for low, high in pairwise(ends))
    number = {split: np.where(np.isnan(x), -1, np.searchsorted(edges, x, side="right")) for split, x in found.items()}
    if len(set(number["train"][number["train"] >= 0])) < bins:
        raise UserError(f"job.bins={bins}: {columns[0]} has too few different values; take fewer")
    return names, {split: torch.from_numpy(value).long() for split, value in number.items()}


def _classes(frames: Frames, columns: list[str], kind: str, unseen: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Class numbers (N,), -1 where a track has none. Raises UserError for a class without a training track."""
    (column,) = columns
    texts = {split: _texts(frame, column) for split, frame in frames.items()}
    if kind == "key":
        numbers = {name: parse_key(name) for found in texts.values() for name in found if name is not None}
        names: tuple[str, ...] = KEYS
    else:
        names = tuple(sorted({name for found in texts.values() for name in found if name is not None}, key=_natural))
        numbers = {name: i for i, name in enumerate(names)}
        taught = set(texts["train"])
        if unseen == "drop":
            names = _without_strangers(column, names, texts)
            numbers = {name: i for i, name in enumerate(names)}
        lost = next((name for name in names if name not in taught), None)
        if lost is not None or len(names) < 2:
            reason = "has no training track" if lost is not None else "is the only class"
            raise UserError(
                f"job.target={column}: class '{lost or ''.join(names)}' {reason}; choose another target or "
                "split, or leave such tracks out with job.unseen=drop"
            )
    return names, {
        split: torch.tensor([-1 if n is None else numbers.get(n, -1) for n in found]) for split, found in texts.items()
    }


def _without_strangers(column: str, names: tuple[str, ...], texts: Mapping[str, list[str | None]]) -> tuple[str, ...]:
    """The classes that training has; says how many tracks of the others are left out."""
    taught = set(texts["train"])
    lost = [name for name in names if name not in taught]
    for split in ("valid", "test"):
        count = sum(name in lost for name in texts[split])
        if count:
            print(
                f"job.unseen=drop: {count} of {len(texts[split])} {split} tracks left out, {column}: {', '.join(lost)}"
            )
    return tuple(name for name in names if name in taught)


def _texts(frame: pl.DataFrame, column: str) -> list[str | None]:
    if column == "labels":
        lists = frame["labels"].to_list()
        if any(found is not None and len(found) > 1 for found in lists):
            raise UserError("job.target=labels: a track has several labels; set job.kind=multilabel")
        return [found[0] if found else None for found in lists]
    return [None if value is None else str(value) for value in frame[column].to_list()]


def _natural(name: str) -> tuple[float, str]:
    """Numbers in their order, before words."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def constant(goal: Goal, train: Tensor, tracks: int) -> Tensor:
    """Scores (K, tracks) of the predictor that always says what pays most on the training tracks."""
    if goal.kind in ("classes", "key"):
        counts = train[train >= 0].bincount(minlength=len(goal.names)).double()
        if goal.monitor.startswith("key_score"):
            from tonnetz.metrics.key import key_table

            counts = (counts > 0).double() if goal.monitor.endswith("macro") else counts
            counts = counts @ key_table(goal.monitor.endswith("symmetric"))
        value = counts
    else:
        value = train.double().nanmean(-1)
    return value.float()[:, None].expand(-1, tracks).contiguous()


def fraction_of(target: Tensor, fraction: float, seed: int) -> Tensor:
    """Numbers of the training tracks to keep: known ones, classes in their proportions, at least one of each."""
    if not 0 < fraction <= 1:
        raise UserError(f"job.fractions: {fraction} must be above 0, up to 1")
    known = (target >= 0 if target.ndim == 1 else ~target.isnan().all(0)).nonzero()[:, 0]
    if fraction == 1:
        return known
    order = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
    code = target[order] if target.ndim == 1 else torch.zeros(len(order), dtype=torch.long)
    place = torch.zeros(len(order), dtype=torch.double)
    for number in code.unique():
        members = (code == number).nonzero()[:, 0]
        place[members] = torch.arange(len(members), dtype=torch.double) / len(members)
    return order[place < max(fraction, 1e-12)].sort().values
