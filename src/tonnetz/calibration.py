"""What does a distance mean? Distances of unrelated recordings turn it into a z-score, a p-value and a yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor
from torch.nn import functional as F

from tonnetz.centroids import members, point_distances, recording_vectors
from tonnetz.collection import Collection
from tonnetz.errors import UserError
from tonnetz.rejection import equal_error
from tonnetz.search import CANDIDATES, nearest_tempo, scores
from tonnetz.shortlist import Shortlist
from tonnetz.transposition import turned
from tonnetz.windows import CELLS, blocks, crops

SEED = 12345
STEP = 1.25  # ratio of the query lengths that are measured
LEAST = 1e-6  # chance of a try
SHORT = 0.8  # of the usual length: shorter recordings do not tell what whole ones find
WHOLE, CENTROIDS = 0, -1  # levels of whole recordings and of works; others are numbers of query windows
PAIRS = 50_000
WORK = 2e10  # multiplications that the pairs, and that the strangers, of one level may take, about
EXHAUSTIVE = 2000  # recordings up to which all pairs are listed


@dataclass(frozen=True)
class Calibration:
    """Distances that occur without kinship.

    Args:
        pairs: (n,) sorted, of two recordings of different works.
        nearest: (k,) sorted, of a recording and the nearest one of another work: the best match of a stranger.
        kin: (g,) sorted, of a recording and the nearest other one of its work.
        tries: how many such recordings a query is as long as; its nearest piece counts.
    """

    pairs: np.ndarray
    nearest: np.ndarray
    kin: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tries: float = 1.0

    @classmethod
    def of(cls, nulls: Mapping[str, Tensor], level: int) -> Calibration | None:
        """The one of a level of what `calibrate` found; None without it."""
        levels = nulls["null_level"].tolist() if nulls else []
        if level not in levels:
            return None
        rows = (nulls[f"null_{name}"][levels.index(level)].numpy() for name in ("pairs", "nearest", "kin"))
        return cls(*(values[np.isfinite(values)] for values in rows))

    @property
    def mean(self) -> float:
        """Mean distance of unrelated recordings."""
        return float(self.pairs.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation of the distances of unrelated recordings."""
        return float(self.pairs.std(ddof=1)) if len(self.pairs) > 1 else 0.0

    def z(self, distance: np.ndarray) -> np.ndarray:
        """Deviations above the mean; strongly negative is near. 0 when all unrelated distances are equal."""
        deviation = self.deviation
        return (np.asarray(distance) - self.mean) / deviation if deviation else np.zeros_like(distance, float)

    def p(self, distance: np.ndarray) -> np.ndarray:
        """Share of unrelated recordings that are as near, (k + 1) / (n + 1): monotone, never below 1 / (n + 1)."""
        return self._of_all(_rank(self.pairs, distance))

    def chance(self, distance: np.ndarray) -> np.ndarray:
        """Probability that the best match of a recording without kin in the index is as near.

        Of one try it is never below 1 / (k + 1); of many, each has the tail that `threshold` takes below that, down to
        what no normal distribution is to be trusted with.
        """
        each = _rank(self.nearest, distance)
        if self.tries == 1 or len(self.nearest) < 2:
            return self._of_all(each)
        tail = ndtr((distance - self.nearest.mean()) / max(self.nearest.std(ddof=1), 1e-12)).clip(LEAST)
        return self._of_all(np.where(distance < self.nearest[0], np.minimum(tail, each), each))

    def _of_all(self, chance: np.ndarray) -> np.ndarray:
        """Probability that one try of all succeeds, from that of each."""
        return chance if self.tries == 1 else -np.expm1(self.tries * np.log1p(-np.minimum(chance, 1 - 1e-12)))

    def equal(self) -> float:
        """Distance at which as many kin are refused as strangers accepted; NaN without either."""
        return equal_error(self.kin, self.nearest, self.tries)[0]

    def threshold(self, p: float) -> float:
        """Largest distance at which a recording without kin finds a match with probability `p` at most.

        Below what so many recordings resolve, 1 / (k + 1), the tail of a normal distribution stands in.
        """
        if not 0 < p <= 1:
            raise UserError(f"job.p={p}: must be more than 0 and at most 1")
        p = p if self.tries == 1 else -np.expm1(np.log1p(-min(p, 1 - 1e-12)) / self.tries)  # of each try
        k = int(np.floor(p * (len(self.nearest) + 1) + 1e-9)) - 1  # strangers that may be as near
        if k >= len(self.nearest):
            return float("inf")
        if k >= 0:
            return float(np.nextafter(self.nearest[k], -np.inf))
        if not len(self.nearest):
            return float("nan")
        deviation = float(self.nearest.std(ddof=1)) if len(self.nearest) > 1 else 0.0
        tail = float(self.nearest.mean()) + deviation * NormalDist().inv_cdf(p)
        return min(tail, float(np.nextafter(self.nearest[0], -np.inf)))  # nearer than any stranger was


def _rank(null: np.ndarray, distance: np.ndarray) -> np.ndarray:
    return (np.searchsorted(null, distance, side="right") + 1) / (len(null) + 1)


def unrelated_pairs(work: np.ndarray, count: int = PAIRS, seed: int = SEED) -> np.ndarray:
    """Up to `count` distinct pairs (n, 2) of recordings of different works, in random order and direction.

    `work` (N,) is a code; recordings whose work is unknown (-1) take no part: they may be covers of any other.
    """
    random = np.random.default_rng(seed)
    rows = np.flatnonzero(work >= 0)
    if len(np.unique(work[rows])) < 2:
        return np.zeros((0, 2), np.int64)
    if len(rows) <= EXHAUSTIVE:
        a, b = (rows[side] for side in np.triu_indices(len(rows), 1))
        different = np.flatnonzero(work[a] != work[b])
        chosen = random.permutation(different)[:count]
        pairs = np.stack([a[chosen], b[chosen]], 1)
    else:
        drawn = rows[random.integers(len(rows), size=(2 * count, 2))]
        drawn = np.sort(drawn[work[drawn[:, 0]] != work[drawn[:, 1]]], 1)
        unique, first = np.unique(drawn, axis=0, return_index=True)
        pairs = unique[np.argsort(first)][:count]
    flip = random.random(len(pairs)) < 0.5
    return np.where(flip[:, None], pairs[:, ::-1], pairs)


def calibrate(index: Collection, level: int = WHOLE, faiss: bool | None = None) -> dict[str, Tensor]:
    """Measure an index by its own recordings: for queries of `level` windows, or for whole ones and for centroids.

    Fewer windows find a worse best match, so short queries have scales of their own, and recordings that are shorter
    than the queries ask nothing here. The nearest ones are searched for as queries are (`faiss`, see `search`); all of
    a large index is asked by fewer recordings. Returns `null_level` (L,), and sorted `null_pairs` (L, n),
    `null_nearest` and `null_kin` (L, k), infinite where there is none; {} when fewer than two works are known.
    """
    random = np.random.default_rng(SEED)
    typical = typical_windows(index)
    tries = index.matching.turns * len(index.tempi)
    cost = typical * (level or typical) * max(index.windows.vectors.shape[1], 64) * tries  # of a comparison
    pairs = unrelated_pairs(index.work, int(np.clip(WORK / cost, 1000, PAIRS)))
    if not len(pairs):
        return {}
    pairs, able = _asking(pairs, index.windows.count >= (level or SHORT * typical))
    quick = Shortlist.wanted(faiss, len(index.windows.row))
    candidates = min(len(index), CANDIDATES) if quick else len(index)
    probes = random.permutation(able)[: int(np.clip(WORK / (cost * candidates), 30, 1000))]
    levels, found = [level], [_recordings(index, pairs, probes, level or None, random, quick)]
    if level == WHOLE and len(index.works) > 1:
        levels, found = [*levels, CENTROIDS], [*found, _centroids(index, pairs, probes)]
    unrelated, nearest, kin = (torch.from_numpy(np.sort(np.stack(column), 1)) for column in zip(*found, strict=True))
    return {"null_level": torch.tensor(levels), "null_pairs": unrelated, "null_nearest": nearest, "null_kin": kin}


def _asking(pairs: np.ndarray, long: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (n, 2) whose first recording is `long` (R,), flipped where need be, and all such recordings in them.

    All of both where no recording is.
    """
    known = np.unique(pairs)
    flipped = np.where(long[pairs[:, :1]] | ~long[pairs[:, 1:]], pairs, pairs[:, ::-1])
    able = long[flipped[:, 0]]
    return (flipped[able], known[long[known]]) if able.any() else (pairs, known)


def typical_windows(index: Collection) -> int:
    """Median number of windows of a recording."""
    return int(np.median(index.windows.count)) if len(index) else 1


def level_of(index: Collection, windows: int) -> int:
    """The level for queries of so many windows: steps of a quarter, and whole recordings from the median on."""
    if windows >= typical_windows(index):
        return WHOLE
    return windows if windows < 5 else int(5 * STEP ** np.floor(np.log(windows / 5) / np.log(STEP) + 1e-9))


def _recordings(
    index: Collection,
    pairs: np.ndarray,
    probes: np.ndarray,
    windows: int | None,
    random: np.random.Generator,
    faiss: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances of unrelated pairs, and of each probe to its nearest stranger and nearest kin.

    The first of a pair, and the probe, is cut to `windows` neighbours at a random place, and asks at all tempi.
    """
    first, count = crops(index.windows.first, index.windows.count, windows, random)
    unrelated = np.empty(len(pairs), np.float32)
    order = np.argsort(count[pairs[:, 0]], kind="stable")
    for part in blocks(count[pairs[order, 0]] * index.windows.vectors.shape[1] * len(index.tempi)):
        chosen = order[part]
        mine, other = pairs[chosen].T
        queries, valid = index.asking(mine, first[mine], count[mine])
        unrelated[chosen] = nearest_tempo(index, queries, valid, np.arange(len(chosen)), other)[1]
    work = index.work
    nearest, kin = [], []
    step = max(1, CELLS // (8 * len(index)))
    for begin in range(0, len(probes), step):
        mine = probes[begin : begin + step]
        distance, rows = scores(index, *index.asking(mine, first[mine], count[mine]), faiss)  # (q, C)
        rows = np.broadcast_to(np.arange(len(index)), distance.shape) if rows is None else rows
        same = work[mine][:, None] == work[rows]
        nearest.append(np.where(same | (work[rows] < 0), np.inf, distance).min(1))  # the unknown may be kin
        same &= rows != mine[:, None]
        kin.append(np.where(same, distance, np.inf).min(1))
    return unrelated, np.concatenate(nearest), np.concatenate(kin)


def _to_own(index: Collection, asked: Tensor, rows: np.ndarray, points: Tensor) -> Tensor:
    """Distances (n,) of recordings `rows` (n,), asking with (T, R, D), each to a point of its own (n, D)."""
    turns = index.matching.turns
    step = max(1, CELLS // (12 * len(asked) * asked.shape[2]))
    parts = [torch.zeros(0)]
    for part in (slice(begin, begin + step) for begin in range(0, len(rows), step)):
        tried = turned(asked[:, rows[part]], turns)  # (turns, T, p, D)
        parts.append(1 - (tried * points[part]).sum(-1).amax((0, 1)))
    return torch.cat(parts)


def _centroids(index: Collection, pairs: np.ndarray, probes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from recordings to works; kin is the centroid of the own work without the probe."""
    turns = index.matching.turns
    work, centroids, points = index.work, index.centroids().vectors, members(index.work, index.windows, turns)
    asked = torch.stack([recording_vectors(windows) for windows in index.asked])  # (T, R, D)
    unrelated = _to_own(index, asked, pairs[:, 0], centroids[work[pairs[:, 1]]])
    own = torch.from_numpy(work[probes])
    distance = point_distances(asked[:, probes], centroids, turns).scatter(1, own[:, None], torch.inf)  # (q, W)
    known = np.flatnonzero(work >= 0)
    total = torch.zeros_like(centroids).index_add_(0, torch.from_numpy(work[known]), points[known])
    kin = _to_own(index, asked, probes, F.normalize(total[own] - points[probes], dim=-1))
    alone = torch.bincount(torch.from_numpy(work[known]))[own] < 2
    return unrelated.numpy(), distance.amin(1).numpy(), kin.masked_fill(alone, torch.inf).numpy()
