"""Several voices out of one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.normal import Normal, check_normal, normal
from tonnetz.augment.sweep import coin, sweep
from tonnetz.errors import UserError

Pair = tuple[float, float]


class Chorus(Augmentation):
    """The ``chorus`` effect of SoX: y = gain_out * (gain_in * x + sum of decay_v * x delayed), clipped to -1 ... 1.

    The delay of a voice swings between its ``delays`` and that plus its ``depths``, at its own ``speeds``, by a sine or
    a triangle at even odds, and is read by linear interpolation. What belongs to a voice is uniform in its range.
    """

    def __init__(
        self,
        p: float = 0.5,
        gain_in: Normal = (0.3, 0.1, 0.1, 0.5),
        gain_out: Normal = (0.8, 0.1, 0.5, 1.0),
        voices: Normal = (3, 1, 2, 8),
        delays: Pair = (40.0, 60.0),
        decays: Pair = (0.3, 0.4),
        speeds: Pair = (0.25, 0.4),
        depths: Pair = (1.0, 3.0),
        sample_rate: int = 16000,
    ) -> None:
        """Draws of the gains as factors and of the number of voices, rounded; ranges in ms, factors, Hz and ms."""
        super().__init__(p, sample_rate)
        self.gain_in = check_normal(self, "gain_in", gain_in, 0, 1)
        self.gain_out = check_normal(self, "gain_out", gain_out, 0, 1)
        self.voices = check_normal(self, "voices", voices, 1, 64)
        ranges = {"delays": delays, "decays": decays, "speeds": speeds, "depths": depths}
        for name, values in ranges.items():
            if len(values) != 2 or values[0] < 0:
                raise UserError(f"augment Chorus.{name}: {list(values)} is no range; write [low, high], 0 or more")
            check_order(self, values[0], values[1], name)
        if speeds[0] <= 0:
            raise UserError(f"augment Chorus.speeds: {list(speeds)}; a speed must be above 0 Hz")
        self.ranges = {name: (values[0], values[1]) for name, values in ranges.items()}

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """gain_in, gain_out and voices (B,); delays, decays, speeds, depths and triangle (B, V) for the most voices."""
        most = round(self.voices[3])
        own = {name: uniform(x, low, high, most) for name, (low, high) in self.ranges.items()}
        gains = {"gain_in": normal(x, self.gain_in), "gain_out": normal(x, self.gain_out)}
        return {**gains, "voices": normal(x, self.voices).round().long(), **own, "triangle": coin(x, most)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) and the parameters of ``draw`` -> y of the same shape."""
        size = x.shape[-1]
        line = F.pad(x.float(), (1, 0))  # (B, C, 1 + N), 0 is the silence before the sound
        time = torch.arange(1, size + 1, device=x.device)
        total = params["gain_in"].view(-1, 1, 1) * x
        for v in range(int(params["voices"].max())):  # one at a time: all at once would take V times the memory
            swing = sweep(params["speeds"][:, v], params["triangle"][:, v], 0.25, size, self.sample_rate)  # (B, N)
            late = params["delays"][:, v : v + 1] + params["depths"][:, v : v + 1] * swing.float()  # (B, N) in ms
            late = late * (self.sample_rate / 1000)
            whole = late.floor()
            place = (time - whole.long()).unsqueeze(1).expand(-1, x.shape[1], -1)  # (B, C, N)
            near, far = (line.gather(-1, (place - k).clamp(min=0)) for k in (0, 1))
            decay = params["decays"][:, v] * (v < params["voices"])  # (B,)
            total = total + decay.view(-1, 1, 1) * torch.lerp(near, far, (late - whole).unsqueeze(1))
        return (params["gain_out"].view(-1, 1, 1) * total).clamp(-1, 1)
