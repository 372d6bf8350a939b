"""Moving notches: a feedback comb whose delay swings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.sweep import coin, sweep

EXACT = 1e-6  # of the feedback is left out


class Phaser(Augmentation):
    """The ``phaser`` effect of SoX: u[i] = gain_in * x[i] + decay * u[i - d[i]], y = gain_out * u, clipped to -1 ... 1.

    d swings by a sine or a triangle, at even odds, between one sample and ``delay``. The recursion is linear, so
    u = (1 + A) (1 + A^2) (1 + A^4) ... gain_in * x with (A u)[i] = decay * u[i - d[i]], whose powers are delays
    again: a handful of gathers instead of a loop over samples.
    """

    def __init__(
        self,
        p: float = 0.5,
        delay: Normal = (3.0, 0.1, 0.0, 5.0),
        decay: Normal = (0.4, 0.05, 0.1, 0.5),
        speed: Normal = (0.5, 0.1, 0.1, 2.0),
        gain_in: float = 0.8,
        gain_out: float = 0.74,
        sample_rate: int = 16000,
    ) -> None:
        """Draws of the delay in ms, the decay (0 to 0.99) and the speed in Hz; gains as factors, SoX's by default."""
        super().__init__(p, sample_rate)
        self.delay = check_normal(self, "delay", delay, 0, 1000)
        self.decay = check_normal(self, "decay", decay, 0, 0.99)
        self.speed = check_normal(self, "speed", speed, 0.01, 100)
        self.gain_in, self.gain_out = gain_in, gain_out

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """delay in ms, decay, speed in Hz, and whether the sweep is a triangle, (B,) each."""
        drawn = {name: normal(x, getattr(self, name)) for name in ("delay", "decay", "speed")}
        return {**drawn, "triangle": coin(x)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) and the parameters of ``draw`` -> y of the same shape."""
        size, longest = x.shape[-1], (params["delay"].double() * self.sample_rate / 1000 + 0.5).floor().clamp(min=1)
        swing = sweep(params["speed"], params["triangle"], 0.25, size, self.sample_rate)  # (B, N)
        longest = longest.unsqueeze(1)  # (B, 1)
        late = longest - (swing * (longest - 1) + 0.5).floor()  # (B, N) d from 1 on
        time = torch.arange(1, size + 1, device=x.device)  # 0 is the silence before the sound
        source = torch.cat([torch.zeros_like(late[:, :1]), (time - late).clamp(min=0)], 1).long().unsqueeze(1)
        source = source.expand(-1, x.shape[1], -1)  # (B, C, 1 + N)
        u = torch.nn.functional.pad(self.gain_in * x.float(), (1, 0))  # (B, C, 1 + N)
        decay = params["decay"].view(-1, 1, 1)
        for _ in range(self._doublings()):
            u = torch.addcmul(u, decay, u.gather(-1, source))
            source, decay = source.gather(-1, source), decay.square()
        return (self.gain_out * u[..., 1:]).clamp(-1, 1)

    def _doublings(self) -> int:
        """Factors of the product, so that what follows is less than ``EXACT``."""
        terms = math.log(EXACT) / math.log(max(self.decay[3], EXACT))
        return math.ceil(math.log2(max(terms, 2)))
