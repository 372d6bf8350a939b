"""A transformer on patches of a spectrogram that can leave most of them out, for masked pretraining."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError
from tonnetz.models.base import Backbone, InputNorm
from tonnetz.models.conformer import sinusoids


class Block(nn.Module):
    """Pre-norm transformer block: attention, then two linear layers with GELU between them."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.attended = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.after = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, valid: Tensor | None) -> Tensor:
        """Map h (B, L, D), of which ``valid`` (B, L) may be attended to, to (B, L, D)."""
        q, k, v = self.project(self.norm_attention(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if valid is None else valid[:, None, None]  # (B, 1, 1, L)
        found = functional.scaled_dot_product_attention(q, k, v, mask)  # (B, H, L, d)
        h = h + self.dropout(self.attended(found.transpose(1, 2).flatten(2)))  # (B, L, D)
        return h + self.dropout(self.after(self.norm_after(h)))


class PatchTransformer(Backbone):
    """Patches of ``patch`` = (bins, frames) without overlap, linear, positions, ``depth`` blocks, LayerNorm.

    As in AST (Gong et al., 2021, arXiv:2104.01778), with sinusoids over time, so that any length will do, and a learned
    vector for each row of patches. An output frame is the mean of its column of patches. In training a random share
    ``visible`` of an example's patches is looked at, others are not computed (patchout, Koutini et al., 2022,
    arXiv:2110.05069): two views of one excerpt then differ in what they show, and a step is cheaper. A column
    without any is the mean of all that are. ``heads`` divides ``dim``, which is even.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        patch: tuple[int, int] = (16, 16),
        dim: int = 192,
        depth: int = 4,
        heads: int = 3,
        hidden: int = 768,
        dropout: float = 0.0,
        visible: float = 1.0,
    ) -> None:
        super().__init__(channels, bins)
        if not 0 < visible <= 1:
            raise UserError(f"model.visible={visible}: is a share of the patches, above 0 and up to 1")
        if len(patch) != 2 or min(patch) < 1:
            raise UserError(f"model.patch={list(patch)}: give two numbers above 0, bins and frames")
        if dim % heads or dim % 2:
            raise UserError(f"model: dim={dim} heads={heads}; dim must be even and a multiple of heads")
        self.height, self.stride = patch
        self.visible = visible
        self.dim, self.rows = dim, -(-bins // self.height)
        self.patch_dim = channels * self.height * self.stride
        self.norm = InputNorm(channels, bins)
        self.embed = nn.Linear(self.patch_dim, dim)
        self.row = nn.Parameter(nn.init.trunc_normal_(torch.empty(self.rows, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, dropout) for _ in range(depth))
        self.output = nn.LayerNorm(dim)
        self.taps = ("embed", *(f"block{index + 1}" for index in range(depth)), "output")

    def patches(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, F, T) and cut it into L = T' * rows patches of C * bins * frames values: (B, L, values).

        The patches of a column follow each other, from low to high; what lacks in the last ones is zeros.
        """
        h = self.norm(x, mask)  # (B, C, F, T)
        h = functional.pad(h, (0, -h.shape[-1] % self.stride, 0, self.rows * self.height - self.bins))
        h = h.unflatten(3, (-1, self.stride)).unflatten(2, (self.rows, self.height))  # (B, C, rows, bins, T', frames)
        return h.permute(0, 4, 2, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, L, values)

    def valid(self, mask: Tensor) -> Tensor:
        """Patches (B, L) with a valid frame in them, of a prefix mask (B, T)."""
        return mask[:, :: self.stride].repeat_interleave(self.rows, 1)  # (B, L)

    def positions(self, count: int) -> Tensor:
        """What is added to the first ``count`` embedded patches, (count, D)."""
        time = sinusoids(-(-count // self.rows), self.dim, self.row.device)  # (T', D)
        return (time[:, None] + self.row).flatten(0, 1)[:count]  # (count, D)

    def steps(
        self, patches: Tensor, keep: Tensor | None = None, valid: Tensor | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the taps of patches (B, L, values), all or those of the indices ``keep`` (B, K), as (B, L or K, D).

        ``valid`` (B, L) excludes padding. The others are not computed at all: the time is that of K patches.
        """
        position = self.positions(patches.shape[1]).expand(patches.shape[0], -1, -1)  # (B, L, D)
        if keep is not None:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, self.patch_dim))  # (B, K, values)
            position = position.gather(1, keep[..., None].expand(-1, -1, self.dim))  # (B, K, D)
            valid = None if valid is None else valid.gather(1, keep)  # (B, K)
        h = self.embed(patches) + position  # (B, L or K, D)
        yield "embed", h
        for name, block in zip(self.taps[1:], self.blocks, strict=False):
            h = block(h, valid)
            yield name, h
        yield "output", self.output(h)

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the embedded patches, every block and the output, the mean of each column, all (B, T', D)."""
        valid = None if mask is None else self.valid(mask)
        patches = self.patches(x, mask)
        keep = self.drawn(patches, valid) if self.training and self.visible < 1 else None
        for name, h in self.steps(patches, keep, valid):
            if keep is None:
                yield name, h.unflatten(1, (-1, self.rows)).mean(2), self.stride
            else:
                yield name, self._columns(h, keep, patches.shape[1] // self.rows, valid), self.stride

    def drawn(self, patches: Tensor, valid: Tensor | None) -> Tensor:
        """Which patches (B, K) of (B, L, values) are visible, by chance; those that are padding come last."""
        chance = torch.rand(patches.shape[:2], device=patches.device)
        chance = chance if valid is None else chance + (~valid).float()
        return chance.argsort(1)[:, : max(1, round(self.visible * patches.shape[1]))]

    def _columns(self, h: Tensor, keep: Tensor, columns: int, valid: Tensor | None) -> Tensor:
        """Mean (B, T', D) by column of the patches (B, K, D) that are kept; of all of them where a column has none.

        Of the latter padding is left out.
        """
        member = functional.one_hot(keep // self.rows, columns).to(h.dtype).mT  # (B, T', K)
        real = torch.ones_like(keep) if valid is None else valid.gather(1, keep)  # (B, K)
        weight = torch.where(member.any(2, keepdim=True), member, real[:, None].to(h.dtype))
        return weight @ h / weight.sum(2, keepdim=True).clamp(min=1)
