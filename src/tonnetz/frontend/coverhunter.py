"""The constant-Q spectrogram that CoverHunter's published network was trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonnetz.errors import UserError
from tonnetz.frontend.bank import KernelBank, check_bins, kernel_spectrum
from tonnetz.frontend.tuning import Tunable


class CoverHunterCQT(Tunable):
    """Constant-Q magnitude in dB below the example's loudest cell: (B, C, N) -> (B, C, F, T), T = N // hop.

    Hamming windows of 2 round(Q rate / f / 2) + 1 samples, their spectra without what is below ``threshold``
    (Brown and Puckette 1992); frame t is centred in the hop that begins at t * hop, zeros beyond the ends. The
    signal is scaled to a peak of .999 (silence is not), 1e-9 is added to each magnitude. The whole call's
    example is the reference of its decibels, so a window has other values than its place in the recording.
    A signal shorter than one frame gives one.
    """

    floor = -100.0
    decibels = True

    def __init__(
        self,
        sample_rate: int = 16000,
        hop: int = 640,
        bins: int = 96,
        bins_per_octave: int = 12,
        fmin: float = 32.0,
        mean_size: int = 3,
        threshold: float = 0.01,
        tuning: bool = False,
    ) -> None:
        """Sample rate and lowest bin in Hz, hop in samples, bins in all and in an octave, frames that become one
        mean, the smallest kernel entry, and whether the bins follow the example's tuning.

        Raises UserError for bins above half the sample rate or a threshold that leaves a kernel empty.
        """
        check_bins(sample_rate, bins, bins_per_octave, fmin, tuning)
        if not 0 <= threshold < 0.5:
            raise UserError(f"frontend.threshold: {threshold} leaves no kernel; use 0 to 0.5, such as 0.01")
        params: dict[str, Any] = {
            "sample_rate": sample_rate,
            "hop": hop,
            "bins": bins,
            "bins_per_octave": bins_per_octave,
        }
        params |= {"fmin": fmin, "threshold": threshold}
        super().__init__(sample_rate, hop, 1, bins, params, mean_size)
        self.params["mean_size"] = mean_size
        self.bins_per_octave, self.fmin, self.threshold = bins_per_octave, fmin, threshold
        self.start_banks(tuning)

    def make_bank(self, ratio: float) -> nn.Module:
        """The kernels with every frequency times ``ratio``."""
        return KernelBank(self.kernels(ratio), self.raw_hop)

    def kernels(self, ratio: float = 1.0) -> np.ndarray:
        """Spectra (F, n_fft) about the frame's centre, over n_fft, zero below the threshold; every frequency times
        ``ratio``.
        """
        quality = 1 / (2 ** (1 / self.bins_per_octave) - 1)
        lowest = self.fmin * (2 ** (-1 / 24) if self.tuning else 1.0)  # room for any tuning
        n_fft = 2 ** math.ceil(math.log2(2 * round(quality * self.sample_rate / lowest / 2) + 1))
        spectra = np.zeros((self.bins, n_fft))  # (F, n_fft)
        for k in range(self.bins):
            hertz = self.fmin * ratio * 2 ** (k / self.bins_per_octave)
            half = round(quality * self.sample_rate / hertz / 2)
            spectra[k] = kernel_spectrum(np.hamming(2 * half + 1), quality / (2 * half + 1), n_fft)
        spectra[np.abs(spectra) < self.threshold] = 0.0
        return spectra / n_fft

    def analyse(self, audio: Tensor, bank: nn.Module) -> Tensor:
        """Audio (B, C, N) -> dB (B, C, F, T)."""
        batch, channels, size = audio.shape
        assert isinstance(bank, KernelBank)
        flat = audio.reshape(batch * channels, size)  # (B C, N)
        peak = torch.maximum(flat.amax(1, keepdim=True), -flat.amin(1, keepdim=True))  # (B C, 1)
        scale = 0.999 / peak.clamp(min=0.001)  # of the magnitudes rather than the samples: less to multiply
        before = -(-(bank.n_fft - self.raw_hop) // 2)
        magnitude = bank(F.pad(flat, (before, 0)), max(size // self.raw_hop, 1))  # (B C, T, F)
        decibels = 20.0 * torch.log10(magnitude * scale.unsqueeze(2) + 1e-9)
        decibels = decibels - decibels.amax((1, 2), keepdim=True)
        return decibels.transpose(1, 2).reshape(batch, channels, self.bins, -1)

    def raw_frames(self, lengths: Tensor) -> Tensor:
        """Valid samples (B,) -> valid frames before mean-pooling (B,)."""
        return (lengths // self.raw_hop).clamp(min=1)
