"""Queries that are much longer than what they look for, cut into pieces that are as long as it.

The longer a query, the nearer strangers come by chance, so that no distance of recordings that are as long as those of
the index tells what to expect. A piece is such a recording; the nearest piece counts, as one of so many tries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tonnetz.windows import gather, stacked

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
    place = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number)  # of a piece in its query
    begin = room[owner] * place / np.maximum(number[owner] - 1, 1) / np.maximum(size[owner], 1)  # share of the query
    share = np.where(room > 0, usual / np.maximum(size, 1), 1.0)[owner]
    parts = []
    for vectors, count in zip(queries, sizes, strict=True):
        whole = count[owner]
        length = np.minimum(np.maximum(np.round(share * whole), 1), whole).astype(np.int64)
        offset = np.minimum(np.round(begin * whole), whole - length).astype(np.int64)
        parts.append(gather(vectors.flatten(0, 1), owner * vectors.shape[1] + offset, length))
    blocks, real = zip(*parts, strict=True)
    return Pieces(stacked(blocks), stacked(real), owner)


def nearest(
    owner: np.ndarray, place: np.ndarray, distance: np.ndarray, code: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of what pieces (P, k) of queries `owner` (P,) found, -1 for nothing, the `top` of each query: place, distance.

    Each place counts once, or with its `code` (R,) each work; a place without one (-1) stands for itself.
    """
    queries, found = int(owner.max(initial=-1)) + 1, place >= 0
    who, place, distance = np.broadcast_to(owner[:, None], found.shape)[found], place[found], distance[found]
    key = place if code is None else np.where(code[place] >= 0, code[place], -1 - place)
    order = np.lexsort((distance, who))
    _, first = np.unique(np.stack([who[order], key[order]], 1), axis=0, return_index=True)
    order = order[np.sort(first)]  # by query and distance, each key once
    who = who[order]
    count = np.bincount(who, minlength=queries)
    rank = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
    who, rank, order = (values[rank < top] for values in (who, rank, order))
    width = int(rank.max(initial=-1)) + 1
    places, distances = np.full((queries, width), -1), np.full((queries, width), np.inf, np.float32)
    places[who, rank], distances[who, rank] = place[order], distance[order]
    return places, distances
