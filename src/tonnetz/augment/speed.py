"""Faster and higher, or slower and lower, like a tape."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.filter import GUARD
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.pitch import interpolate
from tonnetz.augment.response import fast_size


class Speed(Augmentation):
    """The ``speed`` effect of SoX: tempo and pitch together, by resampling.

    Frequencies that would pass half the sample rate are left out; the signal is then read at twice the rate, so that
    cubic interpolation is enough. N samples stay N: what runs over is cut off at the end, what is missing is zero.
    ``lengths`` follow as ceil(lengths / factor), at most N.
    """

    def __init__(self, p: float = 0.5, factor: Normal = (1.0, 0.125, 0.75, 1.25), sample_rate: int = 16000) -> None:
        """Draw of the factor, within 0.1 to 10; above 1 is faster."""
        super().__init__(p, sample_rate)
        self.factor = check_normal(self, "factor", factor, 0.1, 10)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Factor (B,)."""
        return {"factor": normal(x, self.factor)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), factor (B,) -> resampled x (B, C, N)."""
        batch, channels, size = x.shape
        factor = params["factor"].repeat_interleave(channels).unsqueeze(1)  # (B C, 1)
        fft = fast_size(size + GUARD)
        spectrum = torch.fft.rfft(x.reshape(-1, size).float(), n=fft)  # (B C, F)
        keep = torch.arange(spectrum.shape[1], device=x.device) * factor <= fft // 2  # (B C, F)
        double = torch.fft.irfft(spectrum * (2.0 * keep), n=2 * fft)  # (B C, 2 fft) at twice the rate
        double[:, 2 * size :] = 0
        position = 2 * torch.arange(size, device=x.device) * factor  # (B C, N)
        return interpolate(double, position).reshape(batch, channels, size)

    def measure(self, lengths: Tensor, size: int, **params: Tensor) -> Tensor:
        """ceil(lengths / factor), between 1 and ``size`` samples, (B,)."""
        return (lengths / params["factor"]).ceil().long().clamp(1, max(size, 1))
