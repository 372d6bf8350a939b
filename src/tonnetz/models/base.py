"""The backbone contract: features (B, C, F, T) in, frame embeddings (B, T', D) out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return the boolean prefix mask (B, size) of ``lengths`` (B,): True on valid frames."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]  # (B, size)


class InputNorm(nn.Module):
    """Batch normalisation of every channel x bin over batch and time; masked frames become zero.

    The statistics of a training step come from valid frames only, so padding (even NaN) never enters them.
    """

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels * bins)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, F, T) with prefix mask (B, T); same shape out."""
        if mask is None:
            return self.norm(x.flatten(1, 2)).view_as(x)  # (B, C, F, T)
        if not self.training:
            h = self.norm(x.flatten(1, 2)).view_as(x)  # (B, C, F, T)
            return h.masked_fill(~mask[:, None, None], 0.0)
        frames = x.permute(0, 3, 1, 2).flatten(2)  # (B, T, C * F)
        valid = self.norm(frames[mask])  # (valid frames, C * F)
        h = valid.new_zeros(frames.shape).masked_scatter(mask[..., None], valid)  # (B, T, C * F)
        return h.unflatten(2, x.shape[1:3]).permute(0, 2, 3, 1)  # (B, C, F, T)


class Backbone(nn.Module):
    """Base of all networks: ``forward(x (B, C, F, T), mask (B, T)) -> (B, T', D)``.

    A subclass sets ``dim``, ``stride`` and ``taps`` and writes :meth:`stages`. Masks are prefix masks: True
    on the first frames of an example, False on the padding after them. Raises UserError when there are fewer
    bins than ``min_bins``.
    """

    min_bins: int = 1
    exact_padding: bool = True
    dim: int
    stride: int
    taps: tuple[str, ...]

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        if bins < self.min_bins:
            raise UserError(
                f"model: {type(self).__name__} needs at least {self.min_bins} frequency bins but the "
                f"front-end gives {bins}; choose a front-end with more bins or another model"
            )
        self.channels, self.bins = channels, bins

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield (tap name, (B, C_i, F_i, T_i) or (B, T_i, D_i), stride) for every tap, the output last."""
        raise TypeError(f"{type(self).__name__} defines no stages")

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed x (B, C, F, T) with prefix mask (B, T) into frames (B, T', D)."""
        h = x
        for _, activation, _ in self.stages(x, mask):
            h = activation
        return h  # (B, T', D)

    def layers(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return every tap (B, T', D_i) by name, averaged over frequency and over each output frame."""
        stages = list(self.stages(x, mask))
        frames = stages[-1][1].shape[1]
        return {name: self._tap(h, mask, stride, frames) for name, h, stride in stages}

    def _tap(self, h: Tensor, mask: Tensor | None, stride: int, frames: int) -> Tensor:
        """Reduce one activation of the given stride to (B, frames, D_i)."""
        if h.ndim == 4:
            h = h.mean(2).transpose(1, 2)  # (B, T_i, D_i)
        ratio = self.stride // stride
        if ratio == 1:
            return h
        valid = h.new_ones(h.shape[:2]) if mask is None else mask[:, ::stride].to(h.dtype)  # (B, T_i)
        extra = frames * ratio - h.shape[1]
        h = functional.pad(h * valid[..., None], (0, 0, 0, extra)).unflatten(1, (frames, ratio))  # (B, T', ratio, D_i)
        valid = functional.pad(valid, (0, extra)).unflatten(1, (frames, ratio))  # (B, T', ratio)
        return h.sum(2) / valid.sum(2).clamp(min=1)[..., None]  # (B, T', D_i)

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,), at least 1."""
        return ((lengths + self.stride - 1) // self.stride).clamp(min=1)
