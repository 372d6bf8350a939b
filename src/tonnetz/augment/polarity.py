"""Upside down."""

from __future__ import annotations

from torch import Tensor

from tonnetz.augment.base import Augmentation


class Polarity(Augmentation):
    """Inverted polarity: -x."""

    def __init__(self, p: float = 0.5, sample_rate: int = 16000) -> None:
        """Probability per example."""
        super().__init__(p, sample_rate)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) -> -x."""
        return -x
