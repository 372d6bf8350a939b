"""Power spectra of frames, and the mel bands of them: what most front-ends begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from tonnetz.frontend.base import reflect


class Spectrum(nn.Module):
    """Power |X|^2 of centred frames with reflected edges: (B, C, N) -> (B, C, T, n_fft // 2 + 1), T = N // hop + 1.

    A periodic Hann window in the middle of the FFT. torchaudio's takes the root that it then squares, and has frames
    behind bins, where a product with a bank is one for each example: here that takes half the time.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int, window: int | None = None) -> None:
        """FFT size (even), hop and window in samples; None = a window as long as the FFT."""
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(window or n_fft), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> power (B, C, T, n_fft // 2 + 1)."""
        flat = reflect(audio, self.n_fft // 2).flatten(0, 1)  # (B C, N')
        size = len(self.window)
        spectrum = torch.stft(flat, self.n_fft, self.hop, size, self.window, center=False, return_complex=True)
        parts = torch.view_as_real(spectrum.transpose(1, 2))  # (B C, T, n_fft // 2 + 1, 2)
        real, imaginary = parts[..., 0], parts[..., 1]
        return torch.addcmul(real * real, imaginary, imaginary).unflatten(0, audio.shape[:2])


def mel_bank(sample_rate: int, n_fft: int, bins: int, band: tuple[float, float]) -> Tensor:
    """Triangles (n_fft // 2 + 1, F) on Slaney's mel scale with his area norm, between two edges in Hz; as librosa's."""
    return melscale_fbanks(n_fft // 2 + 1, *band, bins, sample_rate, norm="slaney", mel_scale="slaney")
