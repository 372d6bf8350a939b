"""Frequency responses of effects as pure functions of their parameters, each example with its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

ZEROS = 8  # of the sinc function inside the window
FINENESS = 16  # samples of the response for a tap of the filter


def low_pass(cutoff: Tensor, sample_rate: int, bins: int, lowest: float) -> Tensor:
    """Windowed-sinc low-pass filter, zero phase: cut-offs (B,) Hz -> response (B, bins) from 0 to half the rate.

    A sinc function under a Hann window that ends at its ``ZEROS`` / 2-th zero on either side, gain 1 at 0 Hz. Has
    ``reach(lowest, sample_rate)`` taps on either side; no cut-off may be under ``lowest``. The response is taken at
    ``FINENESS`` points a tap and linear between them, which is 1e-3 exact.
    """
    half = reach(lowest, sample_rate)
    fraction = (cutoff / sample_rate).unsqueeze(1)  # (B, 1) of the sample rate
    tap = torch.arange(half + 1, device=cutoff.device)  # (L,) the right half
    edge = (ZEROS / 2 / fraction).floor().clamp(min=1)  # (B, 1)
    window = torch.cos(math.pi / 2 * tap / edge).square() * (tap < edge)  # (B, L)
    taps = window * torch.sinc(2 * fraction * tap)
    taps = taps / (2 * taps.sum(1, keepdim=True) - taps[:, :1])
    size = 2 * next_fast_len(FINENESS * (half + 1) // 2, real=True)
    coarse = torch.fft.hfft(taps, n=size)[:, : size // 2 + 1]  # (B, G)
    return F.interpolate(coarse.unsqueeze(1), size=bins, mode="linear", align_corners=True).squeeze(1)


def reach(cutoff: float, sample_rate: int) -> int:
    """Taps on either side of a ``low_pass`` filter."""
    return max(int(ZEROS / 2 * sample_rate / cutoff), 1)


def echo(delay: Tensor, factor: float, size: int) -> Tensor:
    """(x + factor * x delayed) / 2: whole samples of delay (K,) -> response (K, size // 2 + 1) of FFTs of ``size``."""
    bins = torch.arange(size // 2 + 1, device=delay.device)  # (F,)
    turn = (delay.unsqueeze(1) * bins % size).double() * (-2 * math.pi / size)  # (K, F), exact before the sine
    return ((1 + factor * torch.polar(torch.ones_like(turn), turn)) / 2).to(torch.complex64)


def fast_size(size: int) -> int:
    """A quick FFT size not under ``size``: a multiple of 64, since powers of 3 and 5 alone are slow."""
    return 64 * next_fast_len(-(-size // 64), real=True)
