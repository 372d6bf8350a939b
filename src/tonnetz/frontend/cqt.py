"""Constant-Q transform in decibels."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
import torch.nn.functional as F
from nnAudio.features.cqt import CQT1992v2, CQT2010v2
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.frontend.base import Frontend, forget_buffers


class CQT(Frontend):
    """Constant-Q magnitude in dB, 20 log10(max(|X|, 1e-10)): (B, C, N) -> (B, C, F, T), zero-padded edges.

    ``cqt1992v2`` convolves with one kernel a bin (Brown and Puckette 1992): exact, any hop, long kernels.
    ``cqt2010v2`` halves the rate octave by octave (Schoerkhuber and Klapuri 2010): short kernels; within 1 dB
    of it where the signal is. Both carry librosa's scaling (kernels of L1 norm 1, times the root of their
    length).
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        hop: int = 320,
        bins: int = 84,
        bins_per_octave: int = 12,
        fmin: float = 32.703196,
        algorithm: str = "cqt1992v2",
    ) -> None:
        """Sample rate and lowest bin in Hz, hop in samples, bins in all and in an octave, and the algorithm.

        Raises UserError for bins above half the sample rate, an unknown algorithm, or, with cqt2010v2, a hop
        that cannot be halved once for each octave below the top one.
        """
        octaves = -(-bins // bins_per_octave)
        _check(sample_rate, hop, fmin * 2 ** ((bins - 1) / bins_per_octave), octaves, algorithm)
        params = {"bins_per_octave": bins_per_octave, "fmin": fmin, "algorithm": algorithm}
        super().__init__(
            sample_rate, hop, 1, bins, params={"sample_rate": sample_rate, "hop": hop, "bins": bins, **params}
        )
        common: dict[str, Any] = {"sr": sample_rate, "hop_length": hop, "fmin": fmin, "n_bins": bins}
        common |= {"bins_per_octave": bins_per_octave, "pad_mode": "constant", "output_format": "Complex"}
        with contextlib.redirect_stdout(io.StringIO()):  # nnAudio prints while it builds its kernels
            if algorithm == "cqt1992v2":
                self.cqt = CQT1992v2(**common, verbose=False)
            else:  # early downsampling changes the hop, and with it the frame count
                self.cqt = CQT2010v2(**common, earlydownsample=False, verbose=False)
        forget_buffers(self.cqt)
        self.step = hop if algorithm == "cqt1992v2" else 2 ** (octaves - 1)

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> dB (B, C, F, T)."""
        batch, channels, size = audio.shape
        frames = size // self.hop + 1
        # Room for the last frame in every octave: halving the rate must not lose it.
        audio = F.pad(audio, (0, frames * self.hop + self.step - size))  # (B, C, N')
        parts = self.cqt(audio.reshape(batch * channels, 1, -1))[:, :, :frames]  # (B C, F, T, 2)
        power = parts.square().sum(-1).reshape(batch, channels, self.bins, frames)  # (B, C, F, T)
        return 10.0 * torch.log10(power.clamp(min=1e-20))


def _check(sample_rate: int, hop: int, top: float, octaves: int, algorithm: str) -> None:
    """Raise UserError for what nnAudio cannot compute."""
    if algorithm not in ("cqt1992v2", "cqt2010v2"):
        raise UserError(f"frontend.algorithm: {algorithm!r} is unknown; use cqt1992v2 or cqt2010v2")
    if top > sample_rate / 2:
        raise UserError(
            f"frontend.bins: the top bin, {top:.0f} Hz, is above half the rate, {sample_rate / 2:.0f}; "
            "use fewer bins, a lower fmin or a higher sample_rate"
        )
    if algorithm == "cqt2010v2" and hop % 2 ** (octaves - 1):
        raise UserError(
            f"frontend.hop: {hop} is not a multiple of {2 ** (octaves - 1)}, as {octaves} octaves need with "
            "cqt2010v2; change hop or use algorithm=cqt1992v2"
        )
