"""The four-block convolutional network of few-shot learning, as Music Trees uses it on mel spectrograms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.models.base import Backbone
from tonnetz.models.cnn import keep_frames


class Conv4(Backbone):
    """Blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max-pooling; the bins of a frame are joined.

    With 128 bins and a width of 128 a frame has 1,024 values; ``pooling=max task.dim=128`` make of it the embedding
    of Music Trees, of 0.58 M parameters. Frames that do not fill a stride are dropped, as floor pooling drops them.

    Args:
        channels, bins: of the front-end.
        width: channels of every block.
        depth: blocks; the stride is 2 to the power of it.
        momentum: of the batch statistics. Music Trees has 0.9, which makes the running ones those of the last batch.
    """

    def __init__(self, channels: int, bins: int, width: int = 128, depth: int = 4, momentum: float = 0.1) -> None:
        super().__init__(channels, bins)
        self.stride = 2**depth
        rows = max(bins // self.stride, 1)
        self.dim = width * rows
        self.pad_bins = max(self.stride - bins, 0)
        self.norm = nn.BatchNorm2d(channels, momentum=momentum)
        inputs = [channels, *[width] * (depth - 1)]
        self.convs = nn.ModuleList(nn.Conv2d(size, width, 3, padding=1) for size in inputs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=momentum) for _ in inputs)
        self.taps = (*(f"block{i + 1}" for i in range(depth - 1)), "output")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on CPU

    def _fit(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Input and mask of whole strides: the last frames are dropped, a short input is filled with zeros."""
        frames = max(x.shape[-1] // self.stride, 1) * self.stride
        extra = frames - x.shape[-1]
        x = F.pad(x, (0, extra, 0, self.pad_bins))
        return x, None if mask is None else F.pad(mask, (0, extra))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed x (B, C, F, T) with prefix mask (B, T) into frames (B, T // stride, D)."""
        return super().forward(*self._fit(x, mask))

    def layers(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return every tap (B, T', D_i) by name, averaged over frequency and over each output frame."""
        return super().layers(*self._fit(x, mask))

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield every block and, of the last, the frames (B, T', D)."""
        h = _clear(self.norm(x), keep_frames(mask, 1, x))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = _clear(F.relu(norm(conv(h))), keep_frames(mask, 2**i, h))  # zeros lose every maximum
            h = F.max_pool2d(h, 2)  # (B, width, F / 2, T / 2)
            if i + 1 < len(self.convs):
                yield self.taps[i], h, 2 ** (i + 1)
        yield "output", h.permute(0, 3, 1, 2).flatten(2), self.stride

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,), at least 1."""
        return (lengths // self.stride).clamp(min=1)


def _clear(h: Tensor, keep: Tensor | None) -> Tensor:
    return h if keep is None else h * keep
