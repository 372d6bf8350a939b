"""SampleCNN (Lee et al., 2017, arXiv:1703.01789) as CLMR uses it (Spijkervet and Burgoyne, 2021, arXiv:2103.09410)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError
from tonnetz.models.waveform import Block, Pyramid, Waveform, enter


def check_widths(widths: Sequence[int]) -> None:
    """Raise UserError for widths that make no network."""
    if not widths or min(widths) < 1:
        raise UserError(f"model.widths={list(widths)}: give at least one width, all above 0")


class Thirds(Waveform):
    """A stem that leaves a third of the samples, a pooled convolution a width, one convolution more."""

    def __init__(self, channels: int, bins: int, stem: nn.Module, inputs: int, widths: Sequence[int]) -> None:
        """Stem (x (B, C * F, 1, T), its mask) -> (B, inputs, 1, T / 3), and channels of the blocks."""
        super().__init__(channels, bins)
        self.stem = stem
        self.blocks = nn.ModuleList(Block(i, o) for i, o in zip((inputs, *widths[:-1]), widths, strict=True))
        self.output = Block(widths[-1], widths[-1])
        self.dim, self.stride = widths[-1], 3 ** (len(widths) + 1)
        self.taps = ("stem", *(f"block{index + 1}" for index in range(len(widths))), "output")
        # a sixth faster on CPU; the layout of the weights decides for conv2d
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stem, every pooled block and the output (B, T', D)."""
        pyramid, frames = Pyramid(mask), x.shape[-1]
        x = functional.pad(enter(x, pyramid), (0, -frames % 3))  # (B, C * F, 1, T)
        h = self.stem(x, pyramid.keep(1))  # (B, C_1, 1, T / 3)
        yield "stem", h, 3
        for level, (name, block) in enumerate(zip(self.taps[1:], self.blocks, strict=False), 1):
            h = block(h, pyramid.keep(level), pool=True)  # (B, C_i, 1, T / 3 ** (level + 1))
            yield name, h, 3 ** (level + 1)
        h = self.output(h, pyramid.keep(len(self.blocks) + 1))  # (B, D, 1, T / stride)
        yield "output", self.whole(h, frames), self.stride


class SampleCNN(Thirds):
    """A strided stem, a pooled convolution a width, one convolution more; meant for frontend=raw.

    The stem has as many channels as the first block. With ten widths a frame stands for 3 ** 10 = 59,049 samples,
    2.7 s at 22,050 Hz. 2,368,512 parameters with one channel; 1.7 billion products for that many samples.
    """

    def __init__(
        self, channels: int, bins: int, widths: tuple[int, ...] = (128, 128, 256, 256, 256, 256, 256, 256, 512)
    ) -> None:
        check_widths(widths)
        super().__init__(channels, bins, Block(channels * bins, widths[0], stride=3), widths[0], widths)
