"""The ResNet50-IBN of ByteCover (Du et al., 2021 and 2022): half instance norm in the early stages."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from tonnetz.models.base import Backbone, InputNorm
from tonnetz.models.cnn import keep_frames
from tonnetz.models.parts import BatchNorm, FrequencyPool, clear, initialise, make_norm


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a skip connection, at first the skip alone; IBN after the first one."""

    def __init__(self, inputs: int, hidden: int, stride: int, ibn: bool) -> None:
        super().__init__()
        outputs = 4 * hidden
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.norm1, self.norm2, self.norm3 = make_norm(hidden, ibn), BatchNorm(hidden), BatchNorm(outputs)
        nn.init.zeros_(self.norm3.weight)
        same = inputs == outputs and stride == 1
        self.skip = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.skip_norm = None if same else BatchNorm(outputs)

    def forward(self, x: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F', T'); ``before`` (B, 1, 1, T) and ``after`` (B, 1, 1, T') clear padding."""
        h = clear(self.norm1(self.conv1(x), before).relu(), before)  # (B, hidden, F, T)
        h = self.norm3(self.conv3(self.norm2(self.conv2(h)).relu()))  # (B, C', F', T')
        if self.skip is not None and self.skip_norm is not None:
            x = self.skip_norm(self.skip(x))
        return clear((h + x).relu(), after)


class ByteCover(Backbone):
    """ResNet50-IBN-a on spectrograms, bins joined by ``frequency``: ``gem``, ``mean`` or ``max``.

    Stages of ``blocks`` bottlenecks with ``width``, 2, 4 and 8 ``width`` hidden channels and four times as many
    outputs; the last stage keeps the resolution when ``last_stride`` is 1 (ByteCover; the stride is then 16) and
    halves it when it is 2. Batch statistics include padded frames, as zeros. Two vectors a bin and 23,501,761
    parameters with one channel.
    """

    min_bins = 8

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        last_stride: int = 1,
        frequency: str = "gem",
    ) -> None:
        super().__init__(channels, bins)
        self.input_norm = InputNorm(channels, bins)
        self.conv = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
        self.norm = BatchNorm(width)
        last = len(blocks) - 1
        steps = [1 if not index else last_stride if index == last else 2 for index in range(len(blocks))]
        self.blocks, self.strides, inputs, stride = nn.ModuleList(), [], width, 4
        for index, (count, step) in enumerate(zip(blocks, steps, strict=True)):
            hidden = width * 2**index
            stage = nn.ModuleList()
            for number in range(count):
                stage.append(Bottleneck(inputs, hidden, 1 if number else step, index < last))
                inputs = 4 * hidden
            stride *= step
            self.blocks.append(stage)
            self.strides.append(stride)
        self.dim, self.stride = inputs, stride
        self.frequency = FrequencyPool(frequency)
        self.taps = ("stem", *(f"stage{index + 1}" for index in range(len(blocks))), "output")
        initialise(self)

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stem, every stage of bottlenecks and the output (B, T', D)."""
        h = self.input_norm(x, mask)  # (B, C, F, T)
        h = clear(self.norm(self.conv(h)).relu(), keep_frames(mask, 2, h))  # (B, width, F / 2, T / 2)
        before = keep_frames(mask, 4, h)  # (B, 1, 1, T / 4)
        h = clear(functional.max_pool2d(h, 3, 2, padding=1), before)  # (B, width, F / 4, T / 4)
        yield "stem", h, 4
        for name, stage, stride in zip(self.taps[1:], self.blocks, self.strides, strict=False):
            after = keep_frames(mask, stride, h)  # (B, 1, 1, T_i)
            for block in stage:  # type: ignore[attr-defined]
                h, before = block(h, before, after), after  # (B, C_i, F_i, T_i)
            yield name, h, stride
        yield "output", self.frequency(h), self.stride  # (B, T', D)
