"""Noise at a given signal-to-noise ratio: coloured, or recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.filter import frequencies, shape_spectrum
from tonnetz.errors import UserError

SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"))


class Noise(Augmentation):
    """Additive noise at an SNR uniform in dB; powers are means over the whole window.

    Without ``root`` it is Gaussian with power density f ** -decay: 0 white, 1 pink, 2 brown, negative =
    brighter. With ``root`` it is excerpts of the recordings in that folder, read once, at the first draw.
    """

    bank: Tensor
    root_key = "Noise.root"

    def __init__(
        self,
        p: float = 0.5,
        snr_low: float = 3.0,
        snr_high: float = 30.0,
        decay_low: float = 0.0,
        decay_high: float = 0.0,
        root: str | None = None,
        seconds: float = 600.0,
        sample_rate: int = 16000,
    ) -> None:
        """SNR in dB, range of the decay, folder of recordings, and how many seconds of them to hold in
        memory.
        """
        super().__init__(p, sample_rate)
        check_order(self, snr_low, snr_high, "snr_low, snr_high")
        check_order(self, decay_low, decay_high, "decay_low, decay_high")
        self.snr_low, self.snr_high = snr_low, snr_high
        self.decay_low, self.decay_high = decay_low, decay_high
        self.root, self.seconds = root, seconds
        self.register_buffer("bank", torch.zeros(0), persistent=False)  # (M,)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """SNR in dB (B,), noise (B, C, N) and, for coloured noise, its decay (B,)."""
        snr = uniform(x, self.snr_low, self.snr_high)
        if self.root is not None:
            return {"snr": snr, "noise": self._excerpts(x, self.root)}
        noise = torch.randn(x.shape, device=x.device)  # (B, C, N)
        if self.decay_low == self.decay_high == 0.0:
            return {"snr": snr, "noise": noise}
        return {"snr": snr, "noise": noise, "decay": uniform(x, self.decay_low, self.decay_high)}

    def _excerpts(self, x: Tensor, root: str) -> Tensor:
        """Excerpts (B, 1, N) of the recordings from random starts, going round at their end."""
        if self.bank.numel() == 0:
            self.bank = read_folder(Path(root), self.sample_rate, self.seconds, self.root_key).to(x.device)  # (M,)
        index = (self._starts(x) + torch.arange(x.shape[-1], device=x.device)) % len(self.bank)  # (B, N)
        return self.bank[index].unsqueeze(1)  # (B, 1, N)

    def _starts(self, x: Tensor) -> Tensor:
        """Where in the bank each sample's excerpt begins, (B, 1) or (B, N)."""
        return torch.randint(len(self.bank), (len(x), 1), device=x.device)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) + noise scaled to the SNR; silence stays silence."""
        noise = params["noise"]
        if "decay" in params:
            f = frequencies(x, self.sample_rate).clamp(min=20.0) / 1000.0  # (F,) flat below 20 Hz
            noise = shape_spectrum(noise, f ** (-params["decay"].unsqueeze(1) / 2))  # (B, C, N)
        signal_power = x.square().mean((1, 2), keepdim=True)  # (B, 1, 1)
        noise_power = noise.square().mean((1, 2), keepdim=True).clamp(min=1e-20)
        return x + noise * (signal_power / noise_power * 10 ** (-params["snr"].view(-1, 1, 1) / 10)).sqrt()


class NoiseMix(Noise):
    """Noise block by block: each block gets some with probability ``share``, at an SNR drawn from a list; the whole
    is scaled by a gain uniform between ``gain_low`` and ``gain_high``.

    The noise comes from the recordings in ``folder``, another place of them for every block; without a folder it is
    pink (power density 1 / f). A silent block stays silent.
    """

    snr: Tensor
    root_key = "NoiseMix.folder"

    def __init__(
        self,
        p: float = 0.5,
        folder: str | None = None,
        snr: Sequence[float] = (0.0, 10.0, 20.0, 30.0),
        block: float = 3.0,
        share: float = 0.75,
        gain_low: float = 0.3,
        gain_high: float = 1.0,
        seconds: float = 600.0,
        sample_rate: int = 16000,
    ) -> None:
        """Folder of recordings (read at the first draw), ratios in dB to draw from, seconds of a block, range of the
        gain, and how many seconds of the recordings to hold in memory.
        """
        super().__init__(p, root=folder, seconds=seconds, sample_rate=sample_rate)
        check_order(self, gain_low, gain_high, "gain_low, gain_high")
        if not snr or block <= 0 or not 0 <= share <= 1:
            raise UserError(
                f"augment NoiseMix: snr {list(snr)}, block {block}, share {share} mix nothing; "
                "use one or more ratios, a block above 0 s and a share of 0 to 1"
            )
        self.register_buffer("snr", torch.tensor([float(s) for s in snr]), persistent=False)  # (S,)
        self.block, self.share = max(1, round(block * sample_rate)), share
        self.gain_low, self.gain_high = gain_low, gain_high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """SNR in dB and which blocks have noise (B, K), noise (B, C, N) and gain (B,)."""
        blocks = -(-x.shape[-1] // self.block)
        snr = self.snr[torch.randint(len(self.snr), (len(x), blocks), device=x.device)]  # (B, K)
        used = torch.rand(len(x), blocks, device=x.device) < self.share
        noise = self._pink(x) if self.root is None else self._excerpts(x, self.root)
        return {"snr": snr, "used": used, "noise": noise, "gain": uniform(x, self.gain_low, self.gain_high)}

    def _pink(self, x: Tensor) -> Tensor:
        """Noise of density 1 / f, (B, C, N)."""
        f = frequencies(x, self.sample_rate).clamp(min=20.0)  # (F,) flat below 20 Hz
        return shape_spectrum(torch.randn(x.shape, device=x.device), f.rsqrt().expand(len(x), -1))  # (B, C, N)

    def _starts(self, x: Tensor) -> Tensor:
        """Where in the bank each block's excerpt begins, for each of its samples, (B, N)."""
        blocks = -(-x.shape[-1] // self.block)
        start = torch.randint(len(self.bank), (len(x), blocks), device=x.device)  # (B, K)
        return start.repeat_interleave(self.block, 1)[:, : x.shape[-1]]  # (B, N)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) + noise scaled block by block, times the gain."""
        size, blocks = x.shape[-1], params["snr"].shape[1]
        pad = (0, blocks * self.block - size)
        signal = torch.nn.functional.pad(x, pad).unflatten(-1, (blocks, self.block))  # (B, C, K, n)
        noise = torch.nn.functional.pad(params["noise"], pad).unflatten(-1, (blocks, self.block))
        loudness = signal.square().mean((1, 3), keepdim=True)  # (B, 1, K, 1)
        ratio = loudness / noise.square().mean((1, 3), keepdim=True).clamp(min=1e-20)
        level = (ratio * 10 ** (-params["snr"][:, None, :, None] / 10)).sqrt() * params["used"][:, None, :, None]
        mixed = (signal + noise * level).flatten(2)[..., :size]  # (B, C, N)
        return mixed * params["gain"].view(-1, 1, 1)


def read_folder(root: Path, sample_rate: int, seconds: float, key: str = "Noise.root") -> Tensor:
    """Recordings under ``root`` as one mono signal (M,) of at most about ``seconds``, every file with its
    share.

    Each file is scaled to unit power, so that a place in the bank does not decide how loud its neighbours
    are. Raises UserError for a folder without recordings or a file that cannot be read.
    """
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES) if root.is_dir() else []
    if not paths:
        raise UserError(f"{root}: no recordings for augment {key}; name a folder of {', '.join(sorted(SUFFIXES))}")
    share = max(1.0, seconds / len(paths))
    parts = [_read(path, sample_rate, share, key) for path in paths[: max(1, int(seconds))]]
    bank = torch.cat(parts)  # (M,)
    if not bank.any():
        raise UserError(f"{root}: the recordings for augment {key} are silent or empty; choose others")
    return bank


def _read(path: Path, sample_rate: int, seconds: float, key: str) -> Tensor:
    """The first seconds of one file, mono, resampled, unit power, (M,)."""
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            samples = file.read(int(seconds * rate), dtype="float32", always_2d=True).mean(1)  # (M,)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{path}: cannot be read as audio ({error}); remove it from augment {key}") from None
    signal = resample(torch.from_numpy(np.ascontiguousarray(samples)), rate, sample_rate)  # (M,)
    return signal / signal.square().mean().sqrt().clamp(min=1e-8) if len(signal) else signal
