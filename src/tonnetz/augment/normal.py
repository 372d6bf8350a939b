"""Parameters drawn from a normal distribution that is clipped to a range."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.errors import UserError

Normal = Sequence[float]  # mean, standard deviation, lowest, highest


def normal(x: Tensor, values: Normal, *shape: int) -> Tensor:
    """One clipped draw for each example of x, (B, *shape) float32."""
    mean, deviation, low, high = values
    return (mean + deviation * torch.randn(len(x), *shape, device=x.device)).clamp(low, high)


def check_normal(
    owner: Augmentation, name: str, values: Normal, least: float = -math.inf, most: float = math.inf
) -> tuple[float, ...]:
    """The four numbers as a tuple; UserError unless the range is in order and within ``least`` to ``most``."""
    where = f"augment {type(owner).__name__}.{name}: {list(values)}"
    if len(values) != 4 or values[1] < 0 or values[2] > values[3]:
        raise UserError(f"{where} is no draw; write [mean, deviation, lowest, highest]")
    if values[2] < least or values[3] > most:
        raise UserError(f"{where} leaves the range of the effect; keep it within {least:g} to {most:g}")
    return tuple(values)
