"""Recordings as sets of windows: the vectors of all windows in one array, gathered into padded blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CELLS = 2**24  # numbers held at once


def mean_by_row(z: Tensor, row: Tensor, rows: int) -> Tensor:
    """Mean vector (rows, D) of the windows z (M, D) of each row (M,); zeros where there is none."""
    total = z.new_zeros(rows, z.shape[1]).index_add(0, row, z)
    return total / torch.bincount(row, minlength=rows).clamp(min=1)[:, None]


@dataclass(frozen=True)
class Windows:
    """The windows of recordings, as they are read at one tempo, sorted by recording and time."""

    vectors: Tensor  # (M, D) of unit length
    norms: Tensor  # (M,) lengths before
    start: Tensor  # (M,) seconds
    length: Tensor  # (M,) seconds
    row: np.ndarray  # (M,) recording
    first: np.ndarray  # (R,)
    count: np.ndarray  # (R,)

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor], row: np.ndarray, recordings: int, tempo: float) -> Windows:
        """Those of the windows (M,) with recordings `row` (M,) that were read at a tempo."""
        mine = (arrays["tempo"] - tempo).abs() < 1e-4
        if not mine.all():
            arrays, row = {name: value[mine] for name, value in arrays.items()}, row[mine.numpy()]
        vectors, norms, start, length = (arrays[name] for name in ("vectors", "norms", "start", "length"))
        return cls(vectors, norms, start, length, row, *extents(row, recordings))


def own_tempo(tempi: Sequence[float]) -> float:
    """Of several tempi the one that is nearest to a recording's own: references are read at it."""
    return min(tempi, key=lambda tempo: abs(tempo - 1))


def extents(row: np.ndarray, tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """First window and number of windows of every track, (N,) each, from the sorted track numbers (M,)."""
    count = np.bincount(row, minlength=tracks)
    return np.cumsum(count) - count, count


def counter(code: np.ndarray, groups: int) -> np.ndarray:
    """Place of each entry in its group, from sorted codes."""
    first, _ = extents(code, groups)
    return np.arange(len(code)) - first[code]


def gather(vectors: Tensor, first: np.ndarray, count: np.ndarray) -> tuple[Tensor, Tensor]:
    """The runs of windows `first`, `count` (R,) of vectors (M, D) as (R, S, D), and which are real (R, S)."""
    place = np.arange(max(int(count.max(initial=1)), 1))  # (S,)
    valid = place < count[:, None]  # (R, S)
    index = np.where(valid, first[:, None] + place, 0)
    return vectors[torch.from_numpy(index)], torch.from_numpy(valid)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Blocks (R, S, ...) of different S as one (P, R, S, ...), filled up with zeros."""
    most = max(part.shape[1] for part in parts)
    wide = [torch.cat([p, p.new_zeros(len(p), most - p.shape[1], *p.shape[2:])], 1) for p in parts]
    return torch.stack(wide)


def crops(
    first: np.ndarray, count: np.ndarray, windows: int | None, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A run of at most `windows` neighbours, at a random place, of each run; None keeps them whole."""
    if windows is None:
        return first, count
    room = np.maximum(count - windows, 0)
    return first + (random.random(len(first)) * (room + 1)).astype(np.int64), np.minimum(count, windows)


def part_of(count: np.ndarray, begin: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First window and number of windows (N,) of a part of runs of `count` (N,): where it begins and how much it is,
    as shares of the run. One window at least, where there is any.
    """
    size = np.clip(np.round(share * count), 1, count).astype(np.int64)
    return np.minimum(np.round(begin * count), count - size).astype(np.int64), size


def blocks(cells: np.ndarray, limit: int = CELLS) -> Iterator[slice]:
    """Cut items of `cells` (R,) each, the largest last, into slices that hold at most `limit` when padded."""
    begin = 0
    while begin < len(cells):
        most = cells[begin : begin + max(1, limit // max(int(cells[begin]), 1))]
        step = max(1, int(np.searchsorted(most * np.arange(1, len(most) + 1), limit, side="right")))
        yield slice(begin, begin + step)
        begin += step
