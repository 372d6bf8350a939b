"""Circle loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tonnetz.losses.contrastive import log_sum_exp, similarity
from tonnetz.losses.metric import MetricLoss, check_positive, mean_of, pairs


class Circle(MetricLoss):
    """Circle loss (Sun et al. 2020) on cosines s, mean over the anchors that have a positive and a negative.

    log(1 + sum_n exp(gamma a_n (s_n - margin)) sum_p exp(-gamma a_p (s_p - 1 + margin))) with the weights
    a_n = relu(s_n + margin) and a_p = relu(1 + margin - s_p), which pass no gradient: pairs far from their optimum
    count most. Another segment of the same track is a positive when `within_track`, else it is left out.
    """

    def __init__(
        self, margin: float = 0.4, gamma: float = 80.0, within_track: bool = False, weight: float = 1.0
    ) -> None:
        super().__init__(weight)
        check_positive(margin=margin, gamma=gamma)
        self.margin, self.gamma, self.within_track = margin, gamma, within_track

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,) and tracks (N,)."""
        s = similarity(z)  # (N, N)
        positive, negative = pairs(group, row, self.within_track)
        pull = -self.gamma * (1 + self.margin - s.detach()).relu() * (s - 1 + self.margin)
        push = self.gamma * (s.detach() + self.margin).relu() * (s - self.margin)
        cost = F.softplus(log_sum_exp(pull, positive) + log_sum_exp(push, negative))  # (N,)
        return mean_of(cost, positive.any(1) & negative.any(1))
