"""Another tone colour."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.filter import frequencies, shape_spectrum


class Equalizer(Augmentation):
    """Seven-band equaliser: gains in dB at seven centres, linear over log frequency between them, zero phase.

    The centres lie geometrically between 60 Hz and 0.4 of the sample rate; beyond the outer two the gain
    stays.
    """

    bands = 7

    def __init__(self, p: float = 0.5, low: float = -6.0, high: float = 6.0, sample_rate: int = 16000) -> None:
        """Range of each band's gain in dB."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        self.low, self.high = low, high

    def centres(self) -> Tensor:
        """Band centres in Hz (7,)."""
        return torch.logspace(math.log10(60.0), math.log10(0.4 * self.sample_rate), self.bands)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Gains in dB (B, 7)."""
        return {"gains": uniform(x, self.low, self.high, self.bands)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), gains (B, 7) -> equalised x."""
        centres = self.centres().to(x.device).log()  # (7,)
        log_f = frequencies(x, self.sample_rate).clamp(min=1.0).log()  # (F,)
        position = ((log_f - centres[0]) / (centres[1] - centres[0])).clamp(0, self.bands - 1)  # (F,)
        band = torch.arange(self.bands, device=x.device).unsqueeze(1)  # (7, 1)
        weights = (1 - (position - band).abs()).clamp(min=0)  # (7, F) hats that sum to one
        return shape_spectrum(x, 10 ** (params["gains"] @ weights / 20))  # (B, C, N)
