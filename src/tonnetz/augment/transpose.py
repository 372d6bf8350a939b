"""Higher or lower at the same tempo, by normally distributed semitones."""

from __future__ import annotations

from torch import Tensor

from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.pitch import PitchShift


class Transpose(PitchShift):
    """``PitchShift`` whose semitones are a clipped normal draw instead of a uniform one."""

    def __init__(
        self,
        p: float = 0.5,
        semitones: Normal = (0.0, 3.0, -7.0, 7.0),
        n_fft: int = 1024,
        sample_rate: int = 16000,
    ) -> None:
        """Draw of the semitones and FFT size in samples, a multiple of four."""
        drawn = check_normal(self, "semitones", semitones)
        super().__init__(p, drawn[2], drawn[3], n_fft, sample_rate)
        self.semitones = drawn

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Semitones (B,)."""
        return {"semitones": normal(x, self.semitones)}
