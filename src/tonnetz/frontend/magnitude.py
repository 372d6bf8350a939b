"""Mel spectrogram of magnitudes, without a logarithm: the input of Music Trees."""

from __future__ import annotations

from torch import Tensor

from tonnetz.frontend.base import CACHED, Frontend, check_fft, check_range
from tonnetz.frontend.spectrum import Spectrum, mel_bank


class MelMagnitude(Frontend):
    """Magnitude mel spectrogram: (B, C, N) -> (B, C, F, T).

    Slaney's mel scale and area norm, a periodic Hann window inside a longer FFT, centred frames: equal to
    ``librosa.feature.melspectrogram(..., power=1, win_length=window, pad_mode="reflect")``. One second is 126 frames.
    """

    cached = CACHED
    floor = 0.0
    bank: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 2048,
        window: int = 512,
        hop: int = 128,
        bins: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        mean_size: int = 1,
    ) -> None:
        """Sample rate and band edges in Hz (``fmax`` null = half the rate), FFT size, window and hop in samples, mel
        bins, and frames that become one mean. Raises UserError for an odd FFT size or an impossible band.
        """
        top = check_range(sample_rate, fmin, fmax)
        check_fft(n_fft)
        params = {"sample_rate": sample_rate, "n_fft": n_fft, "window": window, "hop": hop}
        super().__init__(sample_rate, hop, 1, bins, params | {"bins": bins, "fmin": fmin, "fmax": top}, mean_size)
        self.spectrum = Spectrum(n_fft, hop, window)
        self.register_buffer("bank", mel_bank(sample_rate, n_fft, bins, (fmin, top)), persistent=False)  # (., F)

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> magnitudes (B, C, F, T)."""
        return (self.spectrum(audio).sqrt() @ self.bank).transpose(-1, -2).contiguous()
