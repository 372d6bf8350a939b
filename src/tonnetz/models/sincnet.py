"""SincNet (Ravanelli and Bengio, 2018, arXiv:1808.00158): band-pass filters of the waveform that learn their edges."""

from __future__ import annotations

import librosa
import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError
from tonnetz.models.samplecnn import Thirds, check_widths
from tonnetz.models.waveform import clear, pool3

LOWEST, NARROWEST = 50.0, 50.0  # Hz, of a filter's lower edge and of its band


class SincFilters(nn.Module):
    """Filters 2 f2 sinc(2 f2 n) - 2 f1 sinc(2 f1 n) in a Hamming window, over 2 (f2 - f1); (B, 1, 1, T) to K channels.

    Two parameters a filter, its lower edge and its band in fractions of the sample rate; the bands begin beside each
    other on the mel scale.
    """

    def __init__(self, filters: int, kernel: int, sample_rate: int) -> None:
        """Number of filters, their length in samples (odd), and the rate in Hz."""
        super().__init__()
        self.least = LOWEST / sample_rate, NARROWEST / sample_rate
        edges = librosa.mel_frequencies(filters + 1, fmin=30.0, fmax=sample_rate / 2 - LOWEST - NARROWEST)
        hertz = torch.from_numpy(edges / sample_rate).float()  # (K + 1,)
        self.low, self.band = nn.Parameter(hertz[:-1].clone()), nn.Parameter(hertz.diff())  # (K,) each
        self.kernel = kernel

    def edges(self) -> tuple[Tensor, Tensor]:
        """Lower and upper edge of each filter (K,), as fractions of the sample rate."""
        low = self.low.abs() + self.least[0]
        return low, (low + self.least[1] + self.band.abs()).clamp(max=0.5)

    def impulse_responses(self) -> Tensor:
        """The filters (K, L)."""
        low, high = (edge[:, None] for edge in self.edges())  # (K, 1)
        n = torch.arange(self.kernel, device=low.device) - self.kernel // 2  # (L,)
        window = torch.hamming_window(self.kernel, periodic=False, device=low.device)  # (L,)
        band = 2 * high * torch.sinc(2 * high * n) - 2 * low * torch.sinc(2 * low * n)  # (K, L)
        return band * window / (2 * (high - low))

    def forward(self, x: Tensor) -> Tensor:
        """Filter x (B, 1, 1, T), zeros beyond its ends."""
        weight = self.impulse_responses()[:, None, None].to(x.dtype)  # (K, 1, 1, L)
        return functional.conv2d(x, weight, padding=(0, self.kernel // 2))


class SincStem(nn.Module):
    """Magnitudes of the filters, of three the largest, normalised: (B, C, 1, T), mean over C, to (B, K, 1, T / 3)."""

    def __init__(self, filters: int, kernel: int, sample_rate: int) -> None:
        """As `SincFilters`. Raises UserError for what makes no filter."""
        super().__init__()
        if filters < 1 or kernel < 3 or kernel % 2 == 0:
            raise UserError(
                f"model.filters={filters} model.kernel={kernel}: need filters of an odd number of samples, such as 251"
            )
        if sample_rate < 2000:
            raise UserError(f"model.sample_rate={sample_rate}: too low for filters; say the front-end's, in Hz")
        self.filters = SincFilters(filters, kernel, sample_rate)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Filter x, zero outside valid frames, and zero what ``keep`` (B, 1, 1, T / 3) excludes."""
        return clear(self.norm(pool3(self.filters(x.mean(1, keepdim=True)).abs())), keep)


class SincNet(Thirds):
    """Sinc filters, then a pooled convolution a width and one more, as in SampleCNN; for frontend=raw.

    With nine widths a frame stands for 3 ** 10 = 59,049 samples.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        widths: tuple[int, ...] = (128, 128, 256, 256, 256, 256, 256, 256, 512),
        filters: int = 80,
        kernel: int = 251,
        sample_rate: int = 22050,
    ) -> None:
        """Channels of the convolutions, number of filters, their length in samples, and the front-end's rate in Hz."""
        check_widths(widths)
        super().__init__(channels, bins, SincStem(filters, kernel, sample_rate), filters, widths)
