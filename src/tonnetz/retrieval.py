"""Retrieval over segments: every track asks, all others answer, ranked by the matching of the task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.matching import Matching
from tonnetz.metrics.ranking import KEPT, Ranking, Retrieval, intervals
from tonnetz.metrics.vectors import Segments
from tonnetz.reductions import symmetric
from tonnetz.windows import CELLS, extents, gather, own_tempo


@dataclass(frozen=True)
class Gallery:
    """Tracks as padded sets of vectors."""

    vectors: Tensor  # (M, D) sorted by track and time
    first: np.ndarray  # (N,)
    count: np.ndarray  # (N,)

    @classmethod
    def of(cls, segments: Segments, tracks: int, seconds: float | None = None) -> Gallery:
        """Group the segments of one tempo by row; of each track so many `seconds` from the middle, at least one."""
        if seconds is not None:
            segments = segments.middle(seconds, tracks)
        return cls(segments.z, *extents(segments.row.cpu().numpy(), tracks))

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (R, S, D) and mask (R, S) of some tracks."""
        place = rows.cpu().numpy()
        z, valid = gather(self.vectors, self.first[place], self.count[place])
        return z, valid.to(z.device)


def distances(
    found: Segments,
    matching: Matching,
    queries: Tensor,
    references: Tensor,
    tracks: int,
    seconds: tuple[float | None, float | None] = (None, None),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield query rows (q,) and distances (q, R), a block at a time; of several tempi the nearest counts.

    References are read at the tempo nearest to their own, queries at all. `seconds` limits queries and references to
    excerpts from their middle.
    """
    tempi = found.tempi
    own = own_tempo(tempi)
    answer = Gallery.of(found.at(own), tracks, seconds[1])
    askers = [Gallery.of(found.at(tempo), tracks, seconds[0]) for tempo in tempi]
    size = block_size(answer, askers, references)
    alike = len(tempi) == 1 and seconds[0] == seconds[1] and torch.equal(queries, references)
    if alike and symmetric(matching.reduction) and len(queries) ** 2 <= KEPT:
        whole = torch.zeros(len(queries), len(queries), device=found.z.device)
        for place in torch.arange(len(queries), device=found.z.device).split(size):
            later = int(place[0])  # what comes before is known already
            part = _nearest(askers, answer, matching, queries[place], references[later:])
            whole[place, later:] = part
            whole[later:, place] = part.T
        yield from zip(queries.split(size), whole.split(size), strict=True)
        return
    for rows in queries.split(size):
        yield rows, _nearest(askers, answer, matching, rows, references)


def _nearest(askers: list[Gallery], answer: Gallery, matching: Matching, queries: Tensor, references: Tensor) -> Tensor:
    """Distances (q, R), the least over the tempi."""
    near = torch.full((len(queries), len(references)), torch.inf, device=answer.vectors.device)
    for asker in askers:
        a, valid_a = asker.take(queries)
        for place in torch.arange(len(references), device=near.device).split(1024):
            b, valid_b = answer.take(references[place])
            near[:, place] = torch.minimum(near[:, place], matching(a, b, valid_a, valid_b))
    return near


def block_size(answer: Gallery, askers: list[Gallery], references: Tensor) -> int:
    """Queries a block, so that what is held at once stays within bounds."""
    segments = max(int(asker.count.max(initial=1)) for asker in askers) * int(answer.count.max(initial=1))
    return int(np.clip(CELLS // (segments * min(len(references), 1024)), 1, 256))


def evaluate(
    found: Segments,
    matching: Matching,
    *,
    queries: Tensor | None = None,
    references: Tensor | None = None,
    exclude: Tensor | None = None,
    rounds: int = 0,
    compat: bool = False,
    seconds: tuple[float | None, float | None] = (None, None),
) -> Retrieval:
    """Rank all references for all queries (default: all tracks for each other) and score it.

    `exclude` (E, 2) holds pairs of rows that are not compared; a track is never compared with itself. Rows without a
    work (group -1) answer but do not ask. `seconds` limits queries and references to excerpts from their middle.
    Raises UserError when no query has a version to find.
    """
    if not torch.isfinite(found.z).all():
        raise UserError("an embedding is not finite; the checkpoint, or a recording's features, are broken")
    named = (found.row, queries, references, exclude)  # lists may name tracks that were not read
    tracks = 1 + max(int(rows.max()) for rows in named if rows is not None and rows.numel())
    device = found.z.device
    work = torch.full((tracks,), -1, device=device).index_put((found.row,), found.group)
    present = found.row.unique()
    queries = present[work[present] >= 0] if queries is None else queries.to(device)
    references = present if references is None else references.to(device)
    keep = len(queries) * len(references) <= KEPT
    ranking = Ranking(work, references, exclude, compat=compat, keep=keep)
    if compat:
        matching = replace(matching, clamp=False)  # rounding below zero is what those definitions drop
    for rows, near in distances(found, matching, queries, references, tracks, seconds):
        ranking.add(rows, near)
    result = ranking.result()
    if rounds:
        result.values |= intervals(result, rounds)
    return result
