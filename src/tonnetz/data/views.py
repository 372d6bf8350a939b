"""The sampling plan of contrastive learning: every track of a batch twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonnetz.data.plan import Plan, Stream, balance_weights
from tonnetz.errors import UserError, suggest

VIEWS = ("same", "neighbour", "track")
FAR = 1 << 40  # from the position of a first view to that of its second: further than a run is long


@dataclass(frozen=True)
class ViewPlan(Plan):
    """A plan whose training batches hold two excerpts of each track, one after the other: 2 x batch_size in all.

    Args:
        views: the ``same`` excerpt twice, the next one (a ``neighbour``; the one before at the end of a track), or
            two from anywhere in the ``track``.
    """

    views: str = "track"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views not in VIEWS:
            raise UserError(f"task.plan.views={self.views}{suggest(self.views, VIEWS)}")
        if self.group is not None:
            raise UserError("task.plan.group: batches of views have no groups; see task.kin")

    def stream(self, tracks: Any, batch_size: int, seed: int, ranks: dict[str, int]) -> Stream:
        """The batches of training."""
        weights = balance_weights(tracks.labels, self.balance)
        return ViewStream(len(tracks), batch_size, self.steps, seed, weights=weights, **ranks, views=self.views)

    def place(self, starts: np.ndarray, room: np.ndarray, window: int) -> np.ndarray:
        """Where excerpts begin (2B,), given where they would by chance; in samples, at most `room` (2B,)."""
        if self.views != "neighbour":
            return starts
        first, most = starts[::2], np.maximum(room[::2], 0)
        second = np.where(first + window <= most, first + window, np.maximum(first - window, 0))
        return np.stack([first, second], 1).reshape(-1)

    def partners(self, row: np.ndarray, seed: int = 0) -> np.ndarray:
        """For each of M windows, sorted by their recordings `row` (M,) and by time, that which makes a pair with it.

        The window itself, the next one of the recording (after the last its first), or any one of it.
        """
        _, first, inverse, counts = np.unique(row, return_index=True, return_inverse=True, return_counts=True)
        first, count = first[inverse], counts[inverse]  # (M,)
        step = {"same": np.zeros_like(count), "neighbour": np.ones_like(count)}.get(self.views)
        if step is None:
            step = (np.random.default_rng(seed).random(len(row)) * count).astype(np.int64)
        return first + (np.arange(len(row)) - first + step) % count


class ViewStream(Stream):
    """Shuffled passes over the tracks; each stands in a batch twice, with one position or with two."""

    def __init__(self, *args: Any, views: str, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.gap = FAR if views == "track" else 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield [(position + gap, row) for position, row in batch for gap in (0, self.gap)]
