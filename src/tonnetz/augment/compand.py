"""More contrast between loud and quiet."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.normal import Normal, check_normal, normal


class Compand(Augmentation):
    """The ``contrast`` effect of SoX: y = sin(pi x / 2 + amount / 750 * sin(2 pi x)), which makes it sound louder.

    What is beyond -1 ... 1 is clipped first. Draws are [mean, deviation, lowest, highest], as in all these effects.
    """

    def __init__(self, p: float = 0.5, amount: Normal = (75.0, 20.0, 0.0, 100.0), sample_rate: int = 16000) -> None:
        """Draw of the amount, within 0 to 100."""
        super().__init__(p, sample_rate)
        self.amount = check_normal(self, "amount", amount, 0, 100)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Amount (B,)."""
        return {"amount": normal(x, self.amount)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), amount (B,) -> y of the same shape."""
        x = x.clamp(-1, 1)
        return torch.sin(math.pi / 2 * x + params["amount"].view(-1, 1, 1) / 750 * torch.sin(2 * math.pi * x))
