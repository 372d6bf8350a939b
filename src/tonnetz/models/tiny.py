"""The smallest useful network: takes any features, even raw audio."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from tonnetz.models.base import Backbone, InputNorm


class Tiny(Backbone):
    """A strided 1-D convolution over all bins of a frame, then ``depth`` residual 1-D convolutions.

    Works for any number of bins, raw audio (one bin) included; meant for tests and first experiments.
    Without `norm` of the input it has no batch statistics, so processes that share a batch equal one.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        dim: int = 32,
        depth: int = 1,
        stride: int = 4,
        dropout: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__(channels, bins)
        self.dim, self.stride = dim, stride
        self.norm = InputNorm(channels, bins) if norm else None
        self.stem = nn.Conv1d(channels * bins, dim, 2 * stride + 1, stride, padding=stride)
        self.blocks = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.LayerNorm(dim)
        self.taps = ("stem", *(f"block{index + 1}" for index in range(depth)), "output")

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stem, every block and the normalised output, all (B, T', D)."""
        keep = None if mask is None else mask[:, None, :: self.stride].to(x.dtype)  # (B, 1, T')
        x = x if self.norm is None else self.norm(x, mask)
        h = self.stem(x.flatten(1, 2)).relu()  # (B, D, T')
        yield "stem", h.transpose(1, 2), self.stride
        for name, block in zip(self.taps[1:], self.blocks, strict=False):
            # a convolution must see zeros after the last valid frame, as in an unpadded example
            h = h + functional.relu(self.dropout(block(h if keep is None else h * keep)))  # (B, D, T')
            yield name, h.transpose(1, 2), self.stride
        yield "output", self.output(h.transpose(1, 2)), self.stride  # (B, T', D)
