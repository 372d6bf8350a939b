"""A bank of spectral kernels: constant-Q transforms by one FFT a frame (Brown and Puckette 1992), fast on a CPU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonnetz.errors import UserError

FRAMES = {"cpu": 64}  # at a time: their spectra stay in cache; elsewhere there is room for more
GROUP = 8  # kernels a block


class KernelBank(nn.Module):
    """Magnitudes of frames against kernels that are Hermitian about the frame's centre: (B, N) -> (B, T, K).

    The spectrum of such a kernel is real but for the sign (-1)^k, so a complex product is two real ones; what it
    holds at negative frequencies meets the conjugate of the positive one, so half an FFT suffices. The spectra are
    narrow: ``GROUP`` neighbours share a block of the band that they need. The FFT is of double precision: in
    single precision a loud bass hides what is 100 dB below it.
    """

    def __init__(self, spectra: np.ndarray, hop: int) -> None:
        """Real spectra (K, n_fft) about the centre, zero where they are negligible, and the hop in samples."""
        super().__init__()
        self.hop, self.n_fft, self.size = hop, spectra.shape[1], len(spectra)
        half = self.n_fft // 2
        spectra = np.pad(spectra * (-1.0) ** np.arange(self.n_fft), ((0, -self.size % GROUP), (0, 0)))  # whole groups
        positive, negative = spectra[:, : half + 1], np.zeros((len(spectra), half + 1))
        negative[:, 1:half] = spectra[:, :half:-1]  # (K', half + 1) at frequency -k
        self.begins: list[int] = []
        for i, first in enumerate(range(0, self.size, GROUP)):
            rows = slice(first, first + GROUP)
            used = np.nonzero((positive[rows] != 0).any(0) | (negative[rows] != 0).any(0))[0]
            band = slice(used[0], used[-1] + 1)
            block = np.zeros((band.stop - band.start, 2, 2, GROUP))  # band x (re, im) of the FFT x (re, im) x kernels
            block[:, 0, 0] = (positive[rows, band] + negative[rows, band]).T
            block[:, 1, 1] = (positive[rows, band] - negative[rows, band]).T
            self.begins.append(2 * int(band.start))
            flat = torch.from_numpy(block.reshape(2 * len(block), -1)).float()  # (2 band, 2 G)
            self.register_buffer(f"block_{i}", flat, persistent=False)

    def forward(self, audio: Tensor, frames: int) -> Tensor:
        """Audio (B, N) and frames T -> (B, T, K); frame t begins at sample t * hop, zeros follow the end."""
        batch, size = audio.shape
        audio = F.pad(audio, (0, max((frames - 1) * self.hop + self.n_fft - size, 0)))  # (B, N')
        step = max(1, FRAMES.get(audio.device.type, 1024) // batch)
        blocks = [self.get_buffer(f"block_{i}") for i in range(len(self.begins))]
        parts = []
        for first in range(0, frames, step):
            last = min(first + step, frames) - 1
            part = audio[:, first * self.hop : last * self.hop + self.n_fft]  # (B, n)
            parts.append(self._some(part.double().unfold(1, self.n_fft, self.hop), blocks))
        return torch.cat(parts, 1).clamp(min=1e-30).sqrt()

    def _some(self, frames: Tensor, blocks: list[Tensor]) -> Tensor:
        """Frames (B, t, n_fft) -> squared magnitudes (B, t, K)."""
        batch, count, _ = frames.shape
        spectrum = torch.fft.rfft(frames[0] if batch == 1 else frames)  # a view is read where it lies
        flat = torch.view_as_real(spectrum.to(torch.complex64)).view(batch * count, -1)  # (B t, 2 (half + 1))
        pairs = zip(self.begins, blocks, strict=True)
        products = torch.stack([flat[:, i : i + len(block)] @ block for i, block in pairs], 1)  # (B t, K' / G, 2 G)
        power = products.unflatten(2, (2, GROUP)).square().sum(2).flatten(1)  # (B t, K')
        return power[:, : self.size].view(batch, count, -1)


def kernel_spectrum(window: np.ndarray, frequency: float, n_fft: int) -> np.ndarray:
    """Real spectrum (n_fft,) of a mean of samples weighted by a symmetric odd ``window`` (L,), at ``frequency`` in
    cycles a sample, about its centre.
    """
    n = np.arange(len(window)) - len(window) // 2  # (L,)
    kernel = np.zeros(n_fft, complex)
    kernel[n] = window * np.exp(2j * np.pi * frequency * n) / len(window)
    return np.fft.fft(kernel).real


def check_bins(sample_rate: int, bins: int, bins_per_octave: int, fmin: float, tuning: bool) -> None:
    """Raise UserError for no bins, or for bins above half the sample rate (with ``tuning``, moved by half a
    semitone).
    """
    if bins < 1 or bins_per_octave < 1 or fmin <= 0:
        raise UserError(f"frontend: bins {bins}, bins_per_octave {bins_per_octave}, fmin {fmin} must all be above 0")
    top = fmin * 2 ** ((bins - 1) / bins_per_octave + tuning / 24)
    if top > sample_rate / 2:
        raise UserError(
            f"frontend.bins: the top bin, {top:.0f} Hz, is above half the rate, {sample_rate / 2:.0f}; "
            "use fewer bins, a lower fmin or a higher sample_rate"
        )
