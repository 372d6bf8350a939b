"""Higher or lower at the same tempo, by normally distributed semitones."""

from __future__ import annotations

from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.grains import transpose
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.speed import doubled


class Transpose(Augmentation):
    """The ``pitch`` effect of SoX: grains of the sound, played faster or slower and joined where they fit.

    In the time domain, see ``grains.transpose``: several times as fast as the phase vocoder of ``PitchShift``.
    N samples stay N samples.
    """

    def __init__(self, p: float = 0.5, semitones: Normal = (0.0, 3.0, -7.0, 7.0), sample_rate: int = 16000) -> None:
        """Draw of the semitones, within two octaves."""
        super().__init__(p, sample_rate)
        self.semitones = check_normal(self, "semitones", semitones, -24, 24)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Semitones (B,)."""
        return {"semitones": normal(x, self.semitones)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), semitones (B,) -> shifted x (B, C, N)."""
        batch, channels, size = x.shape
        ratio = (2.0 ** (params["semitones"] / 12)).repeat_interleave(channels)  # (B C,)
        double = doubled(x.reshape(-1, size), ratio.unsqueeze(1))  # (B C, M) at twice the rate
        return transpose(double, ratio, size, self.sample_rate).reshape(batch, channels, size)
