"""Cover-song identification without training: 2-D Fourier magnitudes of chroma patches.

A circular shift of the pitch classes (another key) or of the frames (another start) leaves the magnitude of the 2-D
Fourier transform as it is (Bertin-Mahieux and Ellis, 2012). The tempo does matter: compare several resampled variants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tonnetz.models.base import length_mask

RATIOS = tuple(2.0 ** (step / 6) for step in range(-3, 4))  # 0.71 to 1.41


def chroma(features: Tensor, bins_per_octave: int = 12) -> Tensor:
    """Fold a constant-Q spectrogram (..., C, F, T) in dB to the root of the amplitude of 12 classes (..., 12, T).

    Pitch class 0 is that of the lowest bin; channels and the bins of a class are added up.
    """
    amplitude = torch.pow(10.0, features.float() / 20).sum(-3)  # (..., F, T)
    step = bins_per_octave // 12
    bins = torch.arange(amplitude.shape[-2], device=features.device)
    classes = torch.div(bins + step // 2, step, rounding_mode="floor") % 12  # (F,)
    folded = amplitude.new_zeros(*amplitude.shape[:-2], 12, amplitude.shape[-1])
    return folded.index_add_(-2, classes, amplitude).sqrt()  # (..., 12, T)


def contour(c: Tensor) -> Tensor:
    """Every frame of chroma (..., 12, T) without its mean and of norm 1; silence stays 0."""
    c = c - c.mean(-2, keepdim=True)  # (..., 12, T)
    return c / c.norm(dim=-2, keepdim=True).clamp(min=1e-4)


def magnitudes(c: Tensor, lengths: Tensor, patch: int = 96, hop: int = 24) -> Tensor:
    """Median over patches of the 2-D Fourier magnitude of chroma c (B, 12, T), as vectors (B, 11 * (patch / 2 + 1)).

    Only patches that end within ``lengths`` (B,) count; a shorter example is one patch filled up with zeros. The half
    plane that the other half mirrors is weighted so that inner products are those of the whole plane.
    """
    c = contour(c).masked_fill(~length_mask(lengths, c.shape[2])[:, None], 0.0)  # (B, 12, T)
    c = functional.pad(c, (0, max(0, patch - c.shape[2])))  # (B, 12, T)
    patches = c.unfold(2, patch, hop).transpose(1, 2)  # (B, P, 12, patch)
    plane = torch.fft.rfft2(patches)[:, :, 1:].abs()  # (B, P, 11, patch / 2 + 1); frames without mean: row 0 is 0
    twice = torch.arange(plane.shape[-1], device=c.device)  # (patch / 2 + 1,)
    plane = plane * torch.where((twice == 0) | (2 * twice == patch), 1.0, 2.0**0.5)
    count = (torch.div(lengths - patch, hop, rounding_mode="floor") + 1).clamp(1, plane.shape[1])  # (B,)
    return _median(plane.flatten(2), count)


def _median(values: Tensor, count: Tensor) -> Tensor:
    """Median (B, D) of the first ``count`` (B,) rows of values (B, P, D); the mean of the two middle ones if even."""
    valid = length_mask(count, values.shape[1])[..., None]  # (B, P, 1)
    ordered = values.masked_fill(~valid, torch.inf).sort(1).values  # (B, P, D)
    middle = torch.stack([(count - 1) // 2, count // 2], 1)[..., None].expand(-1, -1, values.shape[2])  # (B, 2, D)
    return ordered.gather(1, middle).mean(1)  # (B, D)


def at_tempo(c: Tensor, lengths: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Play c (B, 12, T) with lengths (B,) ``ratio`` times as fast: frames at 0, ratio, 2 ratio, ..., interpolated."""
    place = torch.arange(int((c.shape[2] - 1) / ratio) + 1, device=c.device) * ratio  # (T / ratio,)
    first = place.long().clamp(max=c.shape[2] - 1)
    second = (first + 1).clamp(max=c.shape[2] - 1)
    played = torch.lerp(c[..., first], c[..., second], (place - first).to(c.dtype))  # (B, 12, T / ratio)
    return played, ((lengths - 1).clamp(min=0) / ratio).long() + 1


def ftm2d(features: Tensor, lengths: Tensor, bins_per_octave: int = 12, patch: int = 96, hop: int = 24) -> Tensor:
    """Describe features (B, C, F, T) in dB with valid frames (B,) by vectors (B, D) that are the same in every key."""
    return magnitudes(chroma(features, bins_per_octave), lengths, patch, hop)


def tempo_variants(
    features: Tensor,
    lengths: Tensor,
    ratios: Sequence[float] = RATIOS,
    bins_per_octave: int = 12,
    patch: int = 96,
    hop: int = 24,
) -> Tensor:
    """As :func:`ftm2d`, once for every tempo: (B, R, D), the windows of a track for retrieval with ``min``."""
    c = chroma(features, bins_per_octave)  # (B, 12, T)
    return torch.stack([magnitudes(*at_tempo(c, lengths, ratio), patch, hop) for ratio in ratios], 1)
