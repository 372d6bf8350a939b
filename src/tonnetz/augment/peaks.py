"""An equaliser of a few bells."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.filter import frequencies, shape_spectrum
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.errors import UserError


class PeakEqualizer(Augmentation):
    """One to ``bands`` peaking filters of second order in a row, each with its own centre, gain and Q.

    A centre is ``hertz`` times 2 ** k, k uniform in 0 ... ``octaves``. The filters are those of the Audio EQ
    Cookbook (Bristow-Johnson), applied as their complex response to the zero-padded spectrum. Nothing is clipped.
    """

    def __init__(
        self,
        p: float = 0.5,
        bands: int = 7,
        octaves: int = 4,
        hertz: Normal = (60.0, 10.0, 40.0, 80.0),
        gain: Normal = (0.0, 6.0, -24.0, 24.0),
        q: Normal = (0.707, 0.1415, 0.3, 1.4),
        sample_rate: int = 16000,
    ) -> None:
        """Most bands and octaves; draws of the lowest octave's centre in Hz, of the gain in dB and of Q."""
        super().__init__(p, sample_rate)
        if bands < 1 or octaves < 0:
            raise UserError(f"augment PeakEqualizer.bands, octaves: {bands}, {octaves}; use 1 or more and 0 or more")
        self.bands, self.octaves = bands, octaves
        self.hertz = check_normal(self, "hertz", hertz, 1)
        self.gain = check_normal(self, "gain", gain)
        self.q = check_normal(self, "q", q, 0.1)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Centres in Hz, gains in dB (0 for bands that are not used) and Q, (B, bands) each."""
        shape = len(x), self.bands
        octave = torch.randint(self.octaves + 1, shape, device=x.device)
        count = torch.randint(1, self.bands + 1, (len(x), 1), device=x.device)
        used = torch.arange(self.bands, device=x.device) < count  # (B, bands)
        hertz = (normal(x, self.hertz, self.bands) * 2**octave).clamp(max=0.49 * self.sample_rate)
        return {"hertz": hertz, "gain": normal(x, self.gain, self.bands) * used, "q": normal(x, self.q, self.bands)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N); hertz, gain and q (B, bands) -> y of the same shape."""
        angle = frequencies(x, self.sample_rate) * (2 * math.pi / self.sample_rate)  # (F,)
        late = torch.polar(torch.ones_like(angle), -angle)  # (F,) a sample later
        centre = params["hertz"] * (2 * math.pi / self.sample_rate)  # (B, bands)
        width, slope = centre.sin() / (2 * params["q"]), 10 ** (params["gain"] / 40)
        middle = -2 * centre.cos().unsqueeze(-1) * late  # (B, bands, F)
        above, below = (width * slope).unsqueeze(-1), (width / slope).unsqueeze(-1)  # (B, bands, 1)
        even, odd = 1 + late**2, 1 - late**2
        return shape_spectrum(x, ((even + middle + above * odd) / (even + middle + below * odd)).prod(1))
