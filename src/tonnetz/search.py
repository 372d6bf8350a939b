"""Searching an index: distances of queries to its recordings, exactly or from a shortlist, and the nearest ones.

A query is the set of its vectors (S, D). Where the index was told to, it asks at several tempi at once, (T, Q, S, D)
instead of (Q, S, D), and the nearest tempo counts, as in a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz import pieces
from tonnetz.centroids import mean_vectors, point_distances
from tonnetz.collection import Collection
from tonnetz.errors import UserError, suggest
from tonnetz.reductions import TINY, distances
from tonnetz.shortlist import Shortlist
from tonnetz.transposition import in_one_key, turned
from tonnetz.windows import CELLS, blocks, counter, gather

MODES = ("recordings", "works", "centroids")
NEIGHBOURS = 64  # of a query window, from the shortlist
CANDIDATES = 256  # recordings of the shortlist that are judged exactly, for each query


@dataclass(frozen=True)
class Found:
    """The best of each query, nearest first: place (Q, k) in the table or among the works, -1 for none; distance."""

    place: np.ndarray
    distance: np.ndarray


def search(
    index: Collection,
    queries: Tensor,
    valid: Tensor | None = None,
    top: int = 10,
    mode: str = "recordings",
    faiss: bool | None = None,
    usual: int | None = None,
) -> Found:
    """The `top` nearest recordings, works (by their nearest recording) or centroids of queries ([T,] Q, S, D).

    `valid` ([T,] Q, S) marks real windows. `faiss` True takes the approximate shortlist, False searches all of it,
    None takes the shortlist when the index is large and FAISS is installed. Works of unknown name do not compete with
    others. Queries that are much longer than the `usual` number of windows are asked in pieces of it, and the nearest
    piece counts.
    """
    if mode not in MODES:
        raise UserError(f"job.mode={mode}{suggest(mode, MODES)}")
    if top < 1:
        raise UserError(f"job.top={top}: must be at least 1")
    if not len(index):
        raise UserError(f"{index.name}: the index is empty; add recordings with job=index job.action=add")
    queries, valid = _at_tempi(queries, valid)
    if mode == "centroids":
        return _best(centroid_distances(index, queries, valid).numpy(), None, None, top)
    code = index.work if mode == "works" else None
    if usual is not None:
        parts = pieces.cut(queries, valid, usual, index.tempi.index(index.tempo))
        if len(parts.owner) > queries.shape[1]:
            found = search(index, parts.queries, parts.valid, top, mode, faiss)
            place = pieces.side_by_side(parts.owner, found.place, -1)
            distance = pieces.side_by_side(parts.owner, found.distance, np.inf)
            alone = np.arange(len(index))  # several pieces may have found one recording
            return _best(distance, place, alone if code is None else np.where(code < 0, len(alone) + alone, code), top)
    step = max(1, CELLS // max(len(index), 1024 * queries.shape[2]))
    best = []
    for begin in range(0, queries.shape[1], step):
        distance, rows = scores(index, queries[:, begin : begin + step], valid[:, begin : begin + step], faiss)
        best.append(_best(distance, rows, code, top))
    width = max((f.place.shape[1] for f in best), default=0)
    wide = [(f, ((0, 0), (0, width - f.place.shape[1]))) for f in best]
    return Found(
        np.concatenate([np.pad(f.place, pad, constant_values=-1) for f, pad in wide]),
        np.concatenate([np.pad(f.distance, pad, constant_values=np.inf) for f, pad in wide]),
    )


def centroid_distances(index: Collection, queries: Tensor, valid: Tensor) -> Tensor:
    """Cosine distances (Q, W) of the mean of each query's unit vectors (T, Q, S, D) to the centroids."""
    centroids = index.centroids()
    if not centroids.works:
        raise UserError(f"{index.name}: no recording has a work; give job.works=FILE.csv, or job.mode=recordings")
    return point_distances(mean_vectors(queries, valid), centroids.vectors, index.matching.turns)


def _at_tempi(queries: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries (T, Q, S, D) with their mask (T, Q, S), T being 1 where they are read at one tempo."""
    if valid is None:
        valid = torch.ones(queries.shape[:-1], dtype=torch.bool)
    return (queries, valid) if queries.ndim == 4 else (queries[None], valid[None])


def scores(
    index: Collection, queries: Tensor, valid: Tensor, faiss: bool | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Distances (Q, C) of queries (T, Q, S, D) to the recordings (Q, C), or to all of them in their order (None)."""
    if Shortlist.wanted(faiss, len(index.windows.row)):
        return _shortlisted(index, queries, valid)
    tried = [track_distances(index, *asked).numpy() for asked in zip(queries, valid, strict=True)]
    return np.minimum.reduce(tried), None


def track_distances(index: Collection, queries: Tensor, valid: Tensor | None = None) -> Tensor:
    """Distances (Q, R) of queries (Q, S, D) to all recordings, exactly."""
    queries = _prepare(index, queries)
    if valid is None:
        valid = torch.ones(queries.shape[:2], dtype=torch.bool)
    if index.matching.reduction in ("min", "smin") and index.matching.turns == 1:
        return _nearest_windows(index, queries, valid)
    first, count = index.windows.first, index.windows.count
    result = torch.empty(len(queries), len(index))
    order = np.argsort(count, kind="stable")
    size = queries.shape[0] * queries.shape[1] + queries.shape[2]
    for part in blocks(count[order] * size):
        chosen = order[part]
        block, real = index.cut(first[chosen], count[chosen])
        result[:, torch.from_numpy(chosen)] = index.matching(queries, block, valid, real)
    return result


def _prepare(index: Collection, queries: Tensor) -> Tensor:
    return F.normalize(queries.float(), dim=-1, eps=TINY) if index.matching.distance == "cosine" else queries.float()


def _nearest_windows(index: Collection, queries: Tensor, valid: Tensor) -> Tensor:
    """The reduction `min` of contiguous recordings, without padding."""
    windows, kind = index.windows, index.matching.distance
    best = np.empty((len(queries), len(index)), np.float32)  # highest similarity, or negative distance
    flat, limit = queries.flatten(0, 1), max(1, CELLS // max(queries.shape[0] * queries.shape[1], 1))
    hidden = None if valid.all() else ~valid[..., None]
    ends = windows.first + windows.count
    begin = 0
    while begin < len(index):
        end = int(np.searchsorted(ends, windows.first[begin] + limit, side="right"))
        end = max(end, begin + 1)
        place = slice(windows.first[begin], ends[end - 1])
        block = index.raw(windows.vectors[place], windows.norms[place])
        cells = flat @ block.T if kind == "cosine" else -distances(flat, block, kind)
        cells = cells.view(*queries.shape[:2], -1)
        cells = cells if hidden is None else cells.masked_fill_(hidden, -torch.inf)
        starts = windows.first[begin:end] - windows.first[begin]
        best[:, begin:end] = np.maximum.reduceat(cells.amax(1).numpy(), starts, axis=1)
        begin = end
    return torch.from_numpy(1 - best if kind == "cosine" else -best).clamp(min=0)


def pair_distances(index: Collection, queries: Tensor, valid: Tensor, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Distances (P,) of queries (Q, S, D) number `query` (P,) and recordings `row` (P,)."""
    queries, windows = _prepare(index, queries), index.windows
    result = np.empty(len(query), np.float32)
    order = np.argsort(windows.count[row], kind="stable")
    size = queries.shape[1] + queries.shape[2]
    extra = queries.shape[1] * queries.shape[2]
    for part in blocks(windows.count[row[order]] * size + extra):
        chosen = order[part]
        block, real = index.cut(windows.first[row[chosen]], windows.count[row[chosen]])
        mine = torch.from_numpy(query[chosen])
        result[chosen] = index.matching.pairs(queries[mine], block, valid[mine], real).numpy()
    return result


def nearest_tempo(
    index: Collection, queries: Tensor, valid: Tensor, query: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the tempi of queries (T, Q, S, D) brings `query` (P,) nearest to recording `row` (P,); the distance.

    Of equal ones that is taken which is nearest to the own tempo.
    """
    every = zip(queries, valid, strict=True)
    tried = np.stack([pair_distances(index, *asked, query, row) for asked in every])  # (T, P)
    order = np.argsort(np.abs(np.array(index.tempi) - 1), kind="stable") if len(tried) > 1 else np.zeros(1, int)
    return order[np.argmin(tried[order], 0)], tried.min(0)


def _shortlisted(index: Collection, queries: Tensor, valid: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The recordings with windows near to most windows of a query, in any key and tempo, judged exactly."""
    tried = turned(_prepare(index, queries)[valid], index.matching.turns)  # (turns, v, D)
    near = index.shortlist().search(tried.flatten(0, 1), NEIGHBOURS)  # (turns v, k)
    owner = np.repeat(np.tile(valid.nonzero()[:, 1].numpy(), len(tried)), near.shape[1])
    window = near.ravel()
    hit = np.stack([owner[window >= 0], index.windows.row[window[window >= 0]]], 1)
    pairs, votes = np.unique(hit, axis=0, return_counts=True)
    pairs = pairs[np.lexsort((-votes, pairs[:, 0]))]
    place = counter(pairs[:, 0], queries.shape[1])
    pairs, place = pairs[place < CANDIDATES], place[place < CANDIDATES]
    rows = np.full((queries.shape[1], int(place.max(initial=0)) + 1), -1)
    table = np.full(rows.shape, np.inf, np.float32)
    rows[pairs[:, 0], place] = pairs[:, 1]
    table[pairs[:, 0], place] = nearest_tempo(index, queries, valid, *pairs.T)[1]
    return table, rows


def similarities(
    index: Collection, queries: Tensor, valid: Tensor, query: np.ndarray, row: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Cosines (P, S, s) of the windows of queries number `query` (P,) and recordings `row` (P,), NaN for none.

    And by how many semitones (P,) the queries were raised: to where their windows find the nearest ones.
    """
    asked = F.normalize(queries[query].float(), dim=-1, eps=TINY)  # (P, S, D)
    block, real = gather(index.windows.vectors, index.windows.first[row], index.windows.count[row])
    return in_one_key(asked, block, valid[query], real, index.matching.turns)


def _best(distance: np.ndarray, rows: np.ndarray | None, code: np.ndarray | None, top: int) -> Found:
    """The `top` smallest of distances (Q, C) to `rows` (Q, C); with `code` (R,) only the nearest of each work."""
    order = np.argsort(distance, axis=1, kind="stable")
    distance = np.take_along_axis(distance, order, 1)
    place = order if rows is None else np.take_along_axis(rows, order, 1)
    if code is not None:
        distance = np.where(_repeated(code, place), np.inf, distance)
        order = np.argsort(distance, axis=1, kind="stable")
        distance, place = (np.take_along_axis(values, order, 1) for values in (distance, place))
    distance, place = distance[:, :top], place[:, :top]
    return Found(np.where(np.isfinite(distance), place, -1), distance)


def _repeated(code: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which recordings (Q, C) come after another of their work; those of unknown work never do."""
    work = code[place]
    order = np.argsort(work, axis=1, kind="stable")
    inorder = np.take_along_axis(work, order, 1)
    again = np.zeros(work.shape, bool)
    again[:, 1:] = (inorder[:, 1:] == inorder[:, :-1]) & (inorder[:, 1:] >= 0)
    result = np.empty_like(again)
    np.put_along_axis(result, order, again, 1)
    return result
