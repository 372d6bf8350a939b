"""The network of CLEWS (Serra et al., 2025, arXiv:2502.16936): wide stem, pre-activation ResNet with IBN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tonnetz.models.base import Backbone
from tonnetz.models.cnn import keep_frames
from tonnetz.models.parts import BatchNorm, FrequencyPool, clear, initialise, make_norm


class Stem(nn.Module):
    """Convolution of 12 bins x 3 frames, same padding, frames halved; BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 5, 6))
        self.conv = nn.Conv2d(inputs, outputs, (12, 3), (1, 2), bias=False)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F, ceil(T / 2)); ``keep`` (B, 1, 1, T') clears padding."""
        return clear(self.norm(self.conv(self.pad(x))).relu(), keep)


class PreBlock(nn.Module):
    """Bottleneck with the norms before the convolutions (He et al., 2016, arXiv:1603.05027) and a gain of zero."""

    def __init__(self, inputs: int, outputs: int, stride: int, ibn: bool) -> None:
        super().__init__()
        hidden = outputs // 4
        self.stride = stride
        self.norm1, self.norm2, self.norm3 = make_norm(inputs, ibn), BatchNorm(hidden), BatchNorm(hidden)
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))
        same = inputs == outputs and stride == 1
        self.skip = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F', T'); ``before`` (B, 1, 1, T) and ``after`` (B, 1, 1, T') clear padding."""
        h = clear(self.norm1(x, before).relu(), before)  # (B, C, F, T)
        skip = x if self.skip is None else self.skip(h)  # (B, C', F', T')
        h = clear(self.norm2(self.conv1(h)).relu(), before)  # (B, C' / 4, F, T)
        h = self.conv3(self.norm3(self.conv2(h)).relu())  # (B, C', F', T')
        return clear(skip + self.gain * h, after)


class CLEWS(Backbone):
    """Gain and bias of the input, two convolutions of an octave by 3 frames, bottlenecks, bins joined by GeM.

    The stem has ``width / 2`` and ``width`` channels, stage i has ``blocks[i]`` bottlenecks of ``width * 2 ** i``
    channels; all but the last stage mix instance and batch norm. Both stem layers and stages 2 to 4 halve the
    frames (stride 32), the stages the bins too. ``noise`` is the deviation of Gaussian noise in training, for inputs
    scaled to 0..1 (frontend=cqt_clews). Batch statistics include padded frames, as zeros. 24,672,275 parameters
    with one channel.
    """

    min_bins = 8
    stride = 32

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 256,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        frequency: str = "gem",
        noise: float = 0.001,
    ) -> None:
        super().__init__(channels, bins)
        self.noise = noise
        self.gain, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.stem1, self.stem2 = Stem(channels, width // 2), Stem(width // 2, width)
        sizes = [width, *(width * 2**index for index in range(len(blocks)))]
        self.strides = [4 * 2**index for index in range(len(blocks))]
        self.stride, self.dim = self.strides[-1], sizes[-1]
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                PreBlock(
                    sizes[index + (number > 0)],
                    sizes[index + 1],
                    2 if index and not number else 1,
                    index + 1 < len(blocks),
                )
                for number in range(count)
            )
            for index, count in enumerate(blocks)
        )
        self.norm = BatchNorm(self.dim)
        self.frequency = FrequencyPool(frequency)
        self.taps = ("stem", *(f"stage{index + 1}" for index in range(len(blocks))), "output")
        initialise(self)

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stem, every stage of bottlenecks and the output (B, T', D)."""
        x = x if mask is None else x.masked_fill(~mask[:, None, None], 0.0)  # (B, C, F, T)
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        h = clear(self.gain * x + self.bias, keep_frames(mask, 1, x))  # (B, C, F, T)
        h = self.stem1(h, keep_frames(mask, 2, h))  # (B, width / 2, F, T / 2)
        h = self.stem2(h, keep_frames(mask, 4, h))  # (B, width, F, T / 4)
        yield "stem", h, 4
        before = keep_frames(mask, 4, h)  # (B, 1, 1, T / 4)
        for name, stage, stride in zip(self.taps[1:], self.blocks, self.strides, strict=False):
            after = keep_frames(mask, stride, h)  # (B, 1, 1, T_i)
            for block in stage:  # type: ignore[attr-defined]
                h, before = block(h, before, after), after  # (B, C_i, F_i, T_i)
            yield name, h, stride
        yield "output", self.frequency(clear(self.norm(h).relu(), before)), self.stride  # (B, T', D)
