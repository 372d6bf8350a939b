"""Center loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tonnetz.losses.metric import MetricLoss, check_groups, columns


class Center(MetricLoss):
    """Mean squared distance of each vector to the learnt centre of its work (Wen et al. 2016).

    `outputs` centres are kept, those beyond the works never used (CoverHunter: 30,000); null is one a work.
    """

    def __init__(self, dim: int, classes: int, outputs: int | None = None, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.classes = classes
        self.centers = nn.Parameter(torch.randn(columns(outputs, classes), dim))

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,); `row` does not matter."""
        check_groups(group, self.classes)
        return (z - self.centers[group]).square().sum(1).mean()
