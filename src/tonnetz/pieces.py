"""Queries that are much longer than what they look for, cut into pieces that are as long as it.

The longer a query, the nearer strangers come by chance, so that no distance of recordings that are as long as those of
the index tells what to expect. A piece is such a recording; the nearest piece counts, as one of so many tries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tonnetz.windows import counter, gather, part_of, stacked

LONG = 1.25  # times as long as usual: up to here a query stays whole


@dataclass(frozen=True)
class Pieces:
    """Pieces of queries: vectors (T, P, S, D), which of them are real (T, P, S), and the query of each piece (P,)."""

    queries: Tensor
    valid: Tensor
    owner: np.ndarray


def tries(windows: int, usual: int) -> float:
    """How many times as long as usual a query of so many windows is; 1 for one that stays whole."""
    return windows / usual if windows > LONG * usual else 1.0


def cut(queries: Tensor, valid: Tensor, usual: int, own: int = 0) -> Pieces:
    """Cut queries (T, Q, S, D) of more than `LONG` times the usual windows; each piece overlaps half of the next.

    Windows are counted at tempo number `own`; at others the same part of the recording is taken.
    """
    sizes = valid.sum(2).numpy()  # (T, Q)
    size = sizes[own]
    room = np.where(size > LONG * usual, size - usual, 0)  # (Q,) by how much the last piece begins later
    number = 1 + np.ceil(room / max(usual / 2, 1)).astype(np.int64)  # (Q,)
    owner = np.repeat(np.arange(len(size)), number)
    if len(owner) == len(size):
        return Pieces(queries, valid, owner)
    place = counter(owner, len(size))  # of a piece in its query
    begin = room[owner] * place / np.maximum(number[owner] - 1, 1) / np.maximum(size[owner], 1)  # share of the query
    share = np.where(room > 0, usual / np.maximum(size, 1), 1.0)[owner]
    parts = []
    for vectors, count in zip(queries, sizes, strict=True):
        offset, length = part_of(count[owner], begin, share)
        parts.append(gather(vectors.flatten(0, 1), owner * vectors.shape[1] + offset, length))
    blocks, real = zip(*parts, strict=True)
    return Pieces(stacked(blocks), stacked(real), owner)


def side_by_side(owner: np.ndarray, found: np.ndarray, fill: float) -> np.ndarray:
    """What pieces of queries `owner` (P,) found, (P, k), as a row for each query (Q, n k), filled up."""
    queries, place = int(owner[-1]) + 1, counter(owner, int(owner[-1]) + 1)
    table = np.full((queries, int(place.max()) + 1, found.shape[1]), fill, found.dtype)
    table[owner, place] = found
    return table.reshape(queries, -1)
