"""The sampling plan of few-shot learning: batches of whole episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonnetz.data.plan import Plan, Stream
from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import INSUFFICIENT, UNITS, Pool

TRAINING = 0  # part of the key of training episodes


@dataclass(frozen=True)
class EpisodePlan(Plan):
    """A plan whose training batches are `episodes` episodes of `ways` classes with `shots` + `queries` clips each.

    Args:
        ways, shots: a number, or [low, high]: one is drawn for every batch.
        queries: clips of a class that ask, in an episode.
        episodes: episodes a batch; all of a batch go through the encoder at once.
        disjoint: what is never on both sides of an episode: clip, track (recording, song, player) or artist.
        replacement: draw clips with replacement and keep nothing apart, as Music Trees does.
        insufficient: a class with too few clips: ``fail``, ``drop`` it, or take ``fewer`` queries of it.
    """

    group: str | None = "class"
    steps: int | None = 100
    ways: int | Sequence[int] = 5
    shots: int | Sequence[int] = 5
    queries: int = 10
    episodes: int = 4
    disjoint: str = "track"
    replacement: bool = False
    insufficient: str = "fail"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value, known in (
            ("disjoint", self.disjoint, UNITS),
            ("insufficient", self.insufficient, INSUFFICIENT),
        ):
            if value not in known:
                raise UserError(f"task.plan.{key}={value}: known are {', '.join(known)}")
        for key, least in (("ways", 2), ("shots", 1)):
            low, high = _range(getattr(self, key))
            if not least <= low <= high:
                raise UserError(f"task.plan.{key}={getattr(self, key)}: need {least} or more, or [low, high]")
        if self.queries < 1 or self.episodes < 1 or not self.steps:
            given = f"task.plan.queries={self.queries} episodes={self.episodes} steps={self.steps}"
            raise UserError(f"{given}: need 1 or more of each")

    def stream(self, tracks: Any, batch_size: int, seed: int, ranks: dict[str, int]) -> Stream:
        """The batches of training."""
        return EpisodeStream(tracks.pool, self, seed, **ranks)


def _range(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    pair = tuple(value)
    if len(pair) != 2:
        raise UserError(f"task.plan: {list(pair)} is no range; write a number or [low, high]")
    return pair[0], pair[1]


class EpisodeStream(Stream):
    """Batches of whole episodes as arrays (B, 5): position, row, episode in the batch, class slot, support or not.

    Episode i of the run is keyed by (seed, i) alone, ways and shots of a batch by (seed, batch). Batch b of rank r of
    w holds episodes (b w + r) E to (b w + r + 1) E - 1, so nothing depends on the number of processes or on a resume.
    """

    def __init__(self, pool: Pool, plan: EpisodePlan, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.pool, self.plan = pool, plan
        self.ways, self.shots = _range(plan.ways), _range(plan.shots)
        self.fit = pool.sufficient(self.shots[1], plan.queries, self.ways[1], plan.insufficient, plan.replacement)
        self.size = plan.episodes * self.ways[1] * (self.shots[1] + plan.queries)  # clips of the largest batch
        super().__init__(len(pool.groups), self.size, plan.steps, seed, rank, world)

    def __iter__(self) -> Iterator[Any]:
        skip, self.skip = self.skip, 0
        for step in range(skip, self.steps):
            number = (self.epoch * self.steps + step) * self.world + self.rank
            yield self._batch(number)

    def _batch(self, number: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, 3, number])
        ways, shots = (int(random.integers(low, high + 1)) for low, high in (self.ways, self.shots))
        parts = []
        for e in range(self.plan.episodes):
            key = [self.seed, TRAINING, number * self.plan.episodes + e]
            _, support, query, _ = self.pool.draw(
                key, self.fit, ways, shots, self.plan.queries, again=self.plan.replacement
            )
            for asked, side in ((1, support), (0, query)):
                parts += [_block(rows, e, slot, asked) for slot, rows in enumerate(side)]
        batch = np.concatenate(parts)
        batch[:, 0] = number * self.size + np.arange(len(batch))
        return batch


def _block(rows: np.ndarray, episode: int, slot: int, support: int) -> np.ndarray:
    block = np.empty((len(rows), 5), np.int64)
    block[:, 1], block[:, 2], block[:, 3], block[:, 4] = rows, episode, slot, support
    return block
