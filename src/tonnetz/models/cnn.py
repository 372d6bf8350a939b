"""A small residual 2-D convolutional network on spectrograms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tonnetz.models.base import Backbone, InputNorm


class ConvBlock(nn.Module):
    """Convolution (odd kernel, same padding) + BatchNorm + optional ReLU; T' = ceil(T / stride)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: tuple[int, int] = (1, 1), relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F', T'); ``keep`` (B, 1, 1, T') of ones and zeros clears padding."""
        h = self.relu(self.norm(self.conv(x)))  # (B, C', F', T')
        return h if keep is None else h * keep


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a projected skip connection (He et al., 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.enter = ConvBlock(inputs, outputs, stride=stride)
        self.leave = ConvBlock(outputs, outputs, relu=False)
        self.skip = ConvBlock(inputs, outputs, kernel=1, stride=stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F', T'); ``keep`` (B, 1, 1, T') of ones and zeros clears padding."""
        h = self.relu(self.leave(self.enter(x, keep)) + self.skip(x))  # (B, C', F', T')
        return h if keep is None else h * keep


def keep_frames(mask: Tensor | None, stride: int, like: Tensor) -> Tensor | None:
    """Turn the prefix mask (B, T) into ones and zeros (B, 1, 1, ceil(T / stride)) of the type of ``like``."""
    return None if mask is None else mask[:, None, None, ::stride].to(like.dtype)


class CNN(Backbone):
    """Residual network for spectrograms: 5x5 stem, ``depth`` residual stages, the bins of a frame joined.

    Every stage halves the bins and doubles the channels (``width`` after the stem); only the stem and the
    first two stages halve the frames, so the stride is 8. A linear layer maps all bins of a frame to ``dim``.
    Batch statistics of hidden layers include padded frames, as zeros.
    """

    min_bins = 8

    def __init__(
        self, channels: int, bins: int, width: int = 16, depth: int = 3, dim: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__(channels, bins)
        self.dim = dim
        self.norm = InputNorm(channels, bins)
        self.stem = ConvBlock(channels, width, kernel=5, stride=(2, 2))
        steps = [2 if index < 2 else 1 for index in range(depth)]
        self.blocks = nn.ModuleList(
            ResidualBlock(width * 2**index, width * 2 ** (index + 1), (2, step)) for index, step in enumerate(steps)
        )
        self.strides = [2 ** (1 + min(index + 1, 2)) for index in range(depth)]
        self.stride = self.strides[-1] if depth else 2
        rows = -(-bins // 2 ** (depth + 1))
        self.project = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width * 2**depth * rows, dim), nn.LayerNorm(dim), nn.ReLU()
        )
        self.taps = ("stem", *(f"block{index + 1}" for index in range(depth)), "output")
        # a quarter faster on CPU; the layout of the weights decides for conv2d
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stem, every residual stage and the output (B, T', D)."""
        h = self.norm(x, mask)  # (B, C, F, T)
        h = self.stem(h, keep_frames(mask, 2, h))  # (B, width, F / 2, T / 2)
        yield "stem", h, 2
        for name, block, stride in zip(self.taps[1:], self.blocks, self.strides, strict=False):
            h = block(h, keep_frames(mask, stride, h))  # (B, C_i, F_i, T_i)
            yield name, h, stride
        yield "output", self.project(h.permute(0, 3, 1, 2).flatten(2)), self.stride  # (B, T', D)
