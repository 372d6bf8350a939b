"""A gap in the waveform."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform


class WaveMask(Augmentation):
    """One stretch of zeros, a fraction of the valid length drawn from ``low`` to ``high``, anywhere inside
    it.
    """

    uses_lengths = True

    def __init__(self, p: float = 0.5, low: float = 0.0, high: float = 0.3, sample_rate: int = 16000) -> None:
        """Range of the gap as a fraction of the valid length."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        self.low, self.high = low, high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Fraction that is masked and place of the gap from 0 (first) to 1 (last), each (B,)."""
        return {"fraction": uniform(x, self.low, self.high), "place": uniform(x, 0.0, 1.0)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) with round(fraction * lengths) samples set to zero."""
        width = (params["fraction"] * params["lengths"]).round()  # (B,)
        start = (params["place"] * (params["lengths"] - width + 1)).floor()  # (B,)
        n = torch.arange(x.shape[-1], device=x.device)  # (N,)
        gap = (n >= start.unsqueeze(1)) & (n < (start + width).unsqueeze(1))  # (B, N)
        return x.masked_fill(gap.unsqueeze(1), 0.0)
