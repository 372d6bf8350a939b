"""Faster or slower in the features."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order
from tonnetz.errors import UserError


class SpectralStretch(Augmentation):
    """Features read at ``rate`` times the speed by linear interpolation, rate log-uniform; T frames stay T
    frames.

    What runs over is cut off; what is missing is the example's minimum. ``lengths`` may be in samples or
    frames: ceil(lengths / rate), at most the longest of the batch.
    """

    key = "features"

    def __init__(self, p: float = 0.5, low: float = 0.8, high: float = 1.25) -> None:
        """Range of the rate (> 0); above 1 is faster."""
        super().__init__(p)
        check_order(self, low, high)
        if low <= 0:
            raise UserError(f"augment SpectralStretch.low: {low} is no rate; use one above 0")
        self.low, self.high = low, high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Rate (B,)."""
        return {"rate": self.low * (self.high / self.low) ** torch.rand(len(x), device=x.device)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T), rate (B,) -> x at frame t * rate."""
        last = x.shape[-1] - 1
        time = torch.arange(last + 1, device=x.device) * params["rate"].unsqueeze(1)  # (B, T)
        left = time.floor().clamp(max=last).long()  # (B, T)
        right = (left + 1).clamp(max=last)
        fraction = (time - left).clamp(0, 1).to(x.dtype)[:, None, None]  # (B, 1, 1, T)
        index = torch.stack([left, right])[:, :, None, None].expand(2, *x.shape)  # (2, B, C, F, T)
        stretched = torch.lerp(x.gather(-1, index[0]), x.gather(-1, index[1]), fraction)  # (B, C, F, T)
        return torch.where((time > last)[:, None, None], x.amin((-2, -1), keepdim=True), stretched)

    def measure(self, lengths: Tensor, size: int, **params: Tensor) -> Tensor:
        """ceil(lengths / rate), between 1 and ``size``, (B,)."""
        return (lengths / params["rate"]).ceil().long().clamp(1, max(size, 1))
