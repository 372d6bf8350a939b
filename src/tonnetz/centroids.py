"""Works as points: the spherical means of their recordings, and how near a query is to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.reductions import TINY
from tonnetz.transposition import turn_towards, turned
from tonnetz.windows import Windows

if TYPE_CHECKING:
    from tonnetz.index import Index


@dataclass(frozen=True)
class Centroids:
    """One unit vector a work (W, D), spherical mean of its recordings, with its coherence and radius (W,)."""

    works: list[str]
    vectors: Tensor
    coherence: Tensor  # length of the mean of the unit vectors: 1 when they all agree
    radius: Tensor  # mean + 1.5 deviations of the members' distances
    recordings: np.ndarray


def members(index: Index) -> Tensor:
    """One unit vector a recording (R, D), in the key in which it is most like the first recording of its work."""
    vectors, work = recording_vectors(index), index.work
    first = np.arange(len(work))
    names, place, inverse = np.unique(work, return_index=True, return_inverse=True)
    first = np.where(work >= 0, place[inverse], first) if len(names) else first
    return turn_towards(vectors, vectors[torch.from_numpy(first)], index.matching.turns)[0]


def recording_vectors(index: Index, windows: Windows | None = None) -> Tensor:
    """One unit vector a recording (R, D): the mean of its windows, at its own tempo unless others are given."""
    windows = windows or index.windows
    total = torch.zeros(len(index), windows.vectors.shape[1])
    return F.normalize(total.index_add_(0, torch.from_numpy(windows.row), windows.vectors), dim=-1, eps=TINY)


def average(index: Index) -> Centroids:
    """The works' spherical means. One whose recordings cancel out is its first recording, with coherence 0."""
    known = np.flatnonzero(index.work >= 0)
    code = torch.from_numpy(index.work[known])
    works, mine = index.works, members(index)[torch.from_numpy(known)]
    count = torch.bincount(code, minlength=len(works))
    mean = torch.zeros(len(works), mine.shape[1]).index_add_(0, code, mine) / count[:, None]
    coherence = mean.norm(dim=1)
    first = torch.from_numpy(np.unique(code.numpy(), return_index=True)[1])
    lost = coherence < 1e-6
    vectors = torch.where(lost[:, None], mine[first], F.normalize(mean, dim=-1, eps=TINY))
    distance = 1 - (mine * vectors[code]).sum(-1)
    one = torch.zeros(len(works)).index_add_(0, code, distance) / count
    two = torch.zeros(len(works)).index_add_(0, code, (distance - one[code]) ** 2) / count
    radius = one + 1.5 * two.sqrt()
    return Centroids(works, vectors, coherence.where(~lost, 0.0), radius.clamp(min=0), count.numpy())


def centroid_distances(index: Index, queries: Tensor, valid: Tensor) -> Tensor:
    """Cosine distances (Q, W) of the mean of each query's unit vectors ([T,] Q, S, D) to the centroids.

    Of several tempi the nearest counts, as in `search`.
    """
    centroids = index.centroids()
    if not centroids.works:
        raise UserError(f"{index.folder}: no recording has a work; give job.works=FILE.csv, or job.mode=recordings")
    means = mean_vectors(queries, valid)
    return point_distances(index, means if queries.ndim == 4 else means[None], centroids.vectors)


def point_distances(index: Index, asked: Tensor, points: Tensor) -> Tensor:
    """Cosine distances (Q, W) of unit vectors (T, Q, D), at the nearest tempo and in the nearest key, to (W, D)."""
    return 1 - (turned(asked, index.matching.turns) @ points.T).amax((0, 1))


def mean_vectors(queries: Tensor, valid: Tensor) -> Tensor:
    """Unit means (..., D) of the unit vectors of queries (..., S, D)."""
    unit = F.normalize(queries.float(), dim=-1, eps=TINY) * valid[..., None]
    return F.normalize(unit.sum(-2), dim=-1, eps=TINY)
