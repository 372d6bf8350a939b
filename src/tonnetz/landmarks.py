"""Copies of a recording, louder, trimmed or encoded anew: fingerprints of spectral landmarks (Wang 2003).

A landmark is a pair of peaks of the spectrogram: two frequencies and the time between them. Copies share many of them
at one shift in time; another performance of the same music hardly any, since nobody plays twice alike to 30 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import maximum_filter

RATE = 8000  # Hz
SIZE, HOP = 1024, 256  # samples of a window (7.8 Hz a bin), and between windows (32 ms)
AROUND = (41, 31)  # bins and frames in which a peak is the highest
RANGE = 60.0  # decibels below the loudest that are looked at
REACH, SPREAD = 63, 63  # frames and bins from a peak to its partners
PARTNERS = 4  # of a peak, the next ones
COMMON = 100  # a landmark that is there so often says nothing
LEAST = 20  # landmarks that a recording, and a copy, must have


@dataclass(frozen=True)
class Landmarks:
    """Of many recordings: code, recording and frame (L,), sorted by code; and how many each recording has (R,)."""

    code: np.ndarray
    owner: np.ndarray
    frame: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Landmarks:
        """From codes and frames of every recording."""
        count = np.array([len(code) for code, _ in parts], np.int64)
        code = np.concatenate([np.zeros(0, np.int32), *(code for code, _ in parts)])
        frame = np.concatenate([np.zeros(0, np.int32), *(frame for _, frame in parts)])
        order = np.argsort(code, kind="stable")
        return cls(code[order], np.repeat(np.arange(len(parts)), count)[order], frame[order], count)


def peaks(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames and bins (n,) of the local maxima of the spectrogram of a signal (N,) at `RATE`, in the order of time."""
    if len(signal) < SIZE:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    window = torch.hann_window(SIZE)
    power = torch.stft(torch.from_numpy(signal).float(), SIZE, HOP, window=window, center=False, return_complex=True)
    level = 20 * power.abs().clamp(min=1e-9).log10()  # (bins, frames) dB
    cells = level[2:].numpy()  # what is below 16 Hz is no music
    highest = maximum_filter(cells, AROUND, mode="nearest")
    frame, place = ((cells == highest) & (cells > cells.max() - RANGE)).T.nonzero()
    return frame, place


def landmarks(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and frames (L,) of the landmarks of a signal (N,) at `RATE`, whatever its gain."""
    frame, place = peaks(signal)
    codes, frames = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    taken = np.zeros(len(frame), np.int64)
    for step in range(1, 12 * PARTNERS):  # to the next peak, the one after it, and so on
        if step >= len(frame):
            break
        time, rise = frame[step:] - frame[:-step], place[step:] - place[:-step]
        # neighbours of like frequency are one steady tone, which is alike in all music
        good = (time > 1) & (time <= REACH) & (np.abs(rise) > 1) & (np.abs(rise) <= SPREAD)
        good &= taken[:-step] < PARTNERS
        taken[:-step] += good
        first = np.flatnonzero(good)
        codes.append(((place[first] * 128 + rise[first] + 64) * 64 + time[first]).astype(np.int32))
        frames.append(frame[first].astype(np.int32))
    return np.concatenate(codes), np.concatenate(frames)


def copies(a: Landmarks, b: Landmarks, share: float) -> list[tuple[int, int, float, float]]:
    """Recordings of a and of b that share at least `share` of the landmarks of the one that has fewer, at one shift.

    Returns a, b, the share, and the seconds of b at which a begins, the most alike first.
    """
    low, high = (np.searchsorted(b.code, a.code, side=side) for side in ("left", "right"))
    times = np.where(high - low > COMMON, 0, high - low)  # (L,)
    mine = np.repeat(np.arange(len(a.code)), times)
    other = np.repeat(low, times) + np.arange(len(mine)) - np.repeat(np.cumsum(times) - times, times)
    shift = b.frame[other].astype(np.int64) - a.frame[mine]
    cells, votes = np.unique(np.stack([a.owner[mine], b.owner[other], shift], 1), axis=0, return_counts=True)
    beside = (np.diff(cells, axis=0, append=cells[-1:]) == [0, 0, 1]).all(1)  # a shift between two frames has both
    both = votes + np.where(beside, np.roll(votes, -1), 0)
    fewer = np.minimum(a.count[cells[:, 0]], b.count[cells[:, 1]])
    part = both / np.maximum(fewer, 1)
    good = np.flatnonzero((both >= LEAST) & (part >= share))
    order = good[np.argsort(-part[good], kind="stable")]
    _, first = np.unique(cells[order, :2], axis=0, return_index=True)  # the best shift of each pair
    chosen = order[np.sort(first)]
    return [
        (int(i), int(j), float(p), float(s) * HOP / RATE)
        for (i, j, s), p in zip(cells[chosen], part[chosen], strict=True)
    ]
