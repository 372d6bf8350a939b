"""Sampling plans: which excerpts make a batch. Every draw is a function of (seed, position), of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonnetz.errors import UserError

BALANCES = ("none", "max", "mean", "median")


@dataclass(frozen=True)
class Plan:
    """What a task asks of the data.

    Args:
        seconds: length of an excerpt.
        hop: distance of evaluation windows in seconds; null lays them side by side.
        steps: batches an epoch; null makes an epoch one pass over the training tracks.
        source: ``audio``, or ``features`` to read stored front-end output.
        pad: fill a recording shorter than an excerpt with ``zero`` or ``repeat``.
        balance: draw tracks in proportion to the ``max``, ``mean`` or ``median`` over their labels of 1 / count.
    """

    seconds: float = 3.0
    hop: float | None = None
    steps: int | None = None
    source: str = "audio"
    pad: str = "zero"
    balance: str = "none"

    def __post_init__(self) -> None:
        if self.seconds <= 0 or (self.hop is not None and self.hop <= 0):
            raise UserError(f"task.plan.seconds={self.seconds} hop={self.hop}: must be positive")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"task.plan.steps={self.steps}: must be at least 1, or null for one pass an epoch")
        for key, value, known in (
            ("source", self.source, ("audio", "features")),
            ("pad", self.pad, ("zero", "repeat")),
            ("balance", self.balance, BALANCES),
        ):
            if value not in known:
                raise UserError(f"task.plan.{key}={value}: known are {', '.join(known)}")


class Stream:
    """Endless shuffled passes over the training rows, cut into batches: a batch sampler for any number of ranks.

    Position p of the stream lies in pass p // rows; each pass is one permutation (or one weighted draw) keyed by
    (seed, pass). Rank r of w takes every w-th batch, so w ranks with batches of B see what one process with batches
    of w B sees. Batches hold pairs (position, row).
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        steps: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        weights: np.ndarray | None = None,
    ) -> None:
        self.rows, self.batch_size, self.seed, self.rank, self.world = rows, batch_size, seed, rank, world
        self.steps = steps or max(1, rows // (batch_size * world))
        self.cumulative = None if weights is None else np.cumsum(weights) / np.sum(weights)
        self.epoch = 0
        self.skip = 0  # batches of this epoch already seen before an interruption

    @property
    def sampler(self) -> Stream:
        """Itself: Lightning announces epochs to the `sampler` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields (Lightning calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        skip, self.skip = self.skip, 0
        order, current = np.zeros(0, np.int64), -1
        for step in range(skip, self.steps):
            first = ((self.epoch * self.steps + step) * self.world + self.rank) * self.batch_size
            batch = []
            for position in range(first, first + self.batch_size):
                if position // self.rows != current:
                    current = position // self.rows
                    order = self._pass(current)
                batch.append((position, int(order[position % self.rows])))
            yield batch

    def _pass(self, number: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, number])
        if self.cumulative is None:
            return random.permutation(self.rows)
        return np.searchsorted(self.cumulative, random.random(self.rows), side="right")


class Chunks:
    """Items in order for evaluation, dealt out to ranks in turn; nothing is dropped.

    Every rank must take part, so with fewer items than ranks some see one twice; `Scores` counts it once.
    """

    def __init__(self, items: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.batch_size = batch_size
        self.mine = range(rank if rank < items else rank % max(items, 1), items, world)

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def __iter__(self) -> Iterator[Sequence[int]]:
        for start in range(0, len(self.mine), self.batch_size):
            yield self.mine[start : start + self.batch_size]


def chances(seed: int, positions: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) from (seed, position) alone: SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = positions.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


def balance_weights(labels: np.ndarray, how: str) -> np.ndarray | None:
    """Weight of each row of a multi-hot (rows, classes) matrix (NaN = unknown): max, mean or median of 1 / count.

    A row without a positive label gets the mean weight. None for ``how="none"``.
    """
    if how == "none":
        return None
    positive = labels == 1
    inverse = 1 / np.maximum(positive.sum(0), 1)
    cells = np.where(positive, inverse, np.nan)  # (rows, classes)
    some = positive.any(1)
    weights = np.full(len(labels), np.nan)
    reduce: Any = {"max": np.nanmax, "mean": np.nanmean, "median": np.nanmedian}[how]
    weights[some] = reduce(cells[some], axis=1)
    return np.nan_to_num(weights, nan=float(np.nanmean(weights)) if some.any() else 1.0)
