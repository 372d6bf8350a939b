"""The training-free descriptor of tonnetz.ftm2d as a backbone, to stand beside the networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tonnetz import ftm2d
from tonnetz.errors import UserError
from tonnetz.models.base import Backbone


class FTM2D(Backbone):
    """Median of the 2-D Fourier magnitudes of an excerpt's chroma patches: one output frame, no parameters.

    For constant-Q features in decibels with ``bins_per_octave`` a multiple of 12; ``patch`` frames every ``hop``.
    """

    min_bins = 12

    def __init__(self, channels: int, bins: int, bins_per_octave: int = 12, patch: int = 96, hop: int = 24) -> None:
        super().__init__(channels, bins)
        if bins_per_octave < 12 or bins_per_octave % 12 or patch < 2 or hop < 1:
            raise UserError(
                f"model: bins_per_octave={bins_per_octave} patch={patch} hop={hop}: bins_per_octave must be a multiple "
                "of 12, patch at least 2 and hop at least 1"
            )
        self.bins_per_octave, self.patch, self.hop = bins_per_octave, patch, hop
        self.dim, self.stride = 11 * (patch // 2 + 1), patch
        self.taps = ("chroma", "output")

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the mean chroma (B, 1, 12) and the output (B, 1, D)."""
        with torch.autocast(x.device.type, enabled=False):
            length = x.new_full(x.shape[:1], x.shape[3], dtype=torch.long) if mask is None else mask.sum(1)  # (B,)
            c = ftm2d.chroma(x, self.bins_per_octave)  # (B, 12, T)
            c = c if mask is None else c.masked_fill(~mask[:, None], 0.0)  # (B, 12, T)
            yield "chroma", (c.sum(2) / length.clamp(min=1)[:, None])[:, None], self.stride
            yield "output", ftm2d.magnitudes(c, length, self.patch, self.hop)[:, None], self.stride

    def frames(self, lengths: Tensor) -> Tensor:
        """Map valid input frames (B,) to valid output frames (B,): always 1."""
        return torch.ones_like(lengths)
