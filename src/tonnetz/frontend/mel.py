"""Mel spectrogram in decibels, and its cepstrum."""

from __future__ import annotations

from torch import Tensor
from torchaudio.functional import create_dct

from tonnetz.errors import UserError
from tonnetz.frontend.base import CACHED, Frontend, check_fft, check_range
from tonnetz.frontend.spectrum import Spectrum, mel_bank


class LogMel(Frontend):
    """Power mel spectrogram in dB, 10 log10(max(S, floor)): (B, C, N) -> (B, C, F, T).

    Slaney's mel scale and area norm, periodic Hann window, centred frames with reflected edges, no
    ``top_db``: equal to ``librosa.power_to_db(librosa.feature.melspectrogram(..., pad_mode="reflect"),
    amin=floor, top_db=None)``.
    """

    cached = CACHED
    decibels = True
    bank: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop: int = 320,
        bins: int = 64,
        fmin: float = 30.0,
        fmax: float | None = None,
        floor: float = 1e-5,
        mean_size: int = 1,
    ) -> None:
        """Sample rate and band edges in Hz (``fmax`` null = half the rate), FFT size and hop in samples, mel
        bins, the smallest power (what lies below it is silence), and frames that become one mean.

        Raises UserError for an odd FFT size or a band outside 0 to half the sample rate.
        """
        top = check_range(sample_rate, fmin, fmax)
        check_fft(n_fft)
        if floor <= 0:
            raise UserError(f"frontend.floor: {floor} must be positive, such as 1e-10")
        params = {"n_fft": n_fft, "fmin": fmin, "fmax": top, "floor": floor}
        params |= {"sample_rate": sample_rate, "hop": hop, "bins": bins}
        super().__init__(sample_rate, hop, 1, bins, params, mean_size)
        self.least = floor
        self.spectrum = Spectrum(n_fft, hop)
        self.register_buffer("bank", mel_bank(sample_rate, n_fft, bins, (fmin, top)), persistent=False)  # (., F)

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> dB (B, C, F, T)."""
        power = self.spectrum(audio) @ self.bank  # (B, C, T, F)
        return (10.0 * power.clamp(min=self.least).log10()).transpose(-1, -2).contiguous()


class MFCC(Frontend):
    """Mel-frequency cepstrum: orthonormal DCT-II over the bins of ``LogMel``: (B, C, N) -> (B, C, F, T).

    Equal to ``librosa.feature.mfcc`` of the dB mel spectrogram without ``top_db`` (Davis and Mermelstein
    1980).
    """

    cached = CACHED
    dct: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop: int = 320,
        bins: int = 20,
        mels: int = 64,
        fmin: float = 30.0,
        fmax: float | None = None,
    ) -> None:
        """``bins`` coefficients of ``mels`` mel bins, the rest as in LogMel; UserError if bins > mels."""
        if bins > mels:
            raise UserError(f"frontend.bins: {bins} coefficients of {mels} mel bins; use bins <= mels")
        top = check_range(sample_rate, fmin, fmax)
        params = {"n_fft": n_fft, "mels": mels, "fmin": fmin, "fmax": top}
        super().__init__(
            sample_rate, hop, 1, bins, params={"sample_rate": sample_rate, "hop": hop, "bins": bins, **params}
        )
        self.mel = LogMel(sample_rate, n_fft, hop, mels, fmin, top, floor=1e-10)
        self.register_buffer("dct", create_dct(bins, mels, "ortho"), persistent=False)  # (mels, F)

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> coefficients (B, C, F, T)."""
        return (self.mel(audio).transpose(-1, -2) @ self.dct).transpose(-1, -2)  # (B, C, F, T)
