"""Convolutions followed by a bidirectional recurrent layer."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tonnetz.models.base import Backbone, InputNorm
from tonnetz.models.cnn import ConvBlock, keep_frames


class CRNN(Backbone):
    """Convolutional recurrent network (Choi et al., 2017, arXiv:1609.04243) with a bidirectional GRU.

    ``depth`` 3x3 convolutions halve the bins; the first two halve the frames too (stride 4). The GRU has
    ``recurrent`` layers with ``dim / 2`` units per direction; padded frames never reach it.
    """

    min_bins = 8

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 16,
        depth: int = 4,
        dim: int = 128,
        recurrent: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(channels, bins)
        self.dim = dim
        self.norm = InputNorm(channels, bins)
        sizes = [channels, *(width * 2 ** min(index, 3) for index in range(depth))]
        self.blocks = nn.ModuleList(
            ConvBlock(sizes[index], sizes[index + 1], stride=(2, 2 if index < 2 else 1)) for index in range(depth)
        )
        self.strides = [2 ** min(index + 1, 2) for index in range(depth)]
        self.stride = self.strides[-1] if depth else 1
        self.dropout = nn.Dropout(dropout)
        rows = -(-bins // 2**depth)
        self.rnn = nn.GRU(sizes[-1] * rows, dim // 2, recurrent, batch_first=True, bidirectional=True)
        self.taps = (*(f"block{index + 1}" for index in range(depth)), "output")

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield every convolution and the recurrent output (B, T', D)."""
        h = self.norm(x, mask)  # (B, C, F, T)
        for name, block, stride in zip(self.taps, self.blocks, self.strides, strict=False):
            h = block(h, keep_frames(mask, stride, h))  # (B, C_i, F_i, T_i)
            yield name, h, stride
        frames = self.dropout(h.permute(0, 3, 1, 2).flatten(2))  # (B, T', C_i * F_i)
        yield "output", self._recur(frames, mask), self.stride

    def _recur(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Run the GRU over the valid frames of h (B, T', E); padded frames become zeros (B, T', D)."""
        if mask is None:
            return self.rnn(h)[0]  # (B, T', D)
        lengths = self.frames(mask.sum(1)).cpu()  # (B,)
        packed = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=h.shape[1])[0]  # (B, T', D)
