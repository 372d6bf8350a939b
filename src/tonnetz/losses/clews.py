"""CLEWS: best-matching segments of versions attract, the nearest segments of other works repel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.losses.metric import MetricLoss, check_positive, mean_of, pairs
from tonnetz.reductions import check_distance, check_reduction, distances, reduce


class CLEWS(MetricLoss):
    """Mean over positive pairs of tracks of R+(d) plus log(eps + mean over negative pairs of exp(-gamma R-(d))).

    The reduction `positive`, R+, makes one number of the distances between the segments of two versions of a work,
    `negative`, R-, of two tracks of different works (Serra et al. 2025). Without a negative pair the logarithm is
    left out. Another excerpt of the same recording is a positive when `within_track`, else it is neither.
    """

    def __init__(
        self,
        gamma: float = 5.0,
        eps: float = 1e-6,
        positive: str = "bpwr-5",
        negative: str = "min",
        distance: str = "squared",
        within_track: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        check_positive(gamma=gamma, eps=eps)
        check_distance(distance)
        check_reduction(positive)
        check_reduction(negative)
        self.gamma, self.log_eps, self.distance, self.within_track = gamma, math.log(eps), distance, within_track
        self.positive, self.negative = positive, negative

    def segments(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor) -> Tensor:
        """Scalar loss of z (B, S, D) with works (B,), tracks (B,) and valid segments (B, S)."""
        some = valid.any(1)  # (B,)
        z, group, row, valid = z[some], group[some], row[some], valid[some]
        if not len(z):
            return z.sum()
        d = self._distances(z)  # (B, B, S, S)
        positive, negative = pairs(group, row, self.within_track)
        return self._align(d, positive, valid) + self._contrast(d, negative, valid)

    def _distances(self, z: Tensor) -> Tensor:
        """Distances (B, B, S, S) of all segments of all tracks (B, S, D)."""
        tracks, size, _ = z.shape
        flat = z.flatten(0, 1)  # (B S, D)
        return distances(flat, flat, self.distance).view(tracks, size, tracks, size).transpose(1, 2)

    def _align(self, d: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        a, b = positive.nonzero(as_tuple=True)  # (P,) few pairs, reduced alone
        return reduce(d[a, b], self.positive, valid[a], valid[b]).sum() / max(len(a), 1)

    def _contrast(self, d: Tensor, negative: Tensor, valid: Tensor) -> Tensor:
        near = reduce(d, self.negative, valid[:, None], valid[None])  # (B, B)
        score = (-self.gamma * near).masked_fill(~negative, torch.finfo(d.dtype).min / 4)
        mean = score.flatten().logsumexp(0) - negative.sum().clamp(min=1).log()
        cost = torch.logaddexp(mean, mean.new_full((), self.log_eps))
        return mean_of(cost, negative.any())
