"""Works as points: the spherical means of their recordings, and how near a query is to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.reductions import TINY
from tonnetz.transposition import turn_towards, turned
from tonnetz.windows import Windows


@dataclass(frozen=True)
class Centroids:
    """One unit vector a work (W, D), spherical mean of its recordings, with its coherence and radius (W,)."""

    works: list[str]
    vectors: Tensor
    coherence: Tensor  # length of the mean of the unit vectors: 1 when they all agree
    radius: Tensor  # mean + 1.5 deviations of the members' distances
    recordings: np.ndarray


def members(work: np.ndarray, windows: Windows, turns: int) -> Tensor:
    """One unit vector a recording (R, D), in the key in which it is most like the first recording of its work.

    `work` (R,) is the place of its work, -1 for none; `turns` is the number of keys that are tried.
    """
    vectors = recording_vectors(windows)
    first = np.arange(len(work))
    names, place, inverse = np.unique(work, return_index=True, return_inverse=True)
    first = np.where(work >= 0, place[inverse], first) if len(names) else first
    return turn_towards(vectors, vectors[torch.from_numpy(first)], turns)[0]


def recording_vectors(windows: Windows) -> Tensor:
    """One unit vector a recording (R, D): the mean of its windows."""
    total = torch.zeros(len(windows.count), windows.vectors.shape[1])
    return F.normalize(total.index_add_(0, torch.from_numpy(windows.row), windows.vectors), dim=-1, eps=TINY)


def average(works: list[str], work: np.ndarray, windows: Windows, turns: int) -> Centroids:
    """The spherical means of `works`. One whose recordings cancel out is its first recording, with coherence 0."""
    known = np.flatnonzero(work >= 0)
    code = torch.from_numpy(work[known])
    mine = members(work, windows, turns)[torch.from_numpy(known)]
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


def point_distances(asked: Tensor, points: Tensor, turns: int) -> Tensor:
    """Cosine distances (Q, W) of unit vectors (T, Q, D), at the nearest tempo and in the nearest key, to (W, D)."""
    return 1 - (turned(asked, turns) @ points.T).amax((0, 1))


def mean_vectors(queries: Tensor, valid: Tensor) -> Tensor:
    """Unit means (..., D) of the unit vectors of queries (..., S, D)."""
    unit = F.normalize(queries.float(), dim=-1, eps=TINY) * valid[..., None]
    return F.normalize(unit.sum(-2), dim=-1, eps=TINY)
