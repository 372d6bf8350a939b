"""What stands where features are hidden."""

from __future__ import annotations

from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.errors import UserError


def fill_value(x: Tensor, fill: str) -> Tensor:
    """The ``min`` or ``mean`` of each example and channel of x (B, C, F, T) -> (B, C, 1, 1)."""
    return x.amin((-2, -1), keepdim=True) if fill == "min" else x.mean((-2, -1), keepdim=True)


def check_fill(owner: Augmentation, fill: str) -> None:
    """Raise UserError for a fill that is neither ``min`` nor ``mean``."""
    if fill not in ("min", "mean"):
        raise UserError(f"augment {type(owner).__name__}.fill: {fill!r} is unknown; use min or mean")
