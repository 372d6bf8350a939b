"""Higher or lower at the same tempo."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.stretch import analyse, check_vocoder, vocode


class PitchShift(Augmentation):
    """Shift by semitones, drawn as a real number: stretch by the phase vocoder, then play faster or slower.

    The frequencies that would pass half the sample rate are left out of the synthesis, which runs at twice
    the rate so that cubic interpolation is enough for the resampling. N samples stay N samples.
    """

    def __init__(
        self,
        p: float = 0.5,
        low: float = -2.0,
        high: float = 2.0,
        n_fft: int = 1024,
        sample_rate: int = 16000,
    ) -> None:
        """Range in semitones and FFT size in samples, a multiple of four."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        check_vocoder(self, n_fft)
        self.low, self.high, self.n_fft = low, high, n_fft

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Semitones (B,)."""
        return {"semitones": uniform(x, self.low, self.high)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), semitones (B,) -> shifted x (B, C, N)."""
        batch, channels, size = x.shape
        ratio = (2.0 ** (params["semitones"] / 12)).repeat_interleave(channels)  # (B C,)
        stretched = self._stretch(x.reshape(-1, size), ratio)  # (B C, M) at twice the rate
        position = 2 * torch.arange(size, device=x.device) * ratio.unsqueeze(1)  # (B C, N)
        return interpolate(stretched, position).reshape(batch, channels, size)

    def _stretch(self, x: Tensor, ratio: Tensor) -> Tensor:
        """x (B, N) made ``ratio`` (B,) times longer, at twice the sample rate: (B, M), M >= 2 N ratio + 2."""
        hop = self.n_fft // 4
        frames = math.ceil(x.shape[-1] * float(ratio.max()) / hop) + 2
        spectrum = vocode(analyse(x, self.n_fft), 1 / ratio, frames)  # (B, T', F)
        bins = torch.arange(spectrum.shape[-1], device=x.device)  # (F,)
        keep = bins * ratio.unsqueeze(1) <= self.n_fft // 2  # (B, F)
        spectrum = spectrum * keep.unsqueeze(1)
        doubled = F.pad(torch.view_as_real(spectrum), (0, 0, 0, self.n_fft // 2))  # (B, T', n_fft + 1, 2)
        window = torch.hann_window(2 * self.n_fft, device=x.device)
        doubled = 2 * torch.view_as_complex(doubled).transpose(1, 2)  # (B, n_fft + 1, T')
        return torch.istft(doubled, 2 * self.n_fft, 2 * hop, window=window, length=2 * hop * (frames - 1))


def interpolate(x: Tensor, position: Tensor) -> Tensor:
    """Cubic (Catmull-Rom) values of x (B, M) at fractional samples ``position`` (B, N) -> (B, N)."""
    left = position.floor()
    t = position - left
    index = left.long()
    a, b, c, d = (x.gather(1, (index + k).clamp(0, x.shape[1] - 1)) for k in (-1, 0, 1, 2))  # (B, N)
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
