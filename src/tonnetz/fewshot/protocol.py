"""Judging embeddings by few-shot episodes: every clip is embedded once, the rest is index arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Episodes, Pool, draw_many, load_episodes
from tonnetz.projection import METHODS

Scorer = Callable[..., Tensor]  # (support, mask, query, center, valid) -> scores (E, M, C), see `tonnetz.heads.Head`
CELLS = 1 << 24  # numbers that a part of the episodes may gather at once
PARTS = {"valid": 1, "test": 2}  # of the key of episodes; training has 0


@dataclass(frozen=True)
class Protocol:
    """How few-shot recognition is judged.

    Args:
        episodes, valid_episodes: how many, in a test and in each validation during training.
        ways: classes of an episode.
        valid_ways: the same in validations; null takes `ways`, or all classes there where they are fewer.
        shots: support clips of a class; several settings share queries, and the fewer shots are the first of the more.
        queries: clips of a class that ask.
        valid_shots, valid_queries: the same in validations; null takes the most shots, and the queries, of the test.
        unknown: further classes of an episode that only ask, and should be rejected.
        seed: of the episodes, the same for all runs, so that their results are paired.
        reference: taxonomy of all measures, whatever tree the model was trained with; null has no levels.
        mass: back-off answers the lowest node of the tree that holds so much of the probability.
        rounds: of the bootstrap over recordings and classes.
        file: list of episodes of `job=episodes`, instead of drawn ones.
        map: how an episode is laid out in the plane: tsne, umap (extra) or pca.
        maps: episodes of a test that are laid out, the first ones.
    """

    episodes: int = 1000
    valid_episodes: int = 200
    ways: int = 5
    valid_ways: int | None = None
    shots: Sequence[int] | int = (1, 5)
    queries: int = 15
    valid_shots: int | None = None
    valid_queries: int | None = None
    unknown: int = 0
    seed: int = 0
    reference: str | None = "hornbostel_sachs"
    mass: float = 0.75
    rounds: int = 1000
    file: str | None = None
    map: str = "tsne"
    maps: int = 6

    def __post_init__(self) -> None:
        least = {
            "episodes": 1,
            "valid_episodes": 1,
            "ways": 2,
            "queries": 1,
            "valid_ways": 2,
            "valid_shots": 1,
            "valid_queries": 1,
            "unknown": 0,
            "seed": 0,
            "rounds": 0,
            "maps": 1,
        }
        for name, low in least.items():
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise UserError(f"task.evaluation.{name}={getattr(self, name)}: need {low} or more")
        if not self.settings or self.settings[0] < 1:
            raise UserError(f"task.evaluation.shots={self.shots}: need numbers from 1 up")
        if self.map not in METHODS:
            raise UserError(f"task.evaluation.map={self.map}: known are {', '.join(METHODS)}")
        if not 0 < self.mass <= 1:
            raise UserError(f"task.evaluation.mass={self.mass}: must be above 0, at most 1")

    @property
    def settings(self) -> list[int]:
        """Shots, fewest first."""
        return sorted({self.shots} if isinstance(self.shots, int) else {int(n) for n in self.shots})

    def sizes(self, stage: str) -> tuple[int, int]:
        """Shots, the most of them, and queries of a class in the episodes of a stage."""
        if stage == "valid":
            return self.valid_shots or self.settings[-1], self.valid_queries or self.queries
        return self.settings[-1], self.queries

    def draw(self, pool: Pool, stage: str, ids: Sequence[str] = (), **how: Any) -> Episodes:
        """The episodes of a stage: from the file, or drawn from a split's rows as `how` says."""
        if self.file and stage == "test":
            return load_episodes(self.file, ids, pool.names)
        count, unknown = (self.episodes, self.unknown) if stage == "test" else (self.valid_episodes, 0)
        sizes = self._ways(pool, stage, **how), *self.sizes(stage)
        return draw_many(pool, count, *sizes, seed=self.seed, part=PARTS[stage], unknown=unknown, stage=stage, **how)

    def _ways(self, pool: Pool, stage: str, **how: Any) -> int:
        """Classes of an episode; in a validation all that have enough clips, where they are fewer."""
        if stage == "test":
            return self.ways
        return self.valid_ways or min(self.ways, self.usable(pool, stage, **how))

    def check(self, pool: Pool, stage: str, insufficient: str, again: bool = False) -> None:
        """Raise UserError when the episodes of a stage cannot be drawn from a split."""
        if self.file and stage == "test":
            return
        how: dict[str, Any] = {"insufficient": insufficient, "again": again}
        ways = self._ways(pool, stage, **how) + (self.unknown if stage == "test" else 0)
        pool.sufficient(*self.sizes(stage), ways, **how, stage=stage)

    def usable(self, pool: Pool, stage: str, **how: Any) -> int:
        """How many classes have enough clips for an episode of a stage."""
        return len(pool.rows) - len(pool.lacking(*self.sizes(stage), **how))


@dataclass(frozen=True)
class Answers:
    """What a head answered in E episodes with M queries and C classes: tensors on the CPU.

    logits (E, M, C), target (E, M) slot of the true class, asked (E, M) whether the query exists, row (E, M) of the
    query in the table, classes (E, C) codes; strange (E, U, C) logits and heard (E, U) of unknown classes.
    """

    logits: Tensor
    target: Tensor
    asked: Tensor
    row: Tensor
    classes: Tensor
    strange: Tensor
    heard: Tensor

    @property
    def answer(self) -> Tensor:
        """Slot (E, M) of the best class."""
        return self.logits.argmax(-1)

    @property
    def accuracy(self) -> Tensor:
        """Share of right answers in each episode, (E,)."""
        right = (self.answer == self.target) & self.asked
        return right.sum(1) / self.asked.sum(1).clamp(min=1)

    def codes(self) -> tuple[Tensor, Tensor]:
        """Class codes (E, M) of the answers and of the truth."""
        return self.classes.gather(1, self.answer), self.classes.gather(1, self.target)


def answer(z: Tensor, episodes: Episodes, head: Scorer, center: Tensor | None = None) -> Answers:
    """What a head answers in all episodes on the embeddings z (N, D) of a split's rows."""
    parts = [_answer(z, part, head, center) for part in parts_of(episodes, z.shape[1])]
    return Answers(*(torch.cat([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__))


def parts_of(episodes: Episodes, dim: int) -> Iterator[Episodes]:
    """The episodes in parts that bound what is gathered at once."""
    clips = sum(getattr(episodes, name)[0].size for name in ("support", "query", "unknown"))
    size = max(1, CELLS // (clips * dim))
    for start in range(0, len(episodes), size):
        yield episodes.part(start, start + size)


def _answer(z: Tensor, episodes: Episodes, head: Scorer, center: Tensor | None) -> Answers:
    support, shown = gather(z, episodes.support)  # (E, C, S, D), (E, C, S)
    query, asked = gather(z, episodes.query)
    strange, heard = gather(z, episodes.unknown)
    whole = torch.cat([query.flatten(1, 2), strange.flatten(1, 2)], 1)  # (E, M + U, D)
    exist = torch.cat([asked.flatten(1), heard.flatten(1)], 1)
    with torch.no_grad():
        scores = head(support, shown, whole, center, exist)
    count = asked.flatten(1).shape[1]
    ways, queries = episodes.query.shape[1:]
    target = torch.arange(ways).repeat_interleave(queries).expand(len(episodes), -1)
    return Answers(
        logits=scores[:, :count].cpu(),
        target=target,
        asked=asked.flatten(1).cpu(),
        row=torch.from_numpy(episodes.query).flatten(1),
        classes=torch.from_numpy(episodes.classes),
        strange=scores[:, count:].cpu(),
        heard=heard.flatten(1).cpu(),
    )


def gather(z: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Embeddings (..., D) of rows (...), zero where there is none (-1), and which exist."""
    index = torch.from_numpy(rows).to(z.device)
    exist = index >= 0
    return z[index.clamp(min=0)] * exist[..., None], exist
