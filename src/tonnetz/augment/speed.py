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
        double = doubled(x.reshape(-1, size), factor)  # (B C, M) at twice the rate
        position = 2 * torch.arange(size, device=x.device) * factor  # (B C, N)
        return interpolate(double, position).reshape(batch, channels, size)

    def measure(self, lengths: Tensor, size: int, **params: Tensor) -> Tensor:
        """ceil(lengths / factor), between 1 and ``size`` samples, (B,)."""
        return (lengths / params["factor"]).ceil().long().clamp(1, max(size, 1))


def doubled(x: Tensor, ratio: Tensor) -> Tensor:
    """x (B, N) at twice the rate, without what passes half the rate at ``ratio`` (B, 1) times the frequency: (B, M).

    Zero from 2 N on.
    """
    fft = fast_size(x.shape[1] + GUARD)
    spectrum = torch.fft.rfft(x.float(), n=fft)  # (B, F)
    keep = torch.arange(spectrum.shape[1], device=x.device) * ratio <= fft // 2  # (B, F)
    double = torch.fft.irfft(spectrum * (2.0 * keep), n=2 * fft)  # (B, M)
    double[:, 2 * x.shape[1] :] = 0
    return double
