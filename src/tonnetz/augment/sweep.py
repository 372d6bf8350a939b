"""The slow oscillator that moves the delay of a phaser, flanger or chorus."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sweep(speed: Tensor, triangle: Tensor, start: float | Tensor, size: int, sample_rate: int) -> Tensor:
    """Sine or triangle between 0 and 1: speed (R,) Hz, triangle (R,) bool -> (R, size) float64.

    ``start``, in turns, is a number or (R,); at 0 both are at .5 and rise. A period is a whole number of samples.
    """
    period = (sample_rate / speed.double() + 0.5).floor().unsqueeze(1)  # (R, 1)
    first = torch.as_tensor(start, dtype=torch.float64, device=speed.device).expand(len(speed)).unsqueeze(1)
    time = torch.arange(size, device=speed.device) + (first * period + 0.5).floor()  # (R, size)
    turns = (time / period).frac()
    tent = 1 - 2 * ((turns + 0.25).frac() - 0.5).abs()
    return torch.where(triangle.unsqueeze(1), tent, (torch.sin(2 * math.pi * turns) + 1) / 2)


def coin(x: Tensor, *shape: int) -> Tensor:
    """A fair coin for each example of x, (B, *shape) bool."""
    return torch.rand(len(x), *shape, device=x.device) < 0.5
