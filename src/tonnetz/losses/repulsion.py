"""Strangers made orthogonal."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tonnetz.losses.metric import MetricLoss, mean_of, pairs


class Repulsion(MetricLoss):
    """Mean squared cosine of vectors of different works (the term beside the triplets of DVINet+, arXiv:2502.16936)."""

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,); `row` does not matter."""
        unit = F.normalize(z, dim=1)
        _, negative = pairs(group, row)  # (N, N)
        return mean_of((unit @ unit.mT).square(), negative)
