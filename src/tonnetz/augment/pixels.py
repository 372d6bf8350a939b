"""Single points of the features hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.fill import check_fill, fill_value


class RandomPixels(Augmentation):
    """Each point is filled with a probability that is drawn for the example, in all its channels at once."""

    key = "features"

    def __init__(self, p: float = 0.5, low: float = 0.0, high: float = 0.3, fill: str = "min") -> None:
        """Range of the probability, and ``fill``: the example's ``min`` or ``mean``."""
        super().__init__(p)
        check_order(self, low, high)
        check_fill(self, fill)
        self.low, self.high, self.fill = low, high, fill

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Which points are hidden, (B, 1, F, T) bool."""
        rate = uniform(x, self.low, self.high, 1, 1, 1)  # (B, 1, 1, 1)
        return {"hidden": torch.rand(len(x), 1, *x.shape[-2:], device=x.device) < rate}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T) with the hidden points filled."""
        return torch.where(params["hidden"], fill_value(x, self.fill), x)
