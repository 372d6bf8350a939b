"""Windows as rows of a track table: places in prepared audio, no files of their own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tonnetz.ahead import ahead
from tonnetz.audio import read_prepared
from tonnetz.errors import UserError
from tonnetz.progress import progress_bar

BLOCK = 2**20  # samples read at once
SHORT = ("keep", "drop")
Place = tuple[str, int, int, int, float]  # file, bytes before its samples, first sample, samples, peak


def window_rows(
    frame: pl.DataFrame,
    sample_rate: int,
    seconds: float,
    hop: float,
    gate: float | None = -50.0,
    short: str = "keep",
    activation: bool = True,
) -> pl.DataFrame:
    """Return one row a window of a prepared track table: `first`, `samples`, `offset` and `duration` are the window's.

    Windows start at 0, `hop`, 2 `hop` ... and lie within the recording. Their id is ``ID@START`` (seconds into the
    recording); the column `track` holds the recording's id, or keeps what it held. What describes the time of a whole
    recording does not fit a window: `active` goes, `notes` become null. Nothing is drawn: same in, same out.

    Args:
        frame: a prepared track table.
        sample_rate: of the prepared audio, in Hz.
        seconds: length of a window.
        hop: seconds from one start to the next.
        gate: keep windows whose RMS is at most so many dB (negative) below that of the recording's loudest
            window; null keeps all. A recording of which nothing would stay keeps its loudest window.
        short: ``keep`` a recording that is shorter than a window as one, or ``drop`` it.
        activation: where a row has regions `active` ([start, end] in seconds of the file), keep the windows of which
            at least half lies in them, however loud.
    """
    _check(sample_rate, seconds, hop, gate, short)
    window, step = round(seconds * sample_rate), hop * sample_rate
    if short == "drop":
        frame = frame.filter(pl.col("samples") >= window)
    regions = frame["active"].to_list() if activation and "active" in frame.columns else [None] * frame.height
    places = frame.select("audio", "header", "first", "samples", "peak").rows()

    def choose(row: tuple[Place, Any]) -> np.ndarray:
        place, active = row
        active = None if active is None else np.reshape(active, (-1, 2)) * sample_rate
        return _choose(place, active, window, step, gate)

    found: list[np.ndarray] = []
    with progress_bar("cutting windows") as advance:
        for starts in ahead(choose, zip(places, regions, strict=True), os.cpu_count() or 1):
            found.append(starts)
            advance(len(found), len(places))
    return _moved(frame, found, window, sample_rate)


def _check(sample_rate: int, seconds: float, hop: float, gate: float | None, short: str) -> None:
    if not (seconds * sample_rate >= 1 and hop * sample_rate >= 1):
        raise UserError(f"windows of {seconds} s every {hop} s at {sample_rate} Hz: both must be a sample at least")
    if gate is not None and not gate <= 0:
        raise UserError(f"gate {gate} of windows: must be 0 dB at most, e.g. -50; null keeps all windows")
    if short not in SHORT:
        raise UserError(f"short={short} of windows: known are {', '.join(SHORT)}")


def _choose(place: Place, active: np.ndarray | None, window: int, step: float, gate: float | None) -> np.ndarray:
    """Starts (W,) in samples of the windows of a recording that are kept; `active` (R, 2) in samples of the file."""
    first, samples = place[2:4]
    starts = grid(samples, window, step)
    if len(starts) == 1 or (active is None and gate is None):
        return starts
    if active is not None:
        inside = starts[covered(first + starts, window, active) >= window / 2 - 1e-6]
        if len(inside):
            return inside
    power = energies(place, starts, window)  # (W,)
    if active is not None or gate is None or not power.any():
        return starts[[int(power.argmax())]]
    return starts[power >= power.max() * 10 ** (gate / 10)]


def grid(samples: int, window: int, step: float) -> np.ndarray:
    """Starts of windows 0, step, 2 step ... (rounded to samples) that lie within `samples`; 0 when none does."""
    room = max(samples - window, 0)
    starts = np.rint(np.arange(math.floor(room / step) + 2) * step).astype(np.int64)
    return starts[starts <= room]


def covered(starts: np.ndarray, window: int, regions: np.ndarray) -> np.ndarray:
    """How much of each window [start, start + window) lies in the regions (R, 2), which may overlap. (W,)."""
    if not len(regions):
        return np.zeros(len(starts))
    regions = regions[np.argsort(regions[:, 0], kind="stable")]
    ends = np.maximum.accumulate(regions[:, 1])  # of all regions up to this one
    begins = np.maximum(regions[:, 0], np.append(-np.inf, ends[:-1]))
    knots = np.stack([begins, np.maximum(begins, ends)], 1)  # (R, 2) apart from each other
    before = np.repeat(np.append(0, np.cumsum(knots[:, 1] - knots[:, 0])), 2)[1:-1]  # (2 R,) active time up to a knot
    upto, since = (np.interp(edge, knots.ravel(), before) for edge in (starts + window, starts))
    return upto - since


def energies(place: Place, starts: np.ndarray, window: int) -> np.ndarray:
    """Sum of squares of each window [start, start + window) of a recording, from cumulative sums. (W,)."""
    path, header, first, samples, peak = place
    edges = np.unique(np.concatenate([starts, starts + window]))  # (M,) sorted
    upto = np.zeros(len(edges))  # energy before each edge
    before = 0.0
    for begin in range(0, samples, BLOCK):
        audio = read_prepared(path, header, first + begin, min(BLOCK, samples - begin), peak)
        sums = before + np.append(0.0, np.cumsum(np.square(audio), dtype=np.float64))
        low, high = np.searchsorted(edges, [begin, begin + len(audio)], side="right")
        upto[low:high] = sums[edges[low:high] - begin]
        before = sums[-1]
    return upto[np.searchsorted(edges, starts + window)] - upto[np.searchsorted(edges, starts)]


def _moved(frame: pl.DataFrame, found: Sequence[np.ndarray], window: int, rate: int) -> pl.DataFrame:
    """The table with its rows repeated, one for each start, and moved there."""
    row = np.repeat(np.arange(frame.height), [len(starts) for starts in found])  # (W,)
    starts = np.concatenate([np.zeros(0, np.int64), *found])  # (W,)
    times, place = np.unique(starts, return_inverse=True)
    names = np.array([f"{time / rate:.6f}".rstrip("0").rstrip(".") for time in times], dtype=object)
    track = pl.coalesce("track", "id") if "track" in frame.columns else pl.col("id")
    frame = frame.with_columns(track=track).drop("active", strict=False)[row]
    if "notes" in frame.columns:
        frame = frame.with_columns(notes=pl.lit(None, frame.schema["notes"]))
    return frame.with_columns(
        id=pl.concat_str("id", pl.Series(names[place], dtype=pl.String), separator="@"),
        first=pl.col("first") + pl.Series(starts),
        offset=pl.col("first") / rate + pl.Series(starts) / rate,
        samples=pl.min_horizontal("samples", pl.lit(window)),
        duration=pl.min_horizontal("samples", pl.lit(window)) / rate,
    )
