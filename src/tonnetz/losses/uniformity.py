"""Alignment and uniformity on the sphere."""

from __future__ import annotations

from torch import Tensor

from tonnetz.losses.contrastive import log_sum_exp, similarity
from tonnetz.losses.metric import MetricLoss, check_positive, mean_of, pairs
from tonnetz.reductions import TINY


class AlignmentUniformity(MetricLoss):
    """Mean of d^alpha over positive pairs plus `uniformity` times log of the mean of exp(-t d^2) over negative ones.

    d is the Euclidean distance of unit vectors (Wang & Isola 2020); only vectors of different works repel. Either
    part is left out without such a pair. Another segment of the same track is a positive when `within_track`.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        t: float = 2.0,
        uniformity: float = 1.0,
        within_track: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        check_positive(alpha=alpha, t=t)
        self.alpha, self.t, self.uniformity, self.within_track = alpha, t, uniformity, within_track

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,) and tracks (N,)."""
        square = (2 - 2 * similarity(z)).clamp(min=TINY)  # (N, N), not 0, where a power has no finite slope
        positive, negative = pairs(group, row, self.within_track)
        align = mean_of(square ** (self.alpha / 2), positive)
        spread = log_sum_exp(-self.t * square.view(1, -1), negative.view(1, -1))  # (1,)
        spread = spread - negative.sum().clamp(min=1).log()
        return align + self.uniformity * mean_of(spread, negative.any())
