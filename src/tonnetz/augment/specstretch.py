"""Faster or slower in the features."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, Batch, check_order
from tonnetz.errors import UserError


class SpectralStretch(Augmentation):
    """Features read at ``rate`` times the speed by linear interpolation, rate log-uniform.

    Without ``size`` T frames stay T frames from the first on: what runs over is cut off; what is missing is the
    example's minimum. ``lengths`` may be in samples or frames: ceil(lengths / rate), at most the longest of the
    batch.

    With ``size`` the output has so many frames, around the middle of the example, and takes the rest of the input
    as room: rate r reads size * r frames. Where the example is shorter than that, the rate is the highest that it
    fills; only an example of fewer than ``size`` frames leaves the end to its minimum. Examples that are not
    chosen are read at rate 1. ``lengths`` are in frames.
    """

    key = "features"

    def __init__(self, p: float = 0.5, low: float = 0.8, high: float = 1.25, size: int | None = None) -> None:
        """Range of the rate (> 0), above 1 is faster, and frames of the output (null: as many as there are)."""
        super().__init__(p)
        check_order(self, low, high)
        if low <= 0:
            raise UserError(f"augment SpectralStretch.low: {low} is no rate; use one above 0")
        if size is not None and size < 1:
            raise UserError(f"augment SpectralStretch.size: {size} frames are none; use 1 or more, or null")
        self.low, self.high, self.size = low, high, size

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Rate (B,)."""
        return {"rate": self.low * (self.high / self.low) ** torch.rand(len(x), device=x.device)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T), rate (B,) -> x at frame t * rate."""
        time = torch.arange(x.shape[-1], device=x.device) * params["rate"].unsqueeze(1)  # (B, T)
        last = torch.full_like(time[:, :1], x.shape[-1] - 1)  # (B, 1)
        return read_frames(x, time, last)

    def measure(self, lengths: Tensor, size: int, **params: Tensor) -> Tensor:
        """ceil(lengths / rate), between 1 and ``size``, (B,)."""
        return (lengths / params["rate"]).ceil().long().clamp(1, max(size, 1))

    def forward(self, batch: Batch) -> Batch:
        """Batch with ``features`` -> new batch; the same one in eval mode."""
        if self.size is None or not self.training:
            return super().forward(batch)
        x = batch[self.key]
        with torch.autocast(x.device.type, enabled=False):
            chosen = torch.rand(len(x), device=x.device) < self.p  # (B,)
            rate = torch.where(chosen, self.draw(x)["rate"], 1.0)
            full = torch.full((len(x),), x.shape[-1], device=x.device)
            lengths = full if "lengths" not in batch else batch["lengths"].clamp(1, x.shape[-1])  # (B,)
            features, valid = self.crop(x, rate, lengths, self.size)
        return {**batch, self.key: features} | ({"lengths": valid} if "lengths" in batch else {})

    def crop(self, x: Tensor, rate: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """x (B, C, F, T), rate and lengths (B,) -> (B, C, F, size) around the middle, and valid frames (B,)."""
        last = (lengths - 1).unsqueeze(1).float()  # (B, 1)
        highest = (last / max(size - 1, 1)).clamp(min=1.0)  # (B, 1): more would run out of frames
        rate = torch.minimum(rate.unsqueeze(1), highest)  # (B, 1)
        first = ((last - (size - 1) * rate) / 2).clamp(min=0)  # (B, 1)
        time = first + torch.arange(size, device=x.device) * rate  # (B, size)
        # Rounding may pass the last frame by less than a thousandth.
        valid = (time <= last + 1e-3).sum(1)  # (B,)
        return read_frames(x, torch.where(time <= last + 1e-3, time.minimum(last), time), last), valid


def read_frames(x: Tensor, time: Tensor, last: Tensor) -> Tensor:
    """x (B, C, F, T) at the fractional frames ``time`` (B, T'), linearly; the example's minimum after the frame
    ``last`` (B, 1): (B, C, F, T').
    """
    end = last.long()
    left = time.floor().long().minimum(end)  # (B, T')
    right = (left + 1).minimum(end)
    fraction = (time - left).clamp(0, 1).to(x.dtype)[:, None, None]  # (B, 1, 1, T')
    shape = (2, *x.shape[:-1], time.shape[1])
    index = torch.stack([left, right])[:, :, None, None].expand(shape)  # (2, B, C, F, T')
    read = torch.lerp(x.gather(-1, index[0]), x.gather(-1, index[1]), fraction)  # (B, C, F, T')
    return torch.where((time > last)[:, None, None], x.amin((-2, -1), keepdim=True), read)
