"""Earlier or later."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform


class TimeShift(Augmentation):
    """Shift by a fraction of the valid length, circular or filled with zeros; padding and lengths stay."""

    uses_lengths = True

    def __init__(
        self,
        p: float = 0.5,
        low: float = -0.5,
        high: float = 0.5,
        circular: bool = True,
        sample_rate: int = 16000,
    ) -> None:
        """Range of the shift as a fraction of the valid length, positive = later."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        self.low, self.high, self.circular = low, high, circular

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Shift as a fraction (B,)."""
        return {"shift": uniform(x, self.low, self.high)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), shift (B,), lengths (B,) -> x[n - round(shift * lengths)] within the lengths."""
        n = torch.arange(x.shape[-1], device=x.device)  # (N,)
        length = params["lengths"].unsqueeze(1)  # (B, 1)
        source = n - (params["shift"].unsqueeze(1) * length).round().long()  # (B, N)
        index = torch.where(n < length, source % length, n)  # (B, N)
        shifted = x.gather(-1, index.unsqueeze(1).expand_as(x))  # (B, C, N)
        if self.circular:
            return shifted
        empty = (n < length) & ((source < 0) | (source >= length))  # (B, N)
        return shifted.masked_fill(empty.unsqueeze(1), 0.0)
