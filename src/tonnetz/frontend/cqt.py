"""Constant-Q transform, in decibels or as CLEWS takes it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
import torch.nn.functional as F
from nnAudio.features.cqt import CQT1992v2, CQT2010v2
from torch import Tensor, nn

from tonnetz.errors import UserError
from tonnetz.frontend.bank import check_bins
from tonnetz.frontend.base import reflect
from tonnetz.frontend.tuning import Tunable


class Mirror(nn.Module):
    """Reflects so many samples at both ends, of a signal of any length: (..., N) -> (..., N + 2 pad)."""

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, audio: Tensor) -> Tensor:
        """Audio (..., N) -> (..., N + 2 pad)."""
        return reflect(audio, self.pad)


class CQT(Tunable):
    """Constant-Q magnitude in dB, 20 log10(max(|X|, 1e-10)): (B, C, N) -> (B, C, F, T).

    ``cqt1992v2`` convolves with one kernel a bin (Brown and Puckette 1992): exact, any hop, long kernels.
    ``cqt2010v2`` halves the rate octave by octave (Schoerkhuber and Klapuri 2010): short kernels; within 1 dB
    of it where the signal is. Both carry librosa's scaling (kernels of L1 norm 1, times the root of their
    length). With ``pad=reflect`` their numbers are those of nnAudio by its defaults, edges too; cqt2010v2 then
    reflects in every octave what it has halved.
    """

    decibels = True

    def __init__(
        self,
        sample_rate: int = 16000,
        hop: int = 320,
        bins: int = 84,
        bins_per_octave: int = 12,
        fmin: float = 32.703196,
        algorithm: str = "cqt1992v2",
        mean_size: int = 1,
        tuning: bool = False,
        relative: bool = False,
        pad: str = "constant",
    ) -> None:
        """Sample rate and lowest bin in Hz, hop in samples, bins in all and in an octave, the algorithm, frames
        that become one mean, whether the bins follow the example's tuning, whether decibels are relative to
        the maximum of the example, scaled to peak .999 (CoverHunterMPS), and what lies beyond the ends: silence
        (``constant``) or the sound backwards (``reflect``).

        Raises UserError for bins above half the sample rate, an unknown algorithm or pad, or, with cqt2010v2, a
        hop that cannot be halved once for each octave below the top one.
        """
        check_bins(sample_rate, bins, bins_per_octave, fmin, tuning)
        octaves = -(-bins // bins_per_octave)
        _check(hop, octaves, algorithm)
        if pad not in ("constant", "reflect"):
            raise UserError(f"frontend.pad: {pad!r} is unknown; use constant or reflect")
        params = {"bins_per_octave": bins_per_octave, "fmin": fmin, "algorithm": algorithm}
        params |= {"sample_rate": sample_rate, "hop": hop, "bins": bins}
        super().__init__(sample_rate, hop, 1, bins, params, mean_size)
        self.bins_per_octave, self.fmin, self.algorithm = bins_per_octave, fmin, algorithm
        self.relative, self.pad = relative, pad
        if pad != "constant":  # left out when it is: older fingerprints stay what they are
            self.params = self.params | {"pad": pad}
        if relative:  # left out when it is not: older fingerprints stay what they are
            self.params = self.params | {"relative": True}
            self.floor = -100.0
        self.step = hop if algorithm == "cqt1992v2" else 2 ** (octaves - 1)
        self.start_banks(tuning)

    def make_bank(self, ratio: float) -> nn.Module:
        """nnAudio's transform with every frequency times ``ratio``."""
        common: dict[str, Any] = {"sr": self.sample_rate, "hop_length": self.raw_hop, "fmin": self.fmin * ratio}
        common |= {"n_bins": self.bins, "bins_per_octave": self.bins_per_octave}
        common |= {"pad_mode": "constant", "output_format": "Complex", "verbose": False}
        with contextlib.redirect_stdout(io.StringIO()):  # nnAudio prints while it builds its kernels
            if self.algorithm == "cqt1992v2":
                bank = CQT1992v2(**common, center=self.pad == "constant")
                return bank if bank.center else nn.Sequential(Mirror(bank.kernel_width // 2), bank)
            bank = CQT2010v2(**common, earlydownsample=False)  # which would change the hop and the frame count
            if self.pad == "reflect":  # nnAudio's own pads what is shorter than a kernel with zeros, and warns
                bank.padding = Mirror(bank.n_fft // 2)
            return bank

    def _room(self, size: int, frames: int) -> int:
        """Zeros to add to so many samples, so that the last frame is there in every octave: halving must not lose it.

        A mirror image needs none, but for a sample in the lowest octave.
        """
        if self.pad == "constant":
            return frames * self.raw_hop + self.step - size
        return 0 if self.algorithm == "cqt1992v2" else max(self.step - size, 0)

    def power(self, audio: Tensor, bank: nn.Module) -> Tensor:
        """Audio (B, C, N) -> squared magnitudes (B, C, F, T)."""
        batch, channels, size = audio.shape
        frames = size // self.raw_hop + 1
        audio = F.pad(audio, (0, self._room(size, frames)))  # (B, C, N')
        parts = bank(audio.reshape(batch * channels, 1, -1))[:, :, :frames]  # (B C, F, T, 2)
        return parts.square().sum(-1).reshape(batch, channels, self.bins, frames)

    def analyse(self, audio: Tensor, bank: nn.Module) -> Tensor:
        """Audio (B, C, N) -> dB (B, C, F, T)."""
        if self.relative:
            audio = 0.999 * audio / audio.abs().amax((1, 2), keepdim=True).clamp(min=1e-3)
            level = 20.0 * torch.log10(self.power(audio, bank).sqrt() + 1e-9)  # (B, C, F, T)
            return level - level.amax((1, 2, 3), keepdim=True)
        return 10.0 * torch.log10(self.power(audio, bank).clamp(min=1e-20))


class ClewsCQT(CQT):
    """Square root of the mean-pooled constant-Q magnitude, from 0 to 1 in each example: (B, C, N) -> (B, C, F, T).

    The input of CLEWS: seven octaves, 10 frames a second, the example's minimum subtracted and divided by what
    is then its maximum. Silence is 0.
    """

    floor = 0.0
    decibels = False

    def __init__(
        self,
        sample_rate: int = 16000,
        hop: int = 320,
        bins: int = 84,
        bins_per_octave: int = 12,
        fmin: float = 32.703196,
        algorithm: str = "cqt1992v2",
        mean_size: int = 5,
        exponent: float = 0.5,
        tuning: bool = False,
    ) -> None:
        """As CQT, and the exponent of the mean magnitude (> 0)."""
        if exponent <= 0:
            raise UserError(f"frontend.exponent: {exponent} flattens everything; use one above 0, such as 0.5")
        super().__init__(sample_rate, hop, bins, bins_per_octave, fmin, algorithm, mean_size, tuning)
        self.exponent = exponent
        self.params = self.params | {"mean_size": mean_size, "exponent": exponent}

    def analyse(self, audio: Tensor, bank: nn.Module) -> Tensor:
        """Audio (B, C, N) -> magnitudes (B, C, F, T)."""
        return self.power(audio, bank).clamp(min=1e-20).sqrt()

    def finish(self, features: Tensor) -> Tensor:
        """Mean magnitudes (B, C, F, T) -> (B, C, F, T) from 0 to 1."""
        root = features**self.exponent
        root = root - root.amin((-2, -1), keepdim=True)
        return root / root.amax((-2, -1), keepdim=True).clamp(min=1e-8)


def _check(hop: int, octaves: int, algorithm: str) -> None:
    """Raise UserError for what nnAudio cannot compute."""
    if algorithm not in ("cqt1992v2", "cqt2010v2"):
        raise UserError(f"frontend.algorithm: {algorithm!r} is unknown; use cqt1992v2 or cqt2010v2")
    if algorithm == "cqt2010v2" and hop % 2 ** (octaves - 1):
        raise UserError(
            f"frontend.hop: {hop} is not a multiple of {2 ** (octaves - 1)}, as {octaves} octaves need with "
            "cqt2010v2; change hop or use algorithm=cqt1992v2"
        )
