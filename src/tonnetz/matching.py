"""How the segment vectors of two tracks become one distance: metric, reduction, transpositions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.ahead import ahead
from tonnetz.reductions import TINY, check_distance, check_reduction, distances, reduce
from tonnetz.threads import one_thread
from tonnetz.transposition import likely_turns, profiles, transpose

CELLS = 2**22  # distances held at once


@dataclass(frozen=True)
class Matching:
    """Distance of two vectors, reduction over two sets of them, keys in which a query is tried (1: its own).

    With `turns` above 1 vectors have the pitch class innermost. Of 12 rotations those are tried whose mean pitch
    profiles agree best (optimal transposition index, Serra et al. 2008); the nearest counts. `clamp` False keeps the
    rounding errors of equal vectors below zero.
    """

    distance: str = "cosine"
    reduction: str = "min"
    turns: int = 1
    clamp: bool = True

    def __post_init__(self) -> None:
        check_distance(self.distance)
        check_reduction(self.reduction)

    def __call__(self, a: Tensor, b: Tensor, valid_a: Tensor | None = None, valid_b: Tensor | None = None) -> Tensor:
        """Distances (Q, R) of tracks a (Q, S1, D) and b (R, S2, D) with masks (Q, S1), (R, S2)."""
        valid_a = torch.ones(a.shape[:2], dtype=torch.bool, device=a.device) if valid_a is None else valid_a
        valid_b = torch.ones(b.shape[:2], dtype=torch.bool, device=b.device) if valid_b is None else valid_b
        if self.distance == "cosine":
            a, b = F.normalize(a, dim=-1, eps=TINY), F.normalize(b, dim=-1, eps=TINY)
        if self.turns == 1:
            return self._table(a, b, valid_a, valid_b)
        found = torch.full((len(a), len(b)), torch.inf, device=a.device)
        for turn, (first, second) in self._turns(a, b, valid_a, valid_b):
            turned = transpose(a, turn) if turn else a
            near = self._pairs(turned, b, valid_a, valid_b, first, second)
            found[first, second] = torch.minimum(found[first, second], near)
        return found

    def pairs(self, a: Tensor, b: Tensor, valid_a: Tensor, valid_b: Tensor) -> Tensor:
        """Distances (P,) of a[i] and b[i]: like the diagonal of a call."""
        if self.distance == "cosine":
            a, b = F.normalize(a, dim=-1, eps=TINY), F.normalize(b, dim=-1, eps=TINY)
        index = torch.arange(len(a), device=a.device)
        found = torch.full((len(a),), torch.inf, device=a.device)
        for turn, chosen in enumerate(likely_turns(profiles(a, valid_a), profiles(b, valid_b), self.turns)):
            some = index[chosen]
            if len(some):
                near = self._pairs(transpose(a, turn) if turn else a, b, valid_a, valid_b, some, some)
                found[some] = torch.minimum(found[some], near)
        return found

    def _turns(
        self, a: Tensor, b: Tensor, valid_a: Tensor, valid_b: Tensor
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Each turn with the pairs (query, reference) that try it."""
        mine, other = profiles(a, valid_a)[:, None], profiles(b, valid_b)[None]
        for turn, chosen in enumerate(likely_turns(mine, other, self.turns)):
            pairs = chosen.nonzero(as_tuple=True)
            if len(pairs[0]):
                yield turn, pairs  # type: ignore[misc]

    def _table(self, a: Tensor, b: Tensor, valid_a: Tensor, valid_b: Tensor) -> Tensor:
        """Distances (Q, R) of all pairs: one product of all segments with all segments, a few queries at a time."""
        step = max(1, CELLS // (a.shape[1] * b.shape[0] * b.shape[1]))
        whole = bool(valid_a.all() and valid_b.all())
        mask = None if whole else valid_b[None]
        flat = b.flatten(0, 1)  # (R S2, D)
        parts = []
        for begin in range(0, len(a), step):
            some = a[begin : begin + step]
            cells = self._cells(some.flatten(0, 1), flat).view(*some.shape[:2], *b.shape[:2]).transpose(1, 2)
            mine = None if whole else valid_a[begin : begin + step, None]
            parts.append(reduce(cells, self.reduction, mine, mask))
        return torch.cat(parts)

    def _cells(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of vectors (..., S1, D) and (..., S2, D), which are of unit length for the cosine."""
        if self.distance != "cosine":
            return distances(a, b, self.distance, self.clamp)
        return (1 - a @ b.mT).clamp(min=0) if self.clamp else 1 - a @ b.mT

    def _pairs(self, a: Tensor, b: Tensor, valid_a: Tensor, valid_b: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Distances (P,) of the pairs (a[first], b[second]), a few at a time."""
        step = max(1, CELLS // (a.shape[1] * b.shape[1]))

        def some(begin: int) -> Tensor:
            i, j = first[begin : begin + step], second[begin : begin + step]
            return reduce(self._cells(a[i], b[j]), self.reduction, valid_a[i], valid_b[j])

        starts = range(0, len(first), step)
        if a.device.type != "cpu" or len(starts) < 2 or torch.is_grad_enabled():
            return torch.cat([some(begin) for begin in starts])
        with one_thread():  # several blocks side by side
            return torch.cat(list(ahead(some, iter(starts), os.cpu_count() or 1)))
