"""Several boxes of one size hidden behind one value."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.errors import UserError

PUBLISHED = (-128.0, 0.0)  # dB


class EraseBoxes(Augmentation):
    """``count`` boxes, each a fixed fraction of the frames and of the bins, its corner wherever the box fits; all
    boxes of an example get one value, uniform between ``low`` and ``high`` (CoverHunter's random erase).
    """

    key = "features"

    def __init__(
        self,
        p: float = 0.5,
        count: int = 4,
        time: float = 0.25,
        frequency: float = 0.1,
        low: float = PUBLISHED[0],
        high: float = PUBLISHED[1],
    ) -> None:
        """Number of boxes, their size as fractions of the image, and range of the value (of features in dB)."""
        super().__init__(p)
        check_order(self, low, high)
        if count < 1 or not 0 < time <= 1 or not 0 < frequency <= 1:
            raise UserError(
                f"augment EraseBoxes: count {count}, time {time}, frequency {frequency} make no box; "
                "use count >= 1 and fractions above 0 and up to 1"
            )
        self.count, self.time, self.frequency, self.low, self.high = count, time, frequency, low, high
        self.decibels = (low, high) == PUBLISHED

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Corners (B, count) each, in bins and frames, and the value (B,)."""
        bins, frames = x.shape[-2:]
        height, width = self._size(bins, self.frequency), self._size(frames, self.time)
        return {
            "bottom": uniform(x, 0, bins - height + 1, self.count).floor(),
            "left": uniform(x, 0, frames - width + 1, self.count).floor(),
            "value": uniform(x, self.low, self.high),
        }

    def _size(self, length: int, fraction: float) -> int:
        return max(1, round(fraction * length))

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T) with the boxes filled."""
        rows = self._inside(x.shape[-2], params["bottom"], self.frequency)  # (B, count, F)
        columns = self._inside(x.shape[-1], params["left"], self.time)  # (B, count, T)
        hidden = torch.einsum("bkf,bkt->bft", rows.float(), columns.float()) > 0  # (B, F, T)
        return torch.where(hidden.unsqueeze(1), params["value"].view(-1, 1, 1, 1).to(x.dtype), x)

    def _inside(self, length: int, first: Tensor, fraction: float) -> Tensor:
        index = torch.arange(length, device=first.device)  # (L,)
        first = first.unsqueeze(-1)  # (B, count, 1)
        return (index >= first) & (index < first + self._size(length, fraction))
