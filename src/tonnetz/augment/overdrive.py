"""A driven amplifier."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.response import fast_size

POLE = 0.995  # of the filter that takes the direct current out
TAPS = 4096  # of its impulse response, after which it is 1e-9


class Overdrive(Augmentation):
    """The ``overdrive`` effect of SoX: a cubic soft clipper, without its direct current, beside half the dry sound.

    The shaper is s = u - u ** 3 / 3 of u = gain * x + colour / 200, and 2 / 3 in size outside -1 ... 1; then
    y = x / 2 + 3 / 4 * (s through (1 - z^-1) / (1 - 0.995 z^-1)), clipped to -1 ... 1. The recursive filter is applied
    as its impulse response by FFT, in a state of rest: unlike SoX, ``colour`` makes no click at the beginning.
    """

    def __init__(
        self,
        p: float = 0.5,
        gain: Normal = (10.0, 5.0, 0.0, 40.0),
        colour: Normal = (20.0, 5.0, 0.0, 40.0),
        sample_rate: int = 16000,
    ) -> None:
        """Draws of the gain in dB and of the colour (the amount of even harmonics), both within 0 to 100."""
        super().__init__(p, sample_rate)
        self.gain = check_normal(self, "gain", gain, 0, 100)
        self.colour = check_normal(self, "colour", colour, 0, 100)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Gain in dB and colour, (B,) each."""
        return {"gain": normal(x, self.gain), "colour": normal(x, self.colour)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), gain and colour (B,) -> y of the same shape."""
        size = x.shape[-1]
        bias = params["colour"].view(-1, 1, 1) / 200
        shaped = _soft(x.float() * 10 ** (params["gain"].view(-1, 1, 1) / 20) + bias) - _soft(bias)  # (B, C, N)
        tail = (POLE - 1) * POLE ** torch.arange(TAPS - 1, device=x.device)
        taps = torch.cat([tail.new_ones(1), tail])  # (TAPS,)
        fft = fast_size(size + TAPS)
        blocked = torch.fft.irfft(torch.fft.rfft(shaped, n=fft) * torch.fft.rfft(taps, n=fft), n=fft)[..., :size]
        return (0.5 * x + 0.75 * blocked).clamp(-1, 1)


def _soft(u: Tensor) -> Tensor:
    """The shaper: its cubic is 2 / 3 at 1, where it becomes flat."""
    u = u.clamp(-1, 1)
    return u - u**3 / 3
