"""Overdriven."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform


class Clipping(Augmentation):
    """Hard clipping at a fraction of the example's peak."""

    def __init__(self, p: float = 0.5, low: float = 0.3, high: float = 0.9, sample_rate: int = 16000) -> None:
        """Range of the threshold as a fraction of the peak."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        self.low, self.high = low, high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Threshold as a fraction of the peak (B,)."""
        return {"threshold": uniform(x, self.low, self.high)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) clamped to +- threshold * peak."""
        limit = params["threshold"].view(-1, 1, 1) * x.abs().amax((1, 2), keepdim=True)  # (B, 1, 1)
        return torch.maximum(torch.minimum(x, limit), -limit)
