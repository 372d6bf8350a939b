"""Faster or slower at the same pitch."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order
from tonnetz.errors import UserError


class TimeStretch(Augmentation):
    """Phase vocoder (Flanagan and Golden 1966), rate log-uniform; above 1 is faster.

    The window keeps its N samples: what runs over is cut off at the end, what is missing is zero; ``lengths``
    follow as ceil(lengths / rate), at most N.
    """

    def __init__(
        self,
        p: float = 0.5,
        low: float = 0.8,
        high: float = 1.25,
        n_fft: int = 1024,
        sample_rate: int = 16000,
    ) -> None:
        """Range of the rate (> 0) and FFT size in samples, a multiple of four; hop is a quarter of it."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        check_vocoder(self, n_fft)
        if low <= 0:
            raise UserError(f"augment TimeStretch.low: {low} is no rate; use one above 0")
        self.low, self.high, self.n_fft = low, high, n_fft

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Rate (B,)."""
        return {"rate": self.low * (self.high / self.low) ** torch.rand(len(x), device=x.device)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), rate (B,) -> stretched x (B, C, N)."""
        batch, channels, size = x.shape
        hop = self.n_fft // 4
        rate = params["rate"].repeat_interleave(channels)  # (B C,)
        spectrum = analyse(x.reshape(-1, size), self.n_fft)  # (B C, T, F)
        stretched = vocode(spectrum, rate, size // hop + 1)  # (B C, T', F)
        window = torch.hann_window(self.n_fft, device=x.device)
        y = torch.istft(stretched.transpose(1, 2), self.n_fft, hop, window=window, length=size)  # (B C, N)
        end = self.measure(torch.full_like(rate, size).long(), size, rate=rate)  # (B C,)
        y = y.masked_fill(torch.arange(size, device=x.device) >= end.unsqueeze(1), 0.0)
        return y.reshape(batch, channels, size)

    def measure(self, lengths: Tensor, size: int, **params: Tensor) -> Tensor:
        """ceil(lengths / rate), between 1 and ``size`` samples, (B,)."""
        return (lengths / params["rate"]).ceil().long().clamp(1, max(size, 1))


def analyse(x: Tensor, n_fft: int) -> Tensor:
    """Centred STFT with a Hann window and a hop of a quarter of it: (B, N) -> complex (B, T, F)."""
    window = torch.hann_window(n_fft, device=x.device)
    spectrum = torch.stft(
        x.float(), n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True
    )  # (B, F, T)
    return spectrum.transpose(1, 2)  # (B, T, F), the layout in memory


def vocode(spectrum: Tensor, rate: Tensor, frames: int) -> Tensor:
    """Phase vocoder with a rate for each example: complex (B, T, F), rate (B,) -> (B, frames, F).

    Frame t takes the magnitude at time t * rate by linear interpolation; its phase runs on by the advance
    between the two analysis frames around that time. The advance needs no unwrapping because analysis and
    synthesis share one hop: a multiple of 2 pi is lost in either. Beyond the end it is silent.
    """
    time = torch.arange(frames, device=rate.device) * rate.unsqueeze(1)  # (B, T')
    left = time.floor().long().clamp(max=spectrum.shape[1])  # (B, T')
    row = torch.arange(len(rate), device=rate.device).unsqueeze(1)  # (B, 1)
    padded = torch.nn.functional.pad(torch.view_as_real(spectrum), (0, 0, 0, 0, 0, 2))  # (B, T + 2, F, 2)
    padded = torch.view_as_complex(padded)  # (B, T + 2, F)
    magnitude = padded.abs()
    fraction = (time - time.floor()).unsqueeze(-1)  # (B, T', 1)
    blended = torch.lerp(magnitude[row, left], magnitude[row, left + 1], fraction)  # (B, T', F)
    advance = padded.angle().diff(dim=1)  # (B, T + 1, F)
    steps = advance[row, left[:, :-1]]  # (B, T' - 1, F)
    phase = torch.cat([spectrum[:, :1].angle(), steps], 1).cumsum(1)  # (B, T', F)
    return torch.polar(blended, phase)


def check_vocoder(owner: Augmentation, n_fft: int) -> None:
    """Raise UserError for an FFT size that has no whole quarter."""
    if n_fft < 16 or n_fft % 4:
        raise UserError(f"augment {type(owner).__name__}.n_fft: {n_fft} is no multiple of four; use for example 1024")
