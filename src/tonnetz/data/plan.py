"""Sampling plans: which excerpts make a batch. Every draw is a function of (seed, position), of nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonnetz.audio import window_starts
from tonnetz.errors import UserError

BALANCES = ("none", "max", "mean", "median")


@dataclass(frozen=True)
class Plan:
    """What a task asks of the data.

    Args:
        seconds: length of an excerpt, or several lengths, of which every training batch gets one.
        window: length of evaluation windows; null takes the first of `seconds`.
        hop: distance of evaluation windows in seconds; null lays them side by side.
        steps: batches an epoch; null makes an epoch one pass over the training tracks.
        source: ``audio``, or ``features`` to read stored front-end output.
        pad: fill a recording shorter than an excerpt with ``zero`` or ``repeat``.
        balance: draw tracks in proportion to the ``max``, ``mean`` or ``median`` over their labels of 1 / count.
        group: column of the table (work, artist, ...) that says which tracks belong together; batches are then
            made of `items` excerpts from each of batch_size / items groups.
        items: excerpts of a group in a batch.
        start: ``random``, or ``defined``: excerpts begin where their track begins.
        stretch: [low, high]: read excerpts of features low to high times faster or slower, at a rate drawn for each
            (log-uniform), and bring them to the same length; null does not.
        grid: length and step in samples of the segments that a task cuts windows into; the task sets it.
        tempi: tempo factors at which evaluation windows of features are read, one after the other.
        alignment: file of ``job=align``: the excerpts of a group are cut at the same place of the work as its first
            one, whose start is random. Null, or a pair with less confidence than `floor`: all starts are random.
        jitter: move aligned excerpts by up to so many seconds.
        floor: least confidence of an alignment that is used; null = that of its file.
        valid_windows: windows of a recording that validations during training see at most, evenly spread; null all.
    """

    seconds: float | Sequence[float] = 3.0
    window: float | None = None
    hop: float | None = None
    steps: int | None = None
    source: str = "audio"
    pad: str = "zero"
    balance: str = "none"
    group: str | None = None
    items: int = 4
    start: str = "random"
    stretch: Sequence[float] | None = None
    tempi: Sequence[float] = (1.0,)
    alignment: str | None = None
    jitter: float = 0.0
    floor: float | None = None
    grid: tuple[int, int] | None = None
    valid_windows: int | None = None

    def __post_init__(self) -> None:
        if min(self.lengths, default=0) <= 0 or self.span <= 0 or (self.hop is not None and self.hop <= 0):
            given = f"task.plan.seconds={self.seconds} window={self.window} hop={self.hop}"
            raise UserError(f"{given}: must be positive")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"task.plan.steps={self.steps}: must be at least 1, or null for one pass an epoch")
        if self.items < 1:
            raise UserError(f"task.plan.items={self.items}: must be at least 1")
        if self.valid_windows is not None and self.valid_windows < 1:
            raise UserError(f"task.plan.valid_windows={self.valid_windows}: must be at least 1, or null for all")
        for key, value, known in (
            ("source", self.source, ("audio", "features")),
            ("pad", self.pad, ("zero", "repeat")),
            ("balance", self.balance, BALANCES),
            ("start", self.start, ("random", "defined")),
        ):
            if value not in known:
                raise UserError(f"task.plan.{key}={value}: known are {', '.join(known)}")
        self._check_tempo()
        if self.jitter < 0:
            raise UserError(f"task.plan.jitter={self.jitter}: must not be negative")
        if self.alignment and self.group is None:
            raise UserError("task.plan.alignment: aligns the tracks of a group; say which, task.plan.group=work")

    def _check_tempo(self) -> None:
        pair = self.stretch is None or len(self.stretch) == 2
        low, high = self.rates if pair else (0.0, 0.0)
        if not 0 < low <= high or not self.tempi or min(self.tempi) <= 0:
            raise UserError(
                f"task.plan.stretch={self.stretch} tempi={self.tempi}: need [low, high] and factors above 0"
            )
        if self.source == "audio" and (self.stretch is not None or tuple(self.tempi) != (1.0,)):
            raise UserError("task.plan.stretch, tempi: work on stored features; take task.plan.source=features")

    @property
    def lengths(self) -> tuple[float, ...]:
        """Excerpt lengths in seconds."""
        return (self.seconds,) if isinstance(self.seconds, int | float) else tuple(self.seconds)

    @property
    def span(self) -> float:
        """Length of an evaluation window in seconds."""
        return self.lengths[0] if self.window is None else self.window

    @property
    def rates(self) -> tuple[float, float]:
        """Lowest and highest stretch of a training excerpt."""
        low, high = self.stretch or (1.0, 1.0)
        return low, high

    def length(self, seed: int, batch: int) -> float:
        """Excerpt length of a batch in seconds: each length once in every round, in an order drawn for the round."""
        count = len(self.lengths)
        if count == 1:
            return self.lengths[0]
        turn = np.random.default_rng([seed, 7, batch // count]).permutation(count)
        return self.lengths[turn[batch % count]]

    def place(self, starts: np.ndarray, room: np.ndarray, window: int) -> np.ndarray:
        """Where training excerpts begin, given where chance puts them (B,); in samples, at most `room` (B,)."""
        return starts

    def check_batch(self, batch_size: int) -> None:
        """Raise UserError for a batch of groups that `items` does not divide: nothing need be read to know that."""
        if self.group is not None:
            _check_items(batch_size, self.items)

    def stream(self, tracks: Any, batch_size: int, seed: int, ranks: dict[str, int]) -> Stream:
        """The batches of training."""
        if self.group is not None:
            return GroupStream(tracks.groups, batch_size, self.items, self.steps, seed, **ranks)
        weights = balance_weights(tracks.labels, self.balance)
        return Stream(len(tracks), batch_size, self.steps, seed, weights=weights, **ranks)


def evaluation_starts(plan: Plan, samples: int, sample_rate: int, tempo: float = 1.0) -> np.ndarray:
    """Starts (in samples) of the evaluation windows of a recording, read at a tempo.

    Windows cover the recording to its end; the last one is aligned to it. With a `grid` the segments of all windows
    together lie on one grid from the start of the recording, each once: what is left out is less than a step.
    """
    window = math.ceil(round(plan.span * sample_rate) * tempo)
    if plan.grid is None:
        hop = window if plan.hop is None else max(1, round(plan.hop * sample_rate))
        return window_starts(samples, window, hop)
    size, step = (count * tempo for count in plan.grid)
    each = max(1, int((window - size) / step + 1e-6) + 1)  # segments of a window
    count = int(max(samples - size, 0) / (each * step) + 1e-6) + 1
    return np.round(np.arange(count) * each * step).astype(np.int64)


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


def _check_items(batch_size: int, items: int) -> None:
    if batch_size % items:
        raise UserError(f"data.batch_size={batch_size}: is no multiple of task.plan.items={items}; change one")


class GroupStream(Stream):
    """Batches of `items` excerpts from each of batch_size / items groups: works x versions.

    Pass p is one permutation of the groups, keyed by (seed, pass), cut into batches; what is left over at its end
    waits for another pass. A group with fewer rows than `items` repeats them (at other starts). Ranks share the groups
    of a batch out among them: no work is in the batches of two at once.

    Args:
        groups: code of each row, (rows,); rows with a negative code are never drawn.
        steps: batches an epoch; null makes it as long as the rows are many, small groups counted as `items`.

    Raises UserError when there are fewer groups than a batch needs, or when `items` does not divide the batch.
    """

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        items: int,
        steps: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check_items(batch_size, items)
        order = np.argsort(groups, kind="stable")
        codes, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
        self.members = [order[a : a + n] for c, a, n in zip(codes, first, counts, strict=True) if c >= 0]
        self.items, self.each = items, batch_size // items * world  # groups of a batch of all ranks
        if not self.members:
            raise UserError(
                "no training track names its group (the column of task.plan.group, e.g. work); take data=folder_works, "
                "or a spreadsheet with that column"
            )
        if len(self.members) < self.each:
            raise UserError(_lacking(self.members) or _too_large(batch_size, items, world, len(self.members)))
        rows = sum(max(len(m), items) for m in self.members)
        super().__init__(rows, batch_size, steps, seed, rank, world)
        self.turns = len(self.members) // self.each  # batches of a pass

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        skip, self.skip = self.skip, 0
        for step in range(skip, self.steps):
            number = self.epoch * self.steps + step
            chosen = self._pass(number // self.turns)[number % self.turns * self.each :][: self.each]
            random = np.random.default_rng([self.seed, 1, number])
            rows = np.concatenate([self._draw(random, self.members[group]) for group in chosen])
            mine = np.arange(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
            yield [(number * len(rows) + i, int(rows[i])) for i in mine.tolist()]

    def _draw(self, random: np.random.Generator, members: np.ndarray) -> np.ndarray:
        rounds = -(-self.items // len(members))
        return np.concatenate([random.permutation(members) for _ in range(rounds)])[: self.items]

    def _pass(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 2, number]).permutation(len(self.members))


def _lacking(members: Sequence[np.ndarray]) -> str | None:
    """What recordings that belong to these groups lack, whatever the size of a batch."""
    need = "training compares versions of a work with those of others: it needs two works or more, of two versions each"
    if len(members) == 1:
        return (
            f"the training split has one work (group) only; {need}. Add works, or give validation and test fewer "
            "(data.valid_unseen, data.test_unseen)"
        )
    if max(map(len, members)) == 1:
        return f"the training split has {len(members)} works (groups), of one recording each; {need}. Add versions"
    return None


def _too_large(batch_size: int, items: int, world: int, groups: int) -> str:
    """What to do about a batch of more groups than there are."""
    if groups < world:
        return f"the training split has {groups} groups, fewer than trainer.devices={world}; take fewer devices"
    ranks = f" on each of {world} devices" if world > 1 else ""
    return (
        f"data.batch_size={batch_size}: is {batch_size // items} groups x {items} items{ranks}, but the training split "
        f"has {groups} groups; take data.batch_size={groups // world * items} or less"
    )


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
