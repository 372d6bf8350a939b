"""Triplet loss with mining in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest
from tonnetz.losses.metric import MetricLoss, mean_of, pairs
from tonnetz.reductions import check_distance, distances

MINING = ("batch_hard", "semi_hard", "random_hard")


class Triplet(MetricLoss):
    """Mean of relu(d(anchor, positive) - d(anchor, negative) + margin) over the triplets that `mining` takes.

    batch_hard: for each anchor the farthest positive and the nearest negative (Hermans et al. 2017); random_hard: a
    random positive and the nearest negative; semi_hard: for each positive pair the nearest negative beyond the
    positive, or the farthest when none is beyond (Schroff et al. 2015). Anchors without both are left out.
    Another segment of the same track is a positive when `within_track`, else it is neither.
    """

    def __init__(
        self,
        margin: float = 0.3,
        mining: str = "batch_hard",
        distance: str = "euclidean",
        within_track: bool = True,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if mining not in MINING:
            raise UserError(f"mining: '{mining}' is unknown{suggest(mining, MINING)}")
        check_distance(distance)
        self.margin, self.mining, self.distance, self.within_track = margin, mining, distance, within_track

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,) and tracks (N,)."""
        d = distances(z, z, self.distance)  # (N, N)
        positive, negative = pairs(group, row, self.within_track)
        if self.mining == "semi_hard":
            near, far, used = d, _semi_hard(d, negative), positive & negative.any(1, keepdim=True)
        else:
            near = _random(d, positive) if self.mining == "random_hard" else _farthest(d, positive)
            far = d.masked_fill(~negative, torch.inf).amin(1)
            used = positive.any(1) & negative.any(1)  # (N,)
        gap = torch.where(used, near, 0.0) - torch.where(used, far, 0.0)  # without infinities
        return mean_of((gap + self.margin).relu(), used)


def _farthest(d: Tensor, positive: Tensor) -> Tensor:
    return d.masked_fill(~positive, -torch.inf).amax(1)


def _random(d: Tensor, positive: Tensor) -> Tensor:
    """Distance (N,) to a random positive of each anchor; to anything when it has none."""
    draw = torch.rand_like(d).masked_fill(~positive, -1.0)
    return d.gather(1, draw.argmax(1, keepdim=True))[:, 0]


def _semi_hard(d: Tensor, negative: Tensor) -> Tensor:
    """For each pair (a, p): the smallest distance (N, N) of a to a negative beyond p, else that to its farthest."""
    ranked = d.masked_fill(~negative, torch.inf).sort(1).values  # (N, N)
    beyond = torch.searchsorted(ranked.detach(), d.detach().contiguous(), right=True)
    last = negative.sum(1, keepdim=True) - 1
    return ranked.gather(1, torch.minimum(beyond, last).clamp(min=0))
