"""The Conformer (arXiv:2005.08100) as the encoder of CoverHunter (Liu et al., 2023, arXiv:2306.09025)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.models.base import Backbone, InputNorm, length_mask


class Subsampling(nn.Module):
    """Two unpadded 3x3 convolutions with stride 2 and a linear layer: T' = ((T - 1) // 2 - 1) // 2."""

    def __init__(self, channels: int, bins: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, dim, 3, stride=2), nn.ReLU(), nn.Conv2d(dim, dim, 3, stride=2), nn.ReLU()
        )
        self.linear = nn.Linear(dim * (((bins - 1) // 2 - 1) // 2), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, T) to (B, T', D); inputs shorter than 7 frames are padded with zeros to 7."""
        x = functional.pad(x, (0, max(0, 7 - x.shape[-1])))  # (B, C, F, T)
        h = self.conv(x.transpose(2, 3))  # (B, D, T', F')
        return self.linear(h.transpose(1, 2).flatten(2))  # (B, T', D)


def subsampled(lengths: Tensor) -> Tensor:
    """Valid frames (B,) after the subsampling of lengths (B,): ((L - 1) // 2 - 1) // 2, at least 1."""
    return (((lengths - 1) // 2 - 1) // 2).clamp(min=1)


class FeedForward(nn.Sequential):
    """Linear, SiLU, dropout, linear: (..., D) to (..., D)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, dim))


class Attention(nn.Module):
    """Self-attention with scores [(q + u) k^T + (q + v) p^T] / sqrt(d), p the *absolute* key position.

    The attention of Transformer-XL (arXiv:1901.02860) without its relative shift, as in CoverHunter.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)
        self.content_bias = nn.Parameter(torch.empty(heads, dim // heads))
        self.position_bias = nn.Parameter(torch.empty(heads, dim // heads))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within x (B, T, D) with position (1, T, D) to the valid keys of mask (B, T)."""
        q, k, v = (self._split(layer(x)) for layer in (self.query, self.key, self.value))  # (B, H, T, d) each
        p = self._split(self.position(position)).expand_as(k)  # (B, H, T, d)
        u, w = self.content_bias[:, None].to(q.dtype), self.position_bias[:, None].to(q.dtype)  # (H, 1, d)
        # one product over 2d gives both terms: [q + u, q + w] [k, p]^T = (q + u) k^T + (q + w) p^T
        query, key = torch.cat([q + u, q + w], -1), torch.cat([k, p], -1)  # (B, H, T, 2d)
        valid = None if mask is None else mask[:, None, None]  # (B, 1, 1, T)
        h = functional.scaled_dot_product_attention(query, key, v, valid, scale=1 / math.sqrt(q.shape[-1]))
        return self.output(h.transpose(1, 2).flatten(2))  # (B, T, D)

    def _split(self, x: Tensor) -> Tensor:
        """Split x (B, T, D) into heads (B, H, T, d)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Convolution(nn.Module):
    """Pointwise, GLU, depthwise, BatchNorm, SiLU and pointwise: the convolutions of a block, on (B, T, D)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.BatchNorm1d(dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Convolve x (B, T, D) over time; frames outside mask (B, T) are zeros in it and in the result."""
        h = functional.glu(self.expand(x), -1)  # (B, T, D)
        # after the GLU, not before: its biases turn zeros into values that no unpadded example sees
        h = h if mask is None else h.masked_fill(~mask[..., None], 0.0)
        h = functional.silu(self.norm(self.depthwise(h.transpose(1, 2))))  # (B, D, T)
        h = self.output(h.transpose(1, 2))  # (B, T, D)
        return h if mask is None else h.masked_fill(~mask[..., None], 0.0)


class Block(nn.Module):
    """Pre-norm macaron block: half FFN, attention, convolution, half FFN, LayerNorm."""

    def __init__(self, dim: int, heads: int, ffn: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm_before = nn.LayerNorm(dim)
        self.norm_attention = nn.LayerNorm(dim)
        self.norm_convolution = nn.LayerNorm(dim)
        self.norm_after = nn.LayerNorm(dim)
        self.norm_output = nn.LayerNorm(dim)
        self.before = FeedForward(dim, ffn, dropout)
        self.attention = Attention(dim, heads)
        self.convolution = Convolution(dim, kernel)
        self.after = FeedForward(dim, ffn, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """Map x (B, T, D) with position (1, T, D) and mask (B, T) to (B, T, D)."""
        x = x + 0.5 * self.dropout(self.before(self.norm_before(x)))
        x = x + self.dropout(self.attention(self.norm_attention(x), position, mask))
        x = x + self.dropout(self.convolution(self.norm_convolution(x), mask))
        x = x + 0.5 * self.dropout(self.after(self.norm_after(x)))
        return self.norm_output(x)  # (B, T, D)


def sinusoids(frames: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Return the positions (frames, dim) of arXiv:1706.03762: sine in even, cosine in odd columns."""
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))  # (dim / 2,)
    angle = torch.arange(frames, device=device)[:, None] * rate  # (frames, dim / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]  # (frames, dim)


class Conformer(Backbone):
    """CoverHunter's encoder: subsampling by 4, ``depth`` blocks with absolute key positions, LayerNorm.

    2,132,160 parameters with 96 bins and default values. ``heads`` divides ``dim``, which is even; ``kernel``
    is odd. ``output_dim`` adds a linear layer from ``dim`` to so many values a frame.
    """

    min_bins = 7
    stride = 4

    def __init__(
        self,
        channels: int,
        bins: int,
        dim: int = 128,
        depth: int = 6,
        heads: int = 4,
        ffn: int = 256,
        kernel: int = 15,
        dropout: float = 0.1,
        output_dim: int | None = None,
    ) -> None:
        super().__init__(channels, bins)
        self.dim, self.width = output_dim or dim, dim
        self.norm = InputNorm(channels, bins)
        self.subsampling = Subsampling(channels, bins, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, ffn, kernel, dropout) for _ in range(depth))
        self.output = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, output_dim) if output_dim else nn.Identity()
        self.taps = ("subsampling", *(f"block{index + 1}" for index in range(depth)), "output")

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the subsampled input, every block and the normalised output, all (B, T', D)."""
        h = self.subsampling(self.norm(x, mask))  # (B, T', D)
        yield "subsampling", h, self.stride
        position = self.dropout(sinusoids(h.shape[1], self.width, h.device)[None])  # (1, T', D)
        valid = None if mask is None else length_mask(self.frames(mask.sum(1)), h.shape[1])  # (B, T')
        h = self.dropout(h * math.sqrt(self.width))  # (B, T', D)
        for name, block in zip(self.taps[1:], self.blocks, strict=False):
            h = block(h, position, valid)  # (B, T', D)
            yield name, h, self.stride
        yield "output", self.project(self.output(h)), self.stride  # (B, T', D)

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,)."""
        return subsampled(lengths)
