"""Alignment of recordings of one work: which moment of B is which moment of A, from the similarity of their windows.

Coarse-to-fine training (Liu et al. 2023) crops the versions of a work at the same musical place; this finds the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.dtw import dtw
from tonnetz.errors import UserError, suggest
from tonnetz.transposition import in_one_key, in_semitones
from tonnetz.windows import blocks, gather

METHODS = ("lag", "votes", "tempo", "dtw")
PAIRS = ("all", "medoid", "budget")
RESULTS = ("ratio", "shift", "confidence", "semitones")
RATIOS = (0.5, 2.0)  # tempo ratios that can be found
DRAWS = 512  # lines that are tried


def lag(similarity: Tensor, minimum: int = 3, share: float = 0.0) -> tuple[Tensor, Tensor]:
    """Lag in windows (...,) by which b runs behind a, and its confidence (...,), of similarities (..., n, m).

    Cells that belong to no window are NaN. The lag has the highest mean along its diagonal among those that hold
    at least `minimum` windows and a `share` of the shorter recording; a parabola through its neighbours refines it.
    The confidence is this peak above the median of the other lags, and 0 where a recording is shorter than `minimum`
    windows.
    """
    known = ~similarity.isnan()
    total = skew(similarity.nan_to_num(0.0))  # (..., n + m - 1)
    overlap = skew(known.to(similarity.dtype))
    shorter = torch.minimum(known.any(-1).sum(-1), known.any(-2).sum(-1))  # (...,)
    needed = torch.maximum(shorter.clamp(1, max(minimum, 1)), share * shorter)
    enough = overlap >= needed[..., None]
    mean = torch.where(enough, total / overlap.clamp(min=1), -torch.inf)
    peak, best = mean.max(-1)
    others = mean.masked_fill(~enough, torch.nan).scatter(-1, best[..., None], torch.nan)
    confidence = (peak - others.nanmedian(-1).values).nan_to_num(0.0)
    place = best - (similarity.shape[-2] - 1) + _parabola(mean, best)
    return place, torch.where(shorter < minimum, 0.0, confidence)


def skew(values: Tensor) -> Tensor:
    """Sums along the diagonals of (..., n, m): (..., n + m - 1), where entry l holds column - row = l - (n - 1)."""
    n, m = values.shape[-2:]
    padded = torch.nn.functional.pad(values.flip(-2), (0, n))  # row i of the flipped is row n - 1 - i
    flat = padded.flatten(-2)[..., : n * (n + m - 1)]  # each row begins one place later than the one above
    return flat.unflatten(-1, (n, n + m - 1)).sum(-2)


def _parabola(mean: Tensor, best: Tensor) -> Tensor:
    """Place of the vertex between the neighbours of the maximum, in [-.5, .5]; 0 where a neighbour is missing."""
    at = torch.stack([best - 1, best, best + 1], -1)  # (..., 3)
    inside = (at >= 0) & (at < mean.shape[-1])
    left, top, right = mean.gather(-1, at.clamp(0, mean.shape[-1] - 1)).where(inside, -torch.inf).unbind(-1)
    bend = left - 2 * top + right
    delta = 0.5 * (left - right) / bend
    return torch.where(bend.isfinite() & (bend < 0), delta, 0.0).clamp(-0.5, 0.5)


def votes(similarity: Tensor, minimum: int = 3) -> tuple[Tensor, Tensor]:
    """The lag (...,) that most windows of a choose when each takes its nearest window of b, and their share (...,).

    This is CoverHunter's rule with its defects mended: a lag of zero can win, and one window is enough, but nothing
    is sure of fewer than `minimum`.
    """
    n, m = similarity.shape[-2:]
    real = ~similarity.isnan().all(-1)  # (..., n)
    nearest = similarity.nan_to_num(-torch.inf).argmax(-1)  # (..., n)
    lags = nearest - torch.arange(n, device=similarity.device) + n - 1
    counts = torch.zeros(*similarity.shape[:-2], n + m - 1).scatter_add(-1, lags, real.float())
    most, best = counts.max(-1)
    shorter = torch.minimum(real.sum(-1), (~similarity.isnan()).any(-2).sum(-1))  # (...,)
    return (best - (n - 1)).float(), torch.where(shorter < minimum, 0.0, most / real.sum(-1).clamp(min=1))


def line(
    similarity: Tensor,
    minimum: int = 3,
    share: float = 0.0,
    tolerance: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ratio, lag and confidence (P,) of the line j = ratio i + lag through the mutual nearest neighbours of (P, n, m).

    RANSAC (Fischler & Bolles 1981): lines through two random matches, that one with most similarity within
    `tolerance` windows, then least squares over its matches. The plain `lag` stands where there is more evidence for
    it: confidence times the root of the number of windows.
    """
    n = similarity.shape[-2]
    i = torch.arange(n, dtype=similarity.dtype)
    j, weight = _mutual(similarity)  # (P, n) each
    generator = torch.Generator().manual_seed(seed)
    usable = torch.where((weight > 0).any(-1, keepdim=True), weight, 1.0)
    drawn = torch.multinomial((usable > 0).float(), 2 * draws, replacement=True, generator=generator)  # (P, 2 draws)
    (i1, i2), (j1, j2) = (v.chunk(2, -1) for v in (i[drawn], j.gather(-1, drawn)))  # (P, draws) each
    ratio = (j2 - j1) / (i2 - i1)
    good = (i1 != i2) & (ratio >= RATIOS[0]) & (ratio <= RATIOS[1])
    ratio = ratio.where(good, 1.0)
    begin = j1 - ratio * i1
    near = (j[:, None] - ratio[..., None] * i - begin[..., None]).abs() <= tolerance  # (P, draws, n)
    score = (near * weight[:, None]).sum(-1).where(good, -1.0)
    best = score.argmax(-1, keepdim=True)  # (P, 1)
    inlier = near.gather(1, best[..., None].expand(-1, -1, n))[:, 0] * weight  # (P, n)
    ratio, begin = _least_squares(i, j, inlier, ratio.gather(1, best)[:, 0], begin.gather(1, best)[:, 0])
    sure, size = _along(similarity, ratio, begin)
    sure = torch.where((inlier > 0).sum(-1) >= max(minimum, 2), sure, 0.0)
    plain, confidence = lag(similarity, minimum, share)
    overlap = _along(similarity, torch.ones_like(plain), plain)[1]
    keep = sure * size.sqrt() > confidence * overlap.sqrt()
    return ratio.where(keep, 1.0), begin.where(keep, plain), sure.where(keep, confidence)


def warp(similarity: Tensor, minimum: int = 3, share: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ratio, lag and confidence (P,) of the line through the warping path of (P, n, m), and the path (P, n) itself.

    DTW with open ends: parts may be missing at both ends of both recordings. A cell costs what it lacks to a level
    half way between the median of all cells and what the windows' nearest neighbours reach on average, so the path
    is where the recordings agree, and ends where they do no longer. It is the column of each row, -1 for none.
    The confidence is the similarity along the path above the median; windows that it lacks to `minimum`, or to the
    `share` of the shorter recording, count as zero.
    """
    known = ~similarity.isnan()
    median = similarity.flatten(-2).nanmedian(-1).values  # (P,)
    near = similarity.nan_to_num(-torch.inf).amax(-1).where(known.any(-1), torch.nan).nanmean(-1)
    cost = ((median + near) / 2)[:, None, None] - similarity
    path = dtw(torch.where(known, cost, torch.where(_holes(known), 0.0, torch.nan)))[1]  # (P, n)
    read = similarity.gather(-1, path.clamp(min=0)[..., None])[..., 0]  # (P, n)
    path = path.where(~read.isnan(), -1)
    visited = (path >= 0).to(similarity.dtype)
    i = torch.arange(similarity.shape[-2], dtype=similarity.dtype)
    size = visited.sum(-1)
    one = torch.ones_like(size)
    middle = (visited * (path - i)).sum(-1) / size.clamp(min=1)
    ratio, begin = _least_squares(i, path.to(similarity.dtype), visited, one, middle)
    shorter = torch.minimum(known.any(-1).sum(-1), known.any(-2).sum(-1))
    needed = torch.maximum(size, (share * shorter).clamp(min=max(minimum, 2)))
    sure = ((read - median[:, None]).where(path >= 0, 0.0)).sum(-1) / needed
    return ratio, begin, sure.where(size > 1, 0.0), path


def _holes(known: Tensor) -> Tensor:
    """Cells (P, n, m) without a window that have some after them in both recordings: a path may pass them."""
    after = (known.any(axis).flip(-1).cumsum(-1).flip(-1) > 0 for axis in (-1, -2))  # (P, n), (P, m)
    rows, columns = after
    return ~known & rows[:, :, None] & columns[:, None]


def _mutual(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest window of b for each of a (P, n), and its similarity where both choose each other, else 0."""
    filled = similarity.nan_to_num(-torch.inf)
    value, j = filled.max(-1)  # (P, n)
    back = filled.argmax(-2).gather(-1, j)  # (P, n)
    mutual = (back == torch.arange(filled.shape[-2])) & value.isfinite()
    return j.to(similarity.dtype), torch.where(mutual, value.clamp(min=1e-6), 0.0)


def _least_squares(i: Tensor, j: Tensor, weight: Tensor, ratio: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted line fit (P,) through the matches (P, n); the given line where they do not determine one."""
    total = weight.sum(-1).clamp(min=1e-9)
    mean_i, mean_j = (weight * i).sum(-1) / total, (weight * j).sum(-1) / total
    spread = (weight * (i - mean_i[:, None]) ** 2).sum(-1)
    fitted = (weight * (i - mean_i[:, None]) * (j - mean_j[:, None])).sum(-1) / spread.clamp(min=1e-9)
    good = (spread > 1e-6) & (fitted >= RATIOS[0]) & (fitted <= RATIOS[1])
    return fitted.where(good, ratio), torch.where(good, mean_j - fitted * mean_i, begin)


def _along(similarity: Tensor, ratio: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Mean similarity (P,) along a line above the median of all cells, and its windows (P,)."""
    value = read_line(similarity, ratio, begin)
    above = value.nanmean(-1) - similarity.flatten(-2).nanmedian(-1).values
    return above.nan_to_num(0.0), (~value.isnan()).sum(-1).to(value.dtype)


def read_line(similarity: Tensor, ratio: Tensor, begin: Tensor) -> Tensor:
    """Similarities (P, n) of (P, n, m) along the lines j = ratio i + begin, read between the windows; NaN outside."""
    n, m = similarity.shape[-2:]
    j = ratio[:, None] * torch.arange(n, dtype=similarity.dtype) + begin[:, None]  # (P, n)
    low = j.floor().long()
    part = j - low
    pair = torch.stack([low, low + 1], -1).clamp(0, m - 1)
    left, right = similarity.gather(-1, pair).unbind(-1)
    value = torch.where(part > 1e-6, (1 - part) * left + part * right, left)
    return value.where((j > -0.5) & (j < m - 0.5), torch.nan)


def best_run(value: Tensor, length: int = 8) -> Tensor:
    """Where in values (P, n) the run of `length` that is highest on average begins, (P,); NaN is no part of a run.

    A single pair of windows can agree by chance. Where no run is so long, the longest ones decide.
    """
    run = torch.nn.functional.pad(value, (0, length - 1), value=torch.nan).unfold(-1, length, 1)  # (P, n, length)
    size = (~run.isnan()).cumprod(-1).sum(-1)  # (P, n) until the first hole
    total = run.nan_to_num(0.0).cumsum(-1).gather(-1, (size - 1).clamp(min=0)[..., None])[..., 0]
    longest = size == size.amax(-1, keepdim=True)
    return (total / size.clamp(min=1)).where(longest, -torch.inf).argmax(-1)


def align(
    vectors: Tensor,
    first: np.ndarray,
    count: np.ndarray,
    pairs: np.ndarray,
    window: float,
    hop: float,
    method: str = "lag",
    minimum: int = 3,
    share: float = 0.0,
    seed: int = 0,
    start: np.ndarray | None = None,
    turns: int = 1,
) -> dict[str, np.ndarray]:
    """`shift` in seconds, tempo `ratio`, `confidence` and `semitones` of pairs (P, 2) of recordings, (P,) each.

    A moment t of a is the moment ratio t + shift of b. `vectors` (M, D) are unit vectors of windows `hop` seconds
    apart; recording r has `count[r]` of them from `first[r]`. They begin at `start` (M,) seconds, where windows may
    be missing or lie off the grid; without it they follow each other without holes. With `turns` above 1 a is raised
    by so many semitones as its windows say, see `similarities`.
    """
    check_method(method)
    if start is not None:
        vectors, first, count = lay(vectors, first, count, start, hop)
    order = np.argsort(count[pairs].max(1), kind="stable")  # pairs of like size are padded together
    found = {name: np.zeros(len(pairs)) for name in RESULTS}
    largest = count[pairs[order]].max(1)
    tolerance = max(1.0, 0.25 * window / hop)
    for part in blocks(largest * (largest + 2 * vectors.shape[1])):
        chosen = order[part]
        cells, key = similarities(vectors, first, count, pairs[chosen], turns)
        values = (*_block(cells, method, minimum, share, tolerance, seed), in_semitones(key))
        for name, value in zip(RESULTS, values, strict=True):
            found[name][chosen] = value.double().numpy()
    # Windows answer each other by their middles: j hop + window / 2 = ratio (i hop + window / 2) + shift.
    found["shift"] = hop * found["shift"] + window / 2 * (1 - found["ratio"])
    return found


def _block(
    similarity: Tensor, method: str, minimum: int, share: float, tolerance: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    if method == "tempo":
        return line(similarity, minimum, share, tolerance, seed=seed)
    if method == "dtw":
        return warp(similarity, minimum, share)[:3]
    place, confidence = lag(similarity, minimum, share) if method == "lag" else votes(similarity, minimum)
    return torch.ones_like(place), place, confidence


def similarities(
    vectors: Tensor, first: np.ndarray, count: np.ndarray, pairs: np.ndarray, turns: int = 1
) -> tuple[Tensor, Tensor]:
    """Cosines (P, n, m) of the windows of pairs (P, 2), NaN where a recording has no window (or one that is NaN).

    And in which key (P,) the first of a pair was read, with `turns` above 1: as job=identify chooses it.
    """
    (a, real_a), (b, real_b) = (gather(vectors, first[side], count[side]) for side in pairs.T)
    return in_one_key(a, b, real_a, real_b, turns)


def check_method(method: str) -> None:
    """Raise UserError when there is no such method."""
    if method not in METHODS:
        raise UserError(f"job.method={method}{suggest(method, METHODS)}")


def lay(
    vectors: Tensor, first: np.ndarray, count: np.ndarray, start: np.ndarray, hop: float
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Vectors (M', D) with one place for every hop of every recording, their first and count (R,).

    Places without a window are NaN; windows that lie off the grid are left out.
    """
    place = places(start, hop)
    row = np.repeat(np.arange(len(count)), count)
    keep = (place >= 0) & regular(start, hop)
    size = np.zeros(len(count), np.int64)
    np.maximum.at(size, row[keep], place[keep] + 1)
    begin = np.cumsum(size) - size
    result = torch.full((int(size.sum()), vectors.shape[1]), torch.nan, dtype=vectors.dtype)
    result[torch.from_numpy((begin[row] + place)[keep])] = vectors[torch.from_numpy(keep)]
    return result, begin, size


def places(start: np.ndarray, hop: float) -> np.ndarray:
    """Place of windows on the grid of the hop: their start in hops, to the nearest whole number."""
    return np.round(start.astype(float) / hop).astype(np.int64)


def regular(start: np.ndarray, hop: float) -> np.ndarray:
    """Which windows lie on the grid of the hop; the last window of a recording may be moved back to its end."""
    return np.abs(start.astype(float) - places(start, hop) * hop) < max(2e-3, 0.01 * hop)


def same_work_pairs(
    work: np.ndarray, how: str = "all", budget: int = 100, seed: int = 0, vectors: Tensor | None = None
) -> np.ndarray:
    """Pairs (P, 2) of recordings of one work, `work` (N,) being its code and -1 unknown.

    ``all`` of them; at most `budget` a work, drawn by the seed; or all others with the ``medoid`` of the work, the
    recording that is most like the others by its vector of `vectors` (N, D).
    """
    if how not in PAIRS:
        raise UserError(f"job.pairs={how}{suggest(how, PAIRS)}")
    if how == "budget" and budget < 1:
        raise UserError(f"job.budget={budget}: must be at least 1")
    order = np.argsort(work, kind="stable")
    order = order[work[order] >= 0]
    if how == "medoid":
        assert vectors is not None
        return _to_medoid(work, order, vectors)
    _, begin, size = np.unique(work[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(begin, size)
    later = np.repeat(size, size) - 1 - place  # members of the work after this one
    left = np.repeat(np.arange(len(order)), later)
    right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(later) - later, later)
    pairs = np.stack([order[left], order[right]], 1)
    if how == "all":
        return pairs
    pairs = np.random.default_rng(seed).permutation(pairs)
    pairs = pairs[np.argsort(work[pairs[:, 0]], kind="stable")]
    _, begin, size = np.unique(work[pairs[:, 0]], return_index=True, return_counts=True)
    return pairs[np.arange(len(pairs)) - np.repeat(begin, size) < budget]


def stranger_pairs(work: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Up to `most` pairs (P, 2) of recordings of different works, `work` (N,) being their code and -1 unknown."""
    known = np.nonzero(work >= 0)[0]
    if not len(known):
        return np.empty((0, 2), np.int64)
    pairs = np.random.default_rng(seed).choice(known, (8 * most, 2))
    return pairs[work[pairs[:, 0]] != work[pairs[:, 1]]][:most]


def _to_medoid(work: np.ndarray, order: np.ndarray, vectors: Tensor) -> np.ndarray:
    names, code = np.unique(work[order], return_inverse=True)
    mine = vectors[torch.from_numpy(order)]
    total = torch.zeros(len(names), vectors.shape[1]).index_add_(0, torch.from_numpy(code), mine)  # (W, D)
    like = (mine * total[torch.from_numpy(code)]).sum(-1).numpy()  # its own part is the same for all unit vectors
    rank = np.lexsort((-like, code))
    medoid = order[rank[np.unique(code[rank], return_index=True)[1]]]  # (W,)
    pairs = np.stack([order, medoid[code]], 1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def compose(pairs: np.ndarray, found: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Alignments of all pairs of a work from those with its medoid (the second of each pair): a to medoid to b."""
    more = same_work_pairs(pairs[:, 1])  # places in `pairs`
    a, b = more.T
    ratio = found["ratio"][a] / found["ratio"][b]
    chained = {
        "shift": (found["shift"][a] - found["shift"][b]) / found["ratio"][b],
        "ratio": ratio,
        "confidence": np.minimum(found["confidence"][a], found["confidence"][b]),
        "semitones": in_semitones(found["semitones"][a] - found["semitones"][b]),
    }
    joined = {name: np.concatenate([found[name], chained[name]]) for name in chained}
    return np.concatenate([pairs, np.stack([pairs[a, 0], pairs[b, 0]], 1)]), joined


def write(
    path: Path, ids: Sequence[str], pairs: np.ndarray, found: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Write JSON Lines with id_a, id_b, the RESULTS and the `facts` (window, hop, model, floor) of each pair."""
    names = np.array([*ids, ""], dtype=object)
    columns: dict[str, Any] = {"id_a": names[pairs[:, 0]].tolist(), "id_b": names[pairs[:, 1]].tolist()}
    columns |= {name: found[name].round(4) for name in ("shift", "ratio", "confidence")}
    columns["semitones"] = found["semitones"].astype(np.int64)
    text = {"id_a": pl.String, "id_b": pl.String}
    with replacing(path) as part:
        pl.DataFrame(columns, schema_overrides=text).with_columns(
            **{k: pl.lit(v) for k, v in facts.items()}
        ).write_ndjson(part)


@dataclass(frozen=True)
class Alignment:
    """Alignments of pairs of recordings, looked up by arrays of ids.

    Args:
        ids: (N,) sorted.
        key: (P,) sorted, place of id_a times N plus place of id_b; both directions are there.
        shift, ratio, confidence: (P,) each; a moment t of a is ratio t + shift of b.
    """

    ids: np.ndarray
    key: np.ndarray
    shift: np.ndarray
    ratio: np.ndarray
    confidence: np.ndarray

    @classmethod
    def load(cls, path: str | Path, fingerprint: str | None = None, floor: float | None = 0.0) -> Alignment:
        """Read what ``job=align`` wrote; pairs below the confidence `floor`, null for the file's own, are left out.

        Raises UserError when the file is missing or malformed, or was made by a model with another `fingerprint`.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such alignment; make it with job=align ckpt=...")
        try:
            columns = ["id_a", "id_b", "shift", "ratio", "confidence", "model", *(["floor"] if floor is None else [])]
            frame = pl.read_ndjson(path).select(columns)
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{path}: not an alignment ({str(error).splitlines()[0]}); run job=align") from None
        foreign = [name for name in frame["model"].unique().sort().to_list() if fingerprint not in (None, name)]
        if foreign:
            raise UserError(f"{path}: was made by model {foreign[0]}, not by {fingerprint}; run job=align again")
        frame = frame.filter(pl.col("confidence") >= (pl.col("floor") if floor is None else floor))
        values = {name: frame[name].to_numpy() for name in ("shift", "ratio", "confidence")}
        return cls.of(frame["id_a"].to_list(), frame["id_b"].to_list(), **values)

    @classmethod
    def of(
        cls, a: Sequence[str], b: Sequence[str], shift: np.ndarray, ratio: np.ndarray, confidence: np.ndarray
    ) -> Alignment:
        """From parallel columns; the way back is added."""
        ids, code = np.unique(np.array([*a, *b], dtype=str), return_inverse=True)
        one, two = code[: len(a)], code[len(a) :]
        key = np.concatenate([one * len(ids) + two, two * len(ids) + one])
        key, chosen = np.unique(key, return_index=True)
        back = np.concatenate([shift, -shift / ratio]), np.concatenate([ratio, 1 / ratio]), np.tile(confidence, 2)
        return cls(ids, key, *(values[chosen] for values in back))

    def __len__(self) -> int:
        return len(self.key) // 2

    def lookup(self, a: Any, b: Any, start: Any, seconds: float = 0.0) -> np.ndarray:
        """Starts in b, in seconds, of the excerpts of a that begin at `start`; NaN where the pair is not aligned.

        Arrays (or single values) of ids and seconds broadcast. An excerpt of `seconds` is matched by its middle, so
        that a piece played faster or slower is met where it agrees best. The start may lie outside of b.
        """
        a, b, start = np.broadcast_arrays(np.asarray(a, dtype=str), np.asarray(b, dtype=str), np.asarray(start, float))
        place, known = self._find(self._code(a), self._code(b))
        middle = start + seconds / 2
        moved = self.ratio[place] * middle + self.shift[place] if len(self.key) else middle
        there = np.where(a == b, middle, np.where(known, moved, np.nan))
        return there - seconds / 2

    def sureness(self, a: Any, b: Any) -> np.ndarray:
        """Confidence of pairs of ids; 0 where the pair is not aligned."""
        a, b = np.broadcast_arrays(np.asarray(a, dtype=str), np.asarray(b, dtype=str))
        place, known = self._find(self._code(a), self._code(b))
        return np.where(known, self.confidence[place] if len(self.key) else 0.0, 0.0)

    def _code(self, names: np.ndarray) -> np.ndarray:
        """Place of each name in `ids`, -1 where it is not there."""
        if not len(self.ids):
            return np.full(names.shape, -1)
        place = np.searchsorted(self.ids, names).clip(max=len(self.ids) - 1)
        return np.where(self.ids[place] == names, place, -1)

    def _find(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(self.key):
            return np.zeros(a.shape, np.int64), np.zeros(a.shape, bool)
        key = a * len(self.ids) + b
        place = np.searchsorted(self.key, key).clip(max=len(self.key) - 1)
        return place, (a >= 0) & (b >= 0) & (self.key[place] == key)
