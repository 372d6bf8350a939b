"""Center loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tonnetz.losses.metric import MetricLoss, check_groups


class Center(MetricLoss):
    """Mean squared distance of each vector to the learnt centre of its work (Wen et al. 2016)."""

    def __init__(self, dim: int, classes: int, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.centers = nn.Parameter(torch.randn(classes, dim))

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,); `row` does not matter."""
        check_groups(group, len(self.centers))
        return (z - self.centers[group]).square().sum(1).mean()
