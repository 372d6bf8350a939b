"""The waveform itself."""

from __future__ import annotations

from torch import Tensor

from tonnetz.frontend.base import Frontend


class Raw(Frontend):
    """Waveform as features: (B, C, N) -> (B, C, 1, N), one frame a sample, for backbones that start from
    audio.
    """

    def __init__(self, sample_rate: int = 22050) -> None:
        """Sample rate in Hz."""
        super().__init__(sample_rate, hop=1, channels=1, bins=1, params={"sample_rate": sample_rate})

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> (B, C, 1, N)."""
        return audio.unsqueeze(-2)  # (B, C, 1, N)

    def frames(self, lengths: Tensor) -> Tensor:
        """Valid samples (B,) -> valid frames (B,): the same number."""
        return lengths
