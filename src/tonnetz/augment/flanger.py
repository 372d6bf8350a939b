"""A copy with a swinging delay, fed back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.sweep import coin, sweep

EXACT = 1e-4  # of the feedback is left out
MOST = 0.9  # rate of decay for which passes are made; a single draw beyond loses the last of its ringing


class Flanger(Augmentation):
    """The ``flanger`` effect of SoX: the sound beside a copy whose delay swings between delay and delay + depth.

    The copy is read by linear or quadratic interpolation, from the sound plus the last sample of the copy times
    regen / 100; sine or triangle and the interpolation are at even odds. Width is the copy's level in per cent, and the
    sum is balanced and clipped to -1 ... 1. Channels swing ``phase`` per cent of a turn apart. The feedback is made
    round by round for all samples at once, as many rounds as the strongest of the batch needs.
    """

    def __init__(
        self,
        p: float = 0.5,
        delay: Normal = (0.0, 5.0, 0.0, 30.0),
        depth: Normal = (2.0, 5.0, 0.0, 10.0),
        regen: Normal = (0.0, 10.0, -95.0, 95.0),
        width: Normal = (71.0, 5.0, 0.0, 100.0),
        speed: Normal = (0.5, 0.2, 0.1, 10.0),
        phase: Normal = (25.0, 7.0, 0.0, 100.0),
        sample_rate: int = 16000,
    ) -> None:
        """Draws: delay and depth in ms, regen and width in per cent, speed in Hz, phase in per cent."""
        super().__init__(p, sample_rate)
        self.delay = check_normal(self, "delay", delay, 0, 1000)
        self.depth = check_normal(self, "depth", depth, 0, 1000)
        self.regen = check_normal(self, "regen", regen, -95, 95)
        self.width = check_normal(self, "width", width, 0, 100)
        self.speed = check_normal(self, "speed", speed, 0.01, 100)
        self.phase = check_normal(self, "phase", phase, 0, 100)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """The six parameters, whether the sweep is a triangle, and whether the reading is quadratic, (B,) each."""
        names = ("delay", "depth", "regen", "width", "speed", "phase")
        drawn = {name: normal(x, getattr(self, name)) for name in names}
        return {**drawn, "triangle": coin(x), "quadratic": coin(x)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) and the parameters of ``draw`` -> y of the same shape."""
        batch, channels, size = x.shape
        rows = {name: value.repeat_interleave(channels) for name, value in params.items()}  # (R,) each, R = B C
        start = 0.75 + torch.arange(channels, device=x.device).repeat(batch) * rows["phase"] / 100  # (R,)
        swing = sweep(rows["speed"], rows["triangle"], start, size, self.sample_rate)  # (R, N)
        least = (rows["delay"] * self.sample_rate / 1000 + 0.5).floor().unsqueeze(1)
        most = ((rows["delay"] + rows["depth"]) * self.sample_rate / 1000 + 0.5).floor().unsqueeze(1)
        dry, regen = x.reshape(-1, size).float(), rows["regen"].unsqueeze(1) / 100
        copy = self._copy(dry, (least + (most - least) * swing).float(), rows["quadratic"].unsqueeze(1), regen)
        width = rows["width"].unsqueeze(1) / 100
        y = (dry + copy * width * (1 - regen.abs())) / (1 + width)
        return y.clamp(-1, 1).reshape(batch, channels, size)

    def _copy(self, dry: Tensor, late: Tensor, quadratic: Tensor, regen: Tensor) -> Tensor:
        """dry (R, N) ``late`` (R, N) samples later, with feedback: (R, N)."""
        whole = late.floor()
        part = late - whole
        third = torch.where(quadratic, part * (part - 1) / 2, 0.0)  # (R, N) weights of three samples
        second = torch.where(quadratic, part * (2 - part), part)
        taps = torch.stack([1 - second - third, second, third])  # (3, R, N)
        time = torch.arange(1, dry.shape[1] + 1, device=dry.device) - whole.long()  # 0 is the silence before
        places = torch.stack([time, time - 1, time - 2]).clamp(min=0)  # (3, R, N)
        count = 3 if bool(quadratic.any()) else 2
        line = F.pad(dry, (1, 0))  # (R, 1 + N)
        copy = _read(line, taps, places, count)
        for _ in range(_rounds(float(regen.abs().amax()))):
            line = F.pad(dry + regen * F.pad(copy[:, :-1], (1, 0)), (1, 0))
            copy = _read(line, taps, places, count)
        return copy


def _read(line: Tensor, taps: Tensor, places: Tensor, count: int) -> Tensor:
    """line (R, 1 + N) at ``count`` places (3, R, N), weighted by taps (3, R, N): (R, N)."""
    read = taps[0] * line.gather(1, places[0])
    for k in range(1, count):
        read = torch.addcmul(read, taps[k], line.gather(1, places[k]))
    return read


def _rounds(regen: float) -> int:
    """Rounds of feedback until less than ``EXACT`` is left; quadratic weights add up to at most 1.25 in size."""
    return math.ceil(math.log(EXACT) / math.log(min(1.25 * regen, MOST))) if regen > 0 else 0
