"""Louder or quieter."""

from __future__ import annotations

from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform


class Gain(Augmentation):
    """Gain uniform in dB between ``low`` and ``high``; nothing is clipped."""

    def __init__(self, p: float = 0.5, low: float = -6.0, high: float = 6.0, sample_rate: int = 16000) -> None:
        """Range in dB."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        self.low, self.high = low, high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Gain in dB (B,)."""
        return {"gain": uniform(x, self.low, self.high)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) times 10 ** (gain / 20)."""
        return x * 10 ** (params["gain"].view(-1, 1, 1) / 20)
