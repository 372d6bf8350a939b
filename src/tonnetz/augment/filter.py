"""High-pass and low-pass filters, each example with its own cut-off."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order

GUARD = 4096  # zeros behind the signal, so that a filter's tail does not wrap around to its beginning


class _Filter(Augmentation):
    """Butterworth magnitude of second order (12 dB an octave), zero phase, cut-off log-uniform in Hz.

    Applied to the spectrum of the whole signal, because recursive filters do not batch over cut-offs.
    """

    def __init__(self, p: float, low: float, high: float, sample_rate: int) -> None:
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        self.low, self.high = low, high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Cut-off in Hz (B,), clamped below half the sample rate."""
        cutoff = self.low * (self.high / self.low) ** torch.rand(len(x), device=x.device)
        return {"cutoff": cutoff.clamp(max=0.49 * self.sample_rate)}

    def ratio(self, x: Tensor, cutoff: Tensor) -> Tensor:
        """(f / cut-off) ** 4 at the frequencies of ``shape_spectrum``, (B, F)."""
        return (frequencies(x, self.sample_rate) / cutoff.unsqueeze(1)) ** 4


class LowPass(_Filter):
    """|H| = 1 / sqrt(1 + (f / cut-off) ** 4): 12 dB an octave, zero phase."""

    def __init__(self, p: float = 0.5, low: float = 1500.0, high: float = 7500.0, sample_rate: int = 16000) -> None:
        """Range of the cut-off in Hz, drawn log-uniformly."""
        super().__init__(p, low, high, sample_rate)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), cutoff (B,) Hz -> filtered x."""
        return shape_spectrum(x, torch.rsqrt(1 + self.ratio(x, params["cutoff"])))


class HighPass(_Filter):
    """|H| = 1 / sqrt(1 + (cut-off / f) ** 4): 12 dB an octave, zero phase."""

    def __init__(self, p: float = 0.5, low: float = 20.0, high: float = 400.0, sample_rate: int = 16000) -> None:
        """Range of the cut-off in Hz, drawn log-uniformly."""
        super().__init__(p, low, high, sample_rate)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), cutoff (B,) Hz -> filtered x."""
        ratio = self.ratio(x, params["cutoff"])  # (B, F)
        return shape_spectrum(x, (ratio / (1 + ratio)).sqrt())


def frequencies(x: Tensor, sample_rate: int) -> Tensor:
    """Frequencies in Hz at which ``shape_spectrum`` takes its response for x (..., N), (F,)."""
    return torch.fft.rfftfreq(_padded(x), 1 / sample_rate, device=x.device)


def shape_spectrum(x: Tensor, response: Tensor) -> Tensor:
    """x (B, C, N), its spectrum multiplied by ``response`` (B, F), real or complex, at ``frequencies``."""
    spectrum = torch.fft.rfft(x.float(), n=_padded(x))  # (B, C, F)
    return torch.fft.irfft(spectrum * response.unsqueeze(1), n=_padded(x))[..., : x.shape[-1]]


def _padded(x: Tensor) -> int:
    """A fast, even FFT size for x (..., N) and the guard."""
    return 2 * next_fast_len((x.shape[-1] + GUARD + 1) // 2, real=True)
