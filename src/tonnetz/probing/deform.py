"""Deformed test sound: how much of a score survives? Every excerpt has noise of its own, keyed by its track."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest

Deform = Callable[[Tensor, Tensor], Tensor]  # audio (B, 1, N), track number (B,) -> audio (B, 1, N)


def noise(audio: Tensor, row: Tensor, snr: float) -> Tensor:
    """Add white Gaussian noise at a signal-to-noise ratio in dB."""
    draws = [torch.randn(audio.shape[-1], generator=torch.Generator().manual_seed(int(r))) for r in row]
    white = torch.stack(draws)[:, None].to(audio.device)  # (B, 1, N)
    power = audio.square().mean((1, 2), keepdim=True)
    return audio + white * (power * 10 ** (-snr / 10)).sqrt()


def gain(audio: Tensor, row: Tensor, db: float) -> Tensor:
    """Change the level by decibels."""
    return audio * 10 ** (db / 20)


def clip(audio: Tensor, row: Tensor, share: float) -> Tensor:
    """Cut the peaks off, so that this share of the samples of each excerpt is cut."""
    limit = audio.abs().flatten(1).quantile(1 - share, dim=1)[:, None, None].clamp(min=1e-6)  # (B, 1, 1)
    return audio.clamp(-limit, limit)


def lowpass(audio: Tensor, row: Tensor, share: float) -> Tensor:
    """Remove the frequencies above a share of half the sample rate, as narrow-band codecs do."""
    spectrum = torch.fft.rfft(audio)
    spectrum[..., round(share * spectrum.shape[-1]) :] = 0
    return torch.fft.irfft(spectrum, audio.shape[-1])


def room(audio: Tensor, row: Tensor, decay: float) -> Tensor:
    """Convolve with decaying noise, whose level falls by 60 dB within so many samples; the level is kept."""
    length = int(decay)
    impulse = torch.randn(length, generator=torch.Generator().manual_seed(0)) * 10 ** (
        -3 * torch.arange(length) / decay
    )
    impulse[0] = impulse.norm()  # the direct sound is as loud as the reverberation
    size = audio.shape[-1] + length
    wet = torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(impulse.to(audio.device), size), size)
    wet = wet[..., : audio.shape[-1]]
    level = [value.square().mean((1, 2), keepdim=True).sqrt() for value in (audio, wet)]
    return wet * level[0] / level[1].clamp(min=1e-9)


KNOWN: dict[str, Deform] = {
    "noise_15db": lambda audio, row: noise(audio, row, 15.0),
    "noise_0db": lambda audio, row: noise(audio, row, 0.0),
    "gain_-12db": lambda audio, row: gain(audio, row, -12.0),
    "clip_5%": lambda audio, row: clip(audio, row, 0.05),
    "lowpass_25%": lambda audio, row: lowpass(audio, row, 0.25),
    "room": lambda audio, row: room(audio, row, 16000.0),
}


def deformation(name: str) -> tuple[str, Deform]:
    """A deformation by its name. Raises UserError for an unknown one."""
    if name not in KNOWN:
        raise UserError(f"job.deformations: no deformation '{name}'{suggest(name, KNOWN)}")
    return name, KNOWN[name]
