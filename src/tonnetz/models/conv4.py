"""The four-block convolutional network of few-shot learning, as Music Trees uses it on mel spectrograms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.models.base import Backbone, length_mask
from tonnetz.models.cnn import keep_frames
from tonnetz.models.parts import clear


class Conv4(Backbone):
    """Blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max-pooling; the bins of a frame are joined.

    With 128 bins and a width of 128 a frame has 1,024 values; ``pooling=max task.dim=128`` make of it the embedding
    of Music Trees, of 0.58 M parameters. Frames that do not fill a stride are dropped, as floor pooling drops them.
    Batch statistics of hidden layers include padded frames, as zeros.

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
        """Input and mask of whole strides: the last frames of an example are dropped, a short one is filled up."""
        size = x.shape[-1]
        frames = max(size // self.stride, 1) * self.stride
        x = F.pad(x, (0, frames - size, 0, self.pad_bins))
        if mask is None and frames <= size:
            return x, None
        lengths = x.new_full(x.shape[:1], size, dtype=torch.long) if mask is None else mask.sum(1)
        whole = lengths // self.stride * self.stride
        return x, length_mask(torch.where(whole > 0, whole, lengths), frames)

    def _normalise(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The input normalised by the statistics of valid frames, zeros elsewhere."""
        if mask is None:
            return self.norm(x)
        if not self.training:
            return self.norm(x).masked_fill(~mask[:, None, None], 0.0)
        frames = x.permute(0, 3, 1, 2)  # (B, T, C, F)
        valid = self.norm(frames[mask][..., None])[..., 0]  # (valid frames, C, F)
        return valid.new_zeros(frames.shape).masked_scatter(mask[..., None, None], valid).permute(0, 2, 3, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed x (B, C, F, T) with prefix mask (B, T) into frames (B, T // stride, D)."""
        return super().forward(*self._fit(x, mask))

    def layers(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return every tap (B, T', D_i) by name, averaged over frequency and over each output frame."""
        return super().layers(*self._fit(x, mask))

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield every block and, of the last, the frames (B, T', D)."""
        h = self._normalise(x, mask)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = clear(F.relu(norm(conv(h))), keep_frames(mask, 2**i, h))  # zeros lose every maximum
            h = F.max_pool2d(h, 2)  # (B, width, F / 2, T / 2)
            if i + 1 < len(self.convs):
                yield self.taps[i], h, 2 ** (i + 1)
        yield "output", h.permute(0, 3, 1, 2).flatten(2), self.stride

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,), at least 1."""
        return (lengths // self.stride).clamp(min=1)
