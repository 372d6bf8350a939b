"""The short-chunk CNN with residual connections (Won et al., 2020, arXiv:2006.00751)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from tonnetz.models.base import Backbone, InputNorm
from tonnetz.models.cnn import ConvBlock, keep_frames
from tonnetz.models.parts import FrequencyPool

FACTORS = (1, 1, 2, 2, 2, 2, 4)


class Residual(nn.Module):
    """Two 3x3 convolutions, the first with stride 2, and a third one in place of the skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = ConvBlock(inputs, outputs, stride=(2, 2))
        self.leave = ConvBlock(outputs, outputs, relu=False)
        self.skip = ConvBlock(inputs, outputs, stride=(2, 2), relu=False)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F / 2, T / 2); ``keep`` (B, 1, 1, T / 2) of ones and zeros clears padding."""
        h = (self.leave(self.enter(x, keep)) + self.skip(x)).relu()  # (B, C', F / 2, T / 2)
        return h if keep is None else h * keep


class ShortChunk(Backbone):
    """Seven residual stages that halve bins and frames, then the bins of a frame joined: stride 128.

    Stages have ``width``, twice (five of them: 1, 1, 2, 2, 2, 2) and four times as many channels, as published with
    128 on 128 mel bins; the dense layer after them belongs to a head. Convolutions before a BatchNorm have no bias.
    11,809,792 parameters with 128 bins and one channel. Batch statistics include padded frames, as zeros.
    """

    stride = 128

    def __init__(self, channels: int, bins: int, width: int = 128, frequency: str = "max") -> None:
        super().__init__(channels, bins)
        self.norm = InputNorm(channels, bins)
        widths = [channels, *(width * factor for factor in FACTORS)]
        self.blocks = nn.ModuleList(Residual(i, o) for i, o in pairwise(widths))
        self.frequency = FrequencyPool(frequency)
        self.dim = widths[-1]
        self.taps = (*(f"block{index + 1}" for index in range(len(FACTORS))), "output")
        # as in CNN: the layout of the weights decides for conv2d
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield every residual stage and the output (B, T', D)."""
        h = self.norm(x, mask)  # (B, C, F, T)
        for index, (name, block) in enumerate(zip(self.taps, self.blocks, strict=False), 1):
            h = block(h, keep_frames(mask, 2**index, h))  # (B, C_i, F / 2 ** index, T / 2 ** index)
            yield name, h, 2**index
        yield "output", self.frequency(h), self.stride  # (B, T', D)
