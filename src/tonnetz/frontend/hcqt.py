"""Harmonic constant-Q transform: one channel a harmonic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonnetz.errors import UserError
from tonnetz.frontend.bank import KernelBank, check_bins, kernel_spectrum
from tonnetz.frontend.tuning import Tunable

NEGLIGIBLE = 1e-4  # of a kernel's largest entry


class HCQT(Tunable):
    """Constant-Q magnitude in dB at the multiples of each bin's frequency (Bittner et al. 2017): (B, 1, N) ->
    (B, H, F, T), 20 log10(max(|X|, 1e-10)), centred frames, zero-padded edges.

    Channel h of bin f is the magnitude at harmonics[h] * f, so what one note sounds lies at one place. All
    channels read one wide constant-Q transform that has kernels at exactly these frequencies, each once. Hann
    windows and librosa's scaling, as ``CQT``.
    """

    decibels = True
    place: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        hop: int = 320,
        bins: int = 60,
        bins_per_octave: int = 12,
        fmin: float = 32.703196,
        harmonics: Sequence[float] = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0),
        mean_size: int = 1,
        tuning: bool = False,
    ) -> None:
        """Sample rate and lowest bin in Hz, hop in samples, bins of a channel and in an octave, multiples of the
        frequency, frames that become one mean, and whether the bins follow the example's tuning.

        Raises UserError for harmonics above half the sample rate.
        """
        if not harmonics or min(harmonics) <= 0:
            raise UserError(f"frontend.harmonics: {list(harmonics)} must be one or more numbers above 0")
        check_bins(sample_rate, bins, bins_per_octave, fmin * max(harmonics), tuning)
        params: dict[str, Any] = {
            "sample_rate": sample_rate,
            "hop": hop,
            "bins": bins,
            "bins_per_octave": bins_per_octave,
        }
        params |= {"fmin": fmin, "harmonics": [float(h) for h in harmonics]}
        super().__init__(sample_rate, hop, len(harmonics), bins, params, mean_size)
        self.bins_per_octave, self.fmin = bins_per_octave, fmin
        octave = np.arange(bins) / bins_per_octave
        wanted = np.log2(np.array(harmonics, float))[:, None] + octave  # (H, F) octaves above fmin
        self.octaves, place = np.unique(wanted.round(6), return_inverse=True)  # (K,)
        self.register_buffer("place", torch.from_numpy(place.reshape(-1)), persistent=False)  # (H F,)
        self.start_banks(tuning)

    def make_bank(self, ratio: float) -> nn.Module:
        """The kernels of all harmonics with every frequency times ``ratio``."""
        quality = 1 / (2 ** (1 / self.bins_per_octave) - 1)
        lowest = self.fmin * 2 ** (self.octaves[0] - 1 / 24)  # room for any tuning
        n_fft = 2 ** math.ceil(math.log2(quality * self.sample_rate / lowest + 2))
        spectra = np.zeros((len(self.octaves), n_fft))  # (K, n_fft)
        for k, octaves in enumerate(self.octaves):
            frequency = self.fmin * ratio * 2**octaves / self.sample_rate  # cycles a sample
            length = quality / frequency
            n = np.arange(-math.floor(length / 2), math.floor(length / 2) + 1)
            window = 0.5 + 0.5 * np.cos(2 * np.pi * n / length)  # Hann
            spectra[k] = kernel_spectrum(window / window.mean() * math.sqrt(length), frequency, n_fft)
        spectra[np.abs(spectra) < NEGLIGIBLE * np.abs(spectra).max(1, keepdims=True)] = 0.0
        return KernelBank(spectra / n_fft, self.raw_hop)

    def analyse(self, audio: Tensor, bank: nn.Module) -> Tensor:
        """Audio (B, 1, N) -> dB (B, H, F, T); several channels become their mean."""
        assert isinstance(bank, KernelBank)
        padded = F.pad(audio.mean(1), (bank.n_fft // 2, 0))
        magnitude = bank(padded, audio.shape[-1] // self.raw_hop + 1)  # (B, T, K)
        decibels = 20.0 * torch.log10(magnitude.clamp(min=1e-10))
        return decibels[..., self.place].unflatten(-1, (self.channels, self.bins)).permute(0, 2, 3, 1)
