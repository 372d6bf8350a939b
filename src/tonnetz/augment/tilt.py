"""Another tone colour in the features."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.errors import UserError


class SpectralEqualizer(Augmentation):
    """Gains at ``bands`` bins from the lowest to the highest, linear between them, added: for features in dB.

    Two bands are a gain with a tilt, more are an equaliser; one band is a gain alone.
    """

    key = "features"
    decibels = True

    def __init__(self, p: float = 0.5, low: float = -6.0, high: float = 6.0, bands: int = 2) -> None:
        """Range of each gain in dB, and how many there are."""
        super().__init__(p)
        check_order(self, low, high)
        if bands < 1:
            raise UserError(f"augment SpectralEqualizer.bands: {bands} bands change nothing; use 1 or more")
        self.low, self.high, self.bands = low, high, bands

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Gains in dB (B, bands)."""
        return {"gains": uniform(x, self.low, self.high, self.bands)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T), gains (B, bands) -> x plus the curve over its bins."""
        position = torch.linspace(0, self.bands - 1, x.shape[-2], device=x.device)  # (F,)
        band = torch.arange(self.bands, device=x.device).unsqueeze(1)  # (bands, 1)
        weights = (1 - (position - band).abs()).clamp(min=0)  # (bands, F) hats that sum to one
        return x + (params["gains"] @ weights)[:, None, :, None]
