"""An artificial room with normally distributed parameters."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.freeverb import impulse_response
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.response import fast_size
from tonnetz.errors import UserError

SECONDS = 4.0  # after which reverberation is cut off


class Reverb(Augmentation):
    """The ``reverb`` effect of SoX: the sound plus its reverberation by Freeverb, the latter with a gain.

    Reverberance, damping and room scale, in per cent, are those of one of ``rooms`` rooms, which are computed once and
    spread over the three draws evenly (see ``freeverb.impulse_response``); the gain is each example's own. Nothing is
    clipped, no tail goes round, what is late is cut.
    """

    responses: Tensor

    def __init__(
        self,
        p: float = 0.5,
        reverberance: Normal = (50.0, 15.0, 0.0, 100.0),
        damping: Normal = (50.0, 25.0, 0.0, 100.0),
        room: Normal = (50.0, 25.0, 0.0, 100.0),
        gain: Normal = (0.0, 2.0, -3.0, 3.0),
        rooms: int = 128,
        sample_rate: int = 16000,
    ) -> None:
        """Draws in per cent and of the reverberation's gain in dB; number of rooms."""
        super().__init__(p, sample_rate)
        self.reverberance = check_normal(self, "reverberance", reverberance, 0, 100)
        self.damping = check_normal(self, "damping", damping, 0, 100)
        self.room = check_normal(self, "room", room, 0, 100)
        self.gain = check_normal(self, "gain", gain)
        if rooms < 1:
            raise UserError(f"augment Reverb.rooms: {rooms}; choose at least 1")
        self.rooms = rooms
        self.register_buffer("responses", torch.zeros(0), persistent=False)  # filled when the size is known
        self.prepared: tuple[int, torch.device] | None = None

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Room, its place in the bank, and gain in dB, (B,) each."""
        return {"room": torch.randint(self.rooms, (len(x),), device=x.device), "gain": normal(x, self.gain)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N), room and gain (B,) -> y of the same shape."""
        size = x.shape[-1]
        tail = min(size, int(SECONDS * self.sample_rate))
        fft = fast_size(size + tail)
        if self.prepared != (size, x.device):
            draws = (self.reverberance, self.damping, self.room)
            self.responses = torch.fft.rfft(wet_rooms(self.rooms, draws, self.sample_rate, tail).to(x.device), n=fft)
            self.prepared = size, x.device
        spectrum = torch.fft.rfft(x.float(), n=fft) * self.responses[params["room"]].unsqueeze(1)  # (B, C, F)
        return x + 10 ** (params["gain"].view(-1, 1, 1) / 20) * torch.fft.irfft(spectrum, n=fft)[..., :size]


@lru_cache(maxsize=2)  # of seconds of work; every module of the same settings shares it
def wet_rooms(count: int, draws: tuple[Normal, ...], sample_rate: int, length: int) -> Tensor:
    """Reverberation alone, (count, length), of rooms whose three parameters are clipped normal draws.

    A Sobol' sequence, through the quantiles of the normal distribution, spreads them evenly.
    """
    unit = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(count, dtype=torch.float64)  # (count, 3)
    mean, deviation, low, high = torch.tensor(draws, dtype=torch.float64).T  # (3,) each
    scores = torch.special.ndtri(unit.clamp(1e-6, 1 - 1e-6))
    percent = (mean + deviation * scores).maximum(low).minimum(high)
    bank = torch.stack([impulse_response(r, d, s, sample_rate, length) for r, d, s in percent.tolist()])
    bank[:, 0] -= 1  # the dry sound
    return bank
