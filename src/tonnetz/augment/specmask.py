"""Bands and stretches of the features hidden: SpecAugment."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, uniform
from tonnetz.augment.fill import check_fill, fill_value
from tonnetz.errors import UserError


class _Mask(Augmentation):
    """``count`` masks of width uniform in [0, width], anywhere along ``axis`` (Park et al. 2019)."""

    key = "features"
    axis: int

    def __init__(self, p: float, width: int, count: int, limit: float, fill: str) -> None:
        super().__init__(p)
        check_fill(self, fill)
        if width < 0 or count < 1 or not 0 < limit <= 1:
            raise UserError(
                f"augment {type(self).__name__}: width {width}, count {count}, limit {limit} make no mask; "
                "use width >= 0, count >= 1 and 0 < limit <= 1"
            )
        self.width, self.count, self.limit, self.fill = width, count, limit, fill

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """First and one past the last hidden index of each mask, (B, count) each."""
        size = x.shape[self.axis]
        widest = min(self.width, int(self.limit * size))
        width = uniform(x, 0, widest + 1, self.count).floor()  # (B, count)
        start = (torch.rand_like(width) * (size - width + 1)).floor()  # (B, count)
        return {"start": start.long(), "stop": (start + width).long()}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T) with start <= index < stop along the axis filled."""
        index = torch.arange(x.shape[self.axis], device=x.device)  # (L,)
        start, stop = params["start"].unsqueeze(-1), params["stop"].unsqueeze(-1)  # (B, count, 1)
        hidden = ((index >= start) & (index < stop)).any(1)  # (B, L)
        shape = (len(x), 1, -1, 1) if self.axis == -2 else (len(x), 1, 1, -1)
        return torch.where(hidden.view(shape), fill_value(x, self.fill), x)


class TimeMask(_Mask):
    """``count`` stretches of at most ``width`` frames, and of at most the fraction ``limit`` of all, are
    hidden.
    """

    axis = -1

    def __init__(self, p: float = 1.0, width: int = 40, count: int = 2, limit: float = 0.2, fill: str = "mean") -> None:
        """Width in frames; ``fill`` is the example's ``mean`` or ``min``."""
        super().__init__(p, width, count, limit, fill)


class FrequencyMask(_Mask):
    """``count`` bands of at most ``width`` bins, and of at most the fraction ``limit`` of all, are hidden."""

    axis = -2

    def __init__(self, p: float = 1.0, width: int = 8, count: int = 2, limit: float = 0.5, fill: str = "mean") -> None:
        """Width in bins; ``fill`` is the example's ``mean`` or ``min``."""
        super().__init__(p, width, count, limit, fill)
