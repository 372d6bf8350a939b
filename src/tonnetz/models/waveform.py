"""What networks on the waveform share: a pyramid of levels, each with a third of the frames of the one above it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.models.base import Backbone


class Block(nn.Module):
    """Convolution over three frames, BatchNorm, ReLU: (B, C, 1, T) to (B, C', 1, T); with ``stride`` 3 to T / 3.

    ``he`` draws the weights so that ReLU keeps the variance (He et al., 2015, arXiv:1502.01852), else as torch does.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, he: bool = False) -> None:
        super().__init__()
        padding = (0, 1) if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, (1, 3), (1, stride), padding)
        self.norm = nn.BatchNorm2d(outputs)
        if he:
            nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor, keep: Tensor | None, pool: bool = False) -> Tensor:
        """Map x, zero outside valid frames, and zero what ``keep`` (B, 1, 1, T') excludes; ``pool`` then divides by 3.

        The maximum is taken before ReLU, which is the same and needs a third of the work.
        """
        h = clear(self.norm(self.conv(x)), keep)  # (B, C', 1, T')
        return functional.relu(pool3(h) if pool else h, inplace=True)


def pool3(h: Tensor) -> Tensor:
    """Maximum of every three frames, the last ones alone if need be: (B, C, 1, T) to (B, C, 1, ceil(T / 3))."""
    return functional.max_pool2d(h, (1, 3), ceil_mode=True)


def clear(h: Tensor, keep: Tensor | None) -> Tensor:
    """Set frames of finite h (B, C, 1, T) that ``keep`` (B, 1, 1, T) excludes to zero."""
    return h if keep is None else h * keep  # many times faster than masked_fill


class Pyramid:
    """The masks of all levels: frame i of level n stands for the input frames from ``i * 3 ** n`` on.

    Without padding there is nothing to clear, which spares passes over activations at full rate.
    """

    def __init__(self, mask: Tensor | None) -> None:
        known = not (torch.jit.is_tracing() or torch.compiler.is_compiling())  # may a value decide what is computed?
        self.mask = None if mask is None or (known and bool(mask.all())) else mask

    def keep(self, level: int) -> Tensor | None:
        """The valid frames of a level, (B, 1, 1, T / 3 ** level); None: all of them."""
        return None if self.mask is None else self.mask[:, None, None, :: 3**level]


def enter(x: Tensor, pyramid: Pyramid) -> Tensor:
    """Features (B, C, F, T) as (B, C * F, 1, T), zero in the padding, whatever it holds."""
    x, keep = x.flatten(1, 2)[:, :, None], pyramid.keep(0)  # (B, C * F, 1, T)
    return x if keep is None else x.masked_fill(~keep, 0.0)


class Waveform(Backbone):
    """Base of the networks whose output frame stands for ``stride = 3 ** n`` samples (or frames of any features).

    Any length will do: a level has a third of the frames of the one above it, rounded up, and its last frame may stand
    for less. In the output such a rest counts from half a frame on; shorter inputs give one frame. The mean of the
    output is the representation of the original networks, which took whole frames alone.
    """

    def whole(self, h: Tensor, frames: int) -> Tensor:
        """The output (B, D, 1, ceil(T / stride)) for T input frames as (B, T', D), without a rest below half."""
        count = (2 * frames + self.stride) // (2 * self.stride)
        return h.squeeze(2).transpose(1, 2)[:, : count + (count == 0)]  # (B, T', D)

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,), rounded, at least 1."""
        return ((2 * lengths + self.stride) // (2 * self.stride)).clamp(min=1)

    def _tap(self, h: Tensor, mask: Tensor | None, stride: int, frames: int) -> Tensor:
        if h.ndim == 4:
            h = h.squeeze(2).transpose(1, 2)  # (B, T_i, D_i)
        if stride > self.stride:  # deeper than the output: a frame serves several
            return h.repeat_interleave(stride // self.stride, 1)[:, :frames]  # (B, T', D_i)
        mask = None if mask is None else mask[:, : frames * self.stride]
        return super()._tap(h[:, : frames * (self.stride // stride)], mask, stride, frames)
