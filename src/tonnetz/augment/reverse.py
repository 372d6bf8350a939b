"""Back to front."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation


class TimeReverse(Augmentation):
    """The valid samples in reverse order; padding stays at the end."""

    uses_lengths = True

    def __init__(self, p: float = 0.5, sample_rate: int = 16000) -> None:
        """Probability per example."""
        super().__init__(p, sample_rate)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), lengths (B,) -> x[lengths - 1 - n] within the lengths."""
        n = torch.arange(x.shape[-1], device=x.device)  # (N,)
        length = params["lengths"].unsqueeze(1)  # (B, 1)
        index = torch.where(n < length, length - 1 - n, n)  # (B, N)
        return x.gather(-1, index.unsqueeze(1).expand_as(x))
