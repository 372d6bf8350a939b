"""A network whose output turns when the key of the music changes, and does nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.models.base import Backbone
from tonnetz.models.cnn import keep_frames
from tonnetz.models.parts import clear

PITCHES = 12


class PitchConv(nn.Conv2d):
    """Convolution over pitch class x time that is circular in pitch class, so it commutes with transposition."""

    def __init__(
        self, inputs: int, outputs: int, pitches: int, frames: int, dilation: int = 1, stride: int = 1
    ) -> None:
        super().__init__(
            inputs,
            outputs,
            (pitches, frames),
            stride=(1, stride),
            padding=(0, dilation * (frames // 2)),
            dilation=(1, dilation),
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 12, T) to (B, C', 12, T')."""
        below = self.kernel_size[0] // 2
        above = self.kernel_size[0] - 1 - below
        return super().forward(torch.cat([x[:, :, PITCHES - below :], x, x[:, :, :above]], 2))


class Block(nn.Module):
    """Pre-activation residual block: intervals x time, then channels; starts as nearly the identity."""

    def __init__(self, width: int, frames: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.intervals = PitchConv(width, width, PITCHES, frames, dilation)
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map (B, C, 12, T) to the same shape; ``keep`` (B, 1, 1, T) of ones and zeros clears padding."""
        h = clear(F.relu(self.norm_in(x)), keep)
        h = self.mix(F.relu(self.norm_out(self.intervals(h))))
        return clear(x + self.gain * self.dropout(h), keep)


class KeyEquivariant(Backbone):
    """Chroma plus what a residual network adds to it: (B, C, F, T) in dB -> (B, T / 4, 12 planes).

    Octaves are channels, pitch classes an axis in which all convolutions are circular. A transposition of the music
    by n semitones is a rotation of the 12 values of each plane by n, the innermost axis of the output: exactly while
    no tone enters another octave, nearly otherwise, as octaves have weights of their own. The network starts as a
    chroma: the sum of squared levels over octaves, minus its mean, at unit length. Batch statistics of a training
    step include padded frames, as zeros.

    Args:
        width, depth, kernel: channels, residual blocks and frames of a kernel.
        planes: how many values a pitch class has.
        span: decibels below the loudest bin of an example that count as silence.
        residual: size of what the untrained network adds to the chroma.
        bins_per_octave: of the front-end (build knows it), a multiple of 12; the bins around a pitch are averaged.
    """

    min_bins = 12
    stride = 4
    pitches = PITCHES

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 32,
        depth: int = 4,
        kernel: int = 3,
        planes: int = 1,
        span: float = 60.0,
        residual: float = 0.3,
        dropout: float = 0.1,
        bins_per_octave: int = 12,
    ) -> None:
        super().__init__(channels, bins)
        if bins_per_octave < PITCHES or bins_per_octave % PITCHES:
            raise UserError(
                f"frontend.bins_per_octave={bins_per_octave}: model=key_equivariant needs a multiple of 12, as 12 or 36"
            )
        self.fine, self.span = bins_per_octave // PITCHES, span
        self.octaves = -(-bins // bins_per_octave)
        self.dim = planes * PITCHES
        inputs = channels * self.octaves
        weight = torch.ones(channels, self.octaves)
        if self.octaves > 4:  # the lowest octaves blur, the highest hold overtones
            weight[:, :2] = weight[:, -1:] = 0.0
        self.octave_weight = nn.Parameter(weight.flatten() / channels)  # (C O,)
        self.norm = nn.BatchNorm2d(inputs)
        self.stem = PitchConv(inputs, width, PITCHES, 5, stride=2)
        self.blocks = nn.ModuleList(Block(width, kernel, (1, 2)[i % 2], dropout) for i in range(depth))
        self.norm_out = nn.BatchNorm2d(width)
        self.output = nn.Conv2d(width, planes, 1, bias=False)
        nn.init.normal_(self.output.weight, std=residual / width**0.5)
        self.taps = ("stem", *(f"block{i + 1}" for i in range(depth)), "output")

    def fold(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Levels in [0, 1] by octave and pitch class: (B, C, F, T) in dB -> (B, C O, 12, T)."""
        if mask is not None:
            x = x.masked_fill(~mask[:, None, None], -torch.inf)
        top = x.amax((1, 2, 3), keepdim=True).clamp(min=-1e4)
        level = ((x - top) / self.span + 1).clamp(0, 1)  # (B, C, F, T)
        size = self.octaves * self.fine * PITCHES
        level = F.pad(level, (0, 0, self.fine // 2, 0), mode="replicate")[:, :, :size]  # bins on both sides of a pitch
        level = F.pad(level, (0, 0, 0, size - level.shape[2]))
        level = level.unflatten(2, (self.octaves, PITCHES, self.fine)).mean(4)  # (B, C, O, 12, T)
        return level.flatten(1, 2)

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stem, every block, and the frames (B, T', D), each of unit length."""
        level = self.fold(x.float(), mask)  # (B, C O, 12, T)
        keep = keep_frames(mask, 2, level)  # (B, 1, 1, T / 2)
        h = clear(self.stem(clear(self.norm(level), keep_frames(mask, 1, level))), keep)  # (B, W, 12, T / 2)
        yield "stem", h, 2
        for name, block in zip(self.taps[1:], self.blocks, strict=False):
            h = block(h, keep)
            yield name, h, 2
        with torch.autocast(x.device.type, enabled=False):
            h = F.pad(h.float(), (0, h.shape[-1] % 2))
            added = self.output(F.relu(self.norm_out(F.avg_pool2d(h, (1, 2)))))  # (B, P, 12, T')
            yield "output", self._frames(self.chroma(level), added, keep_frames(mask, self.stride, h)), self.stride

    def chroma(self, level: Tensor) -> Tensor:
        """Weighted sum of the squared levels (B, C O, 12, T) over octaves, without its mean: unit (B, 12, T')."""
        chroma = torch.einsum("bopt,o->bpt", level.float().square(), self.octave_weight)
        chroma = F.avg_pool1d(F.pad(chroma, (0, -chroma.shape[-1] % self.stride)), self.stride)  # (B, 12, T')
        return F.normalize(chroma - chroma.mean(1, keepdim=True), dim=1, eps=1e-4)

    def _frames(self, chroma: Tensor, added: Tensor, keep: Tensor | None) -> Tensor:
        """Add the chroma (B, 12, T') to the first of the planes (B, P, 12, T'): unit frames (B, T', 12 P)."""
        added = added - added.mean(2, keepdim=True)
        planes = clear(torch.cat([chroma[:, None] + added[:, :1], added[:, 1:]], 1), keep)  # (B, P, 12, T')
        return F.normalize(planes.flatten(1, 2).transpose(1, 2), dim=-1, eps=1e-4)
