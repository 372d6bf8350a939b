"""A rectangle of the features hidden."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.fill import check_fill, fill_value


class RandomErase(Augmentation):
    """One rectangle filled (Zhong et al. 2020): area a fraction of the image, corner anywhere it fits.

    The aspect (frames to bins) is log-uniform; a rectangle higher than the image is made wider instead, and
    the other way round, so that the area is the one that was drawn.
    """

    key = "features"

    def __init__(
        self,
        p: float = 0.5,
        low: float = 0.02,
        high: float = 0.2,
        aspect_low: float = 0.5,
        aspect_high: float = 2.0,
        fill: str = "min",
    ) -> None:
        """Range of the area as a fraction, of the aspect, and ``fill``: the example's ``min`` or ``mean``."""
        super().__init__(p)
        check_order(self, low, high)
        check_order(self, aspect_low, aspect_high, "aspect_low, aspect_high")
        check_fill(self, fill)
        self.low, self.high, self.fill = low, high, fill
        self.aspect_low, self.aspect_high = aspect_low, aspect_high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Rectangle (B,) each: bottom <= bin < top, left <= frame < right."""
        bins, frames = x.shape[-2:]
        share = uniform(x, self.low, self.high)  # (B,)
        aspect = uniform(x, math.log(self.aspect_low), math.log(self.aspect_high)).exp()  # (B,)
        height = (share * bins * frames / aspect).sqrt()
        height = height.clamp(min=share * bins, max=torch.full_like(share, bins)).round().clamp(1, bins)  # (B,)
        width = (share * bins * frames / height).round().clamp(1, frames)  # (B,)
        bottom = (uniform(x, 0, 1) * (bins - height + 1)).floor()
        left = (uniform(x, 0, 1) * (frames - width + 1)).floor()
        return {"bottom": bottom, "top": bottom + height, "left": left, "right": left + width}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T) with the rectangle filled."""
        edge = {name: value.view(-1, 1, 1, 1) for name, value in params.items()}  # (B, 1, 1, 1)
        bins = torch.arange(x.shape[-2], device=x.device).unsqueeze(1)  # (F, 1)
        frames = torch.arange(x.shape[-1], device=x.device)  # (T,)
        rows = (bins >= edge["bottom"]) & (bins < edge["top"])  # (B, 1, F, 1)
        columns = (frames >= edge["left"]) & (frames < edge["right"])  # (B, 1, 1, T)
        return torch.where(rows & columns, fill_value(x, self.fill), x)
