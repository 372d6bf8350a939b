"""A Conformer of today: rotary positions, fused attention, RMSNorm, SwiGLU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError
from tonnetz.models.base import Backbone, InputNorm, length_mask
from tonnetz.models.conformer import Subsampling, subsampled


class RMSNorm(nn.RMSNorm):
    """RMSNorm computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., D)."""
        return super().forward(x.float()).to(x.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer, 2020, arXiv:2002.05202): W3 (silu(W1 x) * W2 x), (..., D) to (..., D)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to (..., D)."""
        gate, value = self.expand(x).chunk(2, -1)  # (..., hidden) each
        return self.output(self.dropout(functional.silu(gate) * value))


def rotations(frames: int, size: int, device: torch.device | None = None) -> Tensor:
    """Return cosines and sines (2, frames, size / 2) of the rotary angles t / 10000^(2 i / size)."""
    rate = 10000.0 ** (torch.arange(0, size, 2, device=device) / -size)  # (size / 2,)
    angle = torch.arange(frames, device=device)[:, None] * rate  # (frames, size / 2)
    return torch.stack([angle.cos(), angle.sin()])  # (2, frames, size / 2)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (i, i + d / 2) of x (B, H, T, d) by rotation (2, T, d / 2) (RoPE, arXiv:2104.09864)."""
    first, second = x.float().chunk(2, -1)  # (B, H, T, d / 2) each
    cos, sin = rotation
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class RotaryAttention(nn.Module):
    """Self-attention whose scores depend on the distance of two frames, not on their places."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within x (B, T, D) to the valid keys of mask (B, T); rotation (2, T, d / 2)."""
        q, k, v = self.project(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        valid = None if mask is None else mask[:, None, None]  # (B, 1, 1, T)
        h = functional.scaled_dot_product_attention(rotate(q, rotation), rotate(k, rotation), v, valid)
        return self.output(h.transpose(1, 2).flatten(2))  # (B, T, D)


class Convolution(nn.Module):
    """Pointwise, GLU, depthwise, RMSNorm, SiLU and pointwise, on (B, T, D); no statistics of the batch."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = RMSNorm(dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Convolve x (B, T, D) over time; frames outside mask (B, T) count as zeros."""
        h = functional.glu(self.expand(x), -1)  # (B, T, D)
        h = h if mask is None else h.masked_fill(~mask[..., None], 0.0)
        h = self.depthwise(h.transpose(1, 2)).transpose(1, 2)  # (B, T, D)
        return self.output(functional.silu(self.norm(h)))


class RotaryBlock(nn.Module):
    """Pre-norm macaron block: half SwiGLU, attention, convolution, half SwiGLU."""

    def __init__(self, dim: int, heads: int, ffn: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm_before, self.norm_attention = RMSNorm(dim), RMSNorm(dim)
        self.norm_convolution, self.norm_after = RMSNorm(dim), RMSNorm(dim)
        self.before = SwiGLU(dim, ffn, dropout)
        self.attention = RotaryAttention(dim, heads)
        self.convolution = Convolution(dim, kernel)
        self.after = SwiGLU(dim, ffn, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """Map x (B, T, D) with rotation (2, T, d / 2) and mask (B, T) to (B, T, D)."""
        x = x + 0.5 * self.dropout(self.before(self.norm_before(x)))
        x = x + self.dropout(self.attention(self.norm_attention(x), rotation, mask))
        x = x + self.dropout(self.convolution(self.norm_convolution(x), mask))
        return x + 0.5 * self.dropout(self.after(self.norm_after(x)))


class RotaryConformer(Backbone):
    """CoverHunter's subsampling by 4, then ``depth`` blocks with rotary positions, then RMSNorm.

    Unlike ``conformer`` nothing depends on where in the excerpt a frame is, and past the input there are no batch
    statistics. ``heads`` divides ``dim`` into even parts; ``kernel`` is odd. 2,410,048 parameters with 96 bins.
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
    ) -> None:
        super().__init__(channels, bins)
        if dim % (2 * heads) or kernel % 2 == 0:
            raise UserError(
                f"model: dim={dim} heads={heads} kernel={kernel}: heads must divide dim into even parts and kernel "
                "must be odd, for example dim=128 heads=4 kernel=15"
            )
        self.dim, self.size = dim, dim // heads
        self.norm = InputNorm(channels, bins)
        self.subsampling = Subsampling(channels, bins, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(RotaryBlock(dim, heads, ffn, kernel, dropout) for _ in range(depth))
        self.output = RMSNorm(dim)
        self.taps = ("subsampling", *(f"block{index + 1}" for index in range(depth)), "output")

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the subsampled input, every block and the normalised output, all (B, T', D)."""
        h = self.subsampling(self.norm(x, mask))  # (B, T', D)
        yield "subsampling", h, self.stride
        rotation = rotations(h.shape[1], self.size, h.device)  # (2, T', d / 2)
        valid = None if mask is None else length_mask(self.frames(mask.sum(1)), h.shape[1])  # (B, T')
        h = self.dropout(h)
        for name, block in zip(self.taps[1:], self.blocks, strict=False):
            h = block(h, rotation, valid)  # (B, T', D)
            yield name, h, self.stride
        yield "output", self.output(h), self.stride  # (B, T', D)

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,)."""
        return subsampled(lengths)
