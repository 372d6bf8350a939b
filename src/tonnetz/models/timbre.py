"""A small network for timbre: cepstral frames, and what a few convolutions over time make of them, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tonnetz.models.base import Backbone, InputNorm


class Timbre(Backbone):
    """Standardised frames and `depth` dilated convolutions over time on them: (B, C, F, T) to (B, T, C F + width).

    Made for ``frontend=mfcc pooling=mean_std``: the input stands in the output untouched, so the mean and deviation of
    the cepstrum (the classic description of timbre) are always there, and the network adds what they lack. Half a
    million multiplications a second of sound with 20 coefficients.

    Args:
        channels, bins: of the front-end.
        width: channels of the convolutions.
        depth: convolutions of 3 frames, the dilation doubling; 0 hands the standardised frames on.
        dropout: before the last convolution.
    """

    def __init__(self, channels: int, bins: int, width: int = 64, depth: int = 3, dropout: float = 0.1) -> None:
        super().__init__(channels, bins)
        size = channels * bins
        self.dim, self.stride = size + (width if depth else 0), 1
        self.norm = InputNorm(channels, bins)
        inputs = [size, *[width] * (depth - 1)][:depth]
        self.convs = nn.ModuleList(
            nn.Conv1d(count, width, 3, padding=2**i, dilation=2**i) for i, count in enumerate(inputs)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in inputs)
        self.dropout = nn.Dropout(dropout)
        self.taps = ("input", *(f"conv{i + 1}" for i in range(depth)), "output")

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the standardised frames, every convolution, and both joined."""
        own = self.norm(x, mask).flatten(1, 2)  # (B, C F, T)
        keep = 1.0 if mask is None else mask[:, None].to(own.dtype)
        yield "input", own.transpose(1, 2), 1
        h, last = own, len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = norm(conv(self.dropout(h) if i == last else h)).relu() * keep  # (B, width, T)
            yield f"conv{i + 1}", h.transpose(1, 2), 1
        yield "output", torch.cat([own, h], 1).transpose(1, 2) if len(self.convs) else own.transpose(1, 2), 1
