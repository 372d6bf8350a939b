"""Three views of one sound stacked like the colours of an image."""

from __future__ import annotations

import librosa
import torch
import torch.nn.functional as F
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.frontend.base import CACHED, Frontend, check_fft, check_range
from tonnetz.frontend.mel import LogMel
from tonnetz.frontend.spectrum import Spectrum


class MultiSpec(Frontend):
    """Log-mel, spectral centroid and chroma as three channels: (B, 1, N) -> (B, 3, F, T).

    Channel 0: dB of ``LogMel``. Channel 1: centroid of the magnitude spectrum divided by half the sample
    rate, so 0 to 1 (0 for silence). Channel 2: chroma of a power spectrum of at least 4096 samples (shorter
    ones do not tell low semitones apart), tuning 440 Hz, every frame divided by its maximum, so 0 to 1. Each
    is stretched to ``bins`` rows by nearest-neighbour interpolation.
    """

    cached = CACHED
    frequencies: Tensor
    pitch_classes: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop: int = 320,
        bins: int = 64,
        mels: int = 64,
        fmin: float = 30.0,
        fmax: float | None = None,
        chroma: int = 12,
        chroma_n_fft: int = 4096,
    ) -> None:
        """Rows of the image (``bins``), mel bins, pitch classes, and FFT sizes in samples; Hz for rate and
        edges.

        Raises UserError for an odd FFT size, a chroma FFT below 4096 samples, or a band outside the spectrum.
        """
        top = check_range(sample_rate, fmin, fmax)
        check_fft(n_fft)
        check_fft(chroma_n_fft, "chroma_n_fft")
        if chroma_n_fft < 4096:
            raise UserError(f"frontend.chroma_n_fft: {chroma_n_fft} is too coarse for semitones; use 4096 or more")
        params = {"n_fft": n_fft, "mels": mels, "fmin": fmin, "fmax": top, "chroma": chroma}
        params |= {"chroma_n_fft": chroma_n_fft, "sample_rate": sample_rate, "hop": hop, "bins": bins}
        super().__init__(sample_rate, hop, 3, bins, params=params)
        self.mel = LogMel(sample_rate, n_fft, hop, mels, fmin, top, floor=1e-10)
        self.spectrum, self.fine = Spectrum(n_fft, hop), Spectrum(chroma_n_fft, hop)
        bank = librosa.filters.chroma(sr=sample_rate, n_fft=chroma_n_fft, tuning=0.0, n_chroma=chroma)
        self.register_buffer("pitch_classes", torch.from_numpy(bank.T).float(), persistent=False)  # (F, 12)
        self.register_buffer("frequencies", torch.linspace(0, 1, n_fft // 2 + 1), persistent=False)  # (F,)

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, 1, N) -> image (B, 3, F, T)."""
        views = [self.mel(audio), self.centroid(audio), self.chroma(audio)]  # (B, 1, mels | 1 | 12, T)
        return torch.cat([F.interpolate(v, size=(self.bins, v.shape[-1])) for v in views], dim=1)  # (B, 3, F, T)

    def centroid(self, audio: Tensor) -> Tensor:
        """Audio (B, 1, N) -> sum(f |X|) / sum(|X|) as a fraction of half the sample rate, (B, 1, 1, T)."""
        magnitude = self.spectrum(audio).sqrt()  # (B, 1, T, F)
        return (magnitude @ self.frequencies / magnitude.sum(-1).clamp(min=1e-30)).unsqueeze(-2)  # (B, 1, 1, T)

    def chroma(self, audio: Tensor) -> Tensor:
        """Audio (B, 1, N) -> energy of the pitch classes, each frame over its maximum, (B, 1, 12, T)."""
        energy = self.fine(audio) @ self.pitch_classes  # (B, 1, T, 12)
        return (energy / energy.amax(-1, keepdim=True).clamp(min=1e-30)).transpose(-1, -2)
