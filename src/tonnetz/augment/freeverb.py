"""Artificial rooms: the impulse responses of Freeverb, computed from its transfer function."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from tonnetz.augment.response import fast_size

COMBS = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617)  # samples at 44,100 Hz
ALL_PASSES = (225, 341, 441, 556)
SPREAD = 12  # by which the delays of the right channel differ, in turn longer and shorter
LEVEL = 0.015  # of the reverberation beside the dry sound
DECAY = 1e-7  # of a sample one period ahead, see ``impulse_response``


def impulse_response(reverberance: float, damping: float, scale: float, sample_rate: int, length: int) -> Tensor:
    """What a room answers to an impulse, the impulse itself included: (length,) float32.

    Freeverb (Jezar at Dreampoint, 2000): eight damped comb filters side by side, then four all-passes in a row; the
    two channels are averaged. The three parameters are percentages, as in the ``reverb`` effect of SoX:
    reverberance sets the feedback of the combs, 0.3 to 0.98; damping their low-pass coefficient, 0.2 to 0.5; scale
    their delays, 0.1 to 1 of the largest room's.

    The transfer function is sampled on a circle outside the unit circle, where the response decays faster, so the
    inverse FFT wraps what comes after its end around with a weight of ``DECAY`` only.
    """
    feedback = 1 - 0.7 * (0.02 / 0.7) ** (reverberance / 100)
    pole = 0.2 + 0.3 * damping / 100
    delays = _delays(COMBS, (0.1 + 0.9 * scale / 100) * sample_rate / 44100)  # (2, 8)
    size = fast_size(length)
    smooth = feedback * (1 - pole) / (1 - pole * _powers(torch.tensor([-1]), size))  # (1, F)
    combs = (_powers(delays, size) - smooth).reciprocal_().sum(1)  # (2, F)
    wet = (combs * _all_passes(sample_rate, size)).mean(0)  # (F,)
    response = torch.fft.irfft(LEVEL * wet, n=size)[:length]  # (length,)
    response = response * DECAY ** (torch.arange(length, dtype=torch.float64) / -size)
    response[0] += 1
    return response.float()


def _delays(samples: tuple[int, ...], factor: float) -> Tensor:
    """Whole delays (2, K), left and right, of what has ``samples`` at 44,100 Hz."""
    sides = [[length + side * SPREAD * (-1) ** i for i, length in enumerate(samples)] for side in (0, 1)]
    return (torch.tensor(sides, dtype=torch.float64) * factor + 0.5).long().clamp(min=1)


@lru_cache(maxsize=2)
def _all_passes(sample_rate: int, size: int) -> Tensor:
    """Response of the all-passes in a row, (2, F); they are the same in every room."""
    early = _powers(_delays(ALL_PASSES, sample_rate / 44100), size)  # (2, 4, F)
    return ((1.5 - early) / (early - 0.5)).prod(1)


def _powers(exponents: Tensor, size: int) -> Tensor:
    """z ** exponent for whole exponents (...) at the bins of a real FFT on the circle: complex128 (..., F)."""
    angle = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)  # (N,)
    circle = torch.polar(torch.ones_like(angle), angle)  # (N,)
    turns = exponents.unsqueeze(-1) * torch.arange(size // 2 + 1) % size  # (..., F)
    return circle[turns].mul_((DECAY ** (exponents.double() / -size)).unsqueeze(-1))


@lru_cache(maxsize=2)  # of seconds of work; every module of the same settings shares it
def rooms(
    count: int,
    reverberance: tuple[float, float],
    damping: tuple[float, float],
    scale: tuple[float, float],
    sample_rate: int,
    length: int,
) -> Tensor:
    """Impulse responses (count, length) of rooms whose parameters are whole percentages in the three ranges.

    Ends are included. A Sobol' sequence spreads them evenly.
    """
    unit = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(count)  # (count, 3)
    low, high = torch.tensor([reverberance, damping, scale]).float().T  # (3,), (3,)
    percent = torch.minimum((low + unit * (high + 1 - low)).floor(), high)  # (count, 3)
    return torch.stack([impulse_response(r, d, s, sample_rate, length) for r, d, s in percent.tolist()])
