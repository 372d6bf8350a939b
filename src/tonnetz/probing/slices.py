"""Recordings cut into slices of one length, each of which is one vector, as MARBLE (Yuan et al. 2023) does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonnetz.errors import UserError


@dataclass(frozen=True)
class Slices:
    """How recordings are cut.

    Args:
        seconds: of a slice.
        keep: a rest at the end is a slice, too, when it is at least so much of one. A recording that is shorter than a
            slice is one, however short.
    """

    seconds: float
    keep: float = 0.8

    def __post_init__(self) -> None:
        numbers = all(isinstance(value, int | float) for value in (self.seconds, self.keep))
        if not numbers or self.seconds <= 0 or not 0 < self.keep <= 1:
            raise UserError(
                f"job.slice={self.seconds} job.slice_keep={self.keep}: need seconds, and a share above 0, up to 1"
            )

    def cut(self, frame: pl.DataFrame, sample_rate: int) -> tuple[pl.DataFrame, np.ndarray]:
        """The slices of a prepared table as rows, by their `first` and `samples`; and the row (S,) that each is of."""
        size = round(self.seconds * sample_rate)
        samples = frame["samples"].to_numpy()
        count = np.maximum(1, samples // size + (samples % size >= self.keep * size))  # (rows,)
        row = np.repeat(np.arange(frame.height), count)  # (S,)
        place = size * (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count))  # (S,) within the recording
        pieces = frame[row]
        rest = np.minimum(pieces["samples"].to_numpy() - place, size)
        first = pieces["first"].to_numpy() + place
        return pieces.with_columns(pl.Series("first", first), pl.Series("samples", rest)), row
