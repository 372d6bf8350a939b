"""Another key in the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation
from tonnetz.augment.fill import fill_value
from tonnetz.errors import UserError

METHODS = ("default", "circular", "zero_fill", "low_melody", "flex_melody")
LOWEST = -128.0  # dB, what flex_melody leaves behind
NEIGHBOURS = 8  # bins above the seam that low_melody's noise resembles
SEAM = 5  # bins that low_melody blends


class RollPitch(Augmentation):
    """Shift along the bins, so a transposition of a constant-Q spectrogram; whole bins, drawn uniformly.

    ``default``: by -shift, 0 or +shift, what leaves at one end enters at the other (CoverHunter).
    ``circular``: by any number from -shift to shift, likewise.
    ``zero_fill``: by any number from -shift to shift, the example's minimum where nothing is left (CLEWS).
    ``low_melody``: upwards by 1 to shift; below the lowest bin stands noise like the bins above it, which fades
    towards the quietest bin and is blended into their mirror image at the seam.
    ``flex_melody``: from -d to u, both at most shift, such that the tonal centre (mean bin of the loudest tenth of
    all cells) stays inside; -128 where nothing is left.
    """

    key = "features"

    def __init__(
        self, p: float = 0.5, method: str = "default", shift: int = 12, bins_per_octave: int | None = None
    ) -> None:
        """Method, largest shift in semitones, and bins of an octave, a multiple of twelve.

        Of a null, `build` makes the front-end's; 12 by itself, and for a front-end without octaves.
        """
        super().__init__(p)
        bins_per_octave = 12 if bins_per_octave is None else bins_per_octave
        if method not in METHODS:
            raise UserError(f"augment RollPitch.method: {method!r} is unknown; use {', '.join(METHODS)}")
        if shift < 1 or bins_per_octave < 12 or bins_per_octave % 12:
            raise UserError(
                f"augment RollPitch: shift {shift}, bins_per_octave {bins_per_octave} make no whole bins; "
                "use a shift of 1 or more and 12, 24 or 36 bins"
            )
        self.method, self.shift, self.bins_per_octave = method, shift, bins_per_octave
        self.decibels = method == "flex_melody"

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Shift in bins (B,) and, for low_melody, noise (B, C, S, T) for the bins that become free."""
        most = self.shift * self.bins_per_octave // 12
        if self.method == "default":
            return {"shift": most * self._integers(x, -1, 1)}
        if self.method == "circular":
            return {"shift": self._integers(x, -most, most)}
        most = min(most, x.shape[-2] - 1)  # something must stay
        if self.method == "zero_fill":
            return {"shift": self._integers(x, -most, most)}
        if self.method == "flex_melody":
            centre = tonal_centre(x)  # (B,)
            down, up = centre.floor().clamp(max=most), (x.shape[-2] - 1 - centre).floor().clamp(max=most)
            return {"shift": (torch.rand(len(x), device=x.device) * (down + up + 1)).floor().long() - down.long()}
        noise = torch.randn(*x.shape[:2], most, x.shape[-1], device=x.device)  # (B, C, S, T)
        return {"shift": self._integers(x, min(1, most), most), "noise": noise}

    def _integers(self, x: Tensor, low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (len(x),), device=x.device)

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, F, T), shift (B,) -> x with bin f at f + shift."""
        bins = x.shape[-2]
        shift = params["shift"].view(-1, 1, 1, 1)  # (B, 1, 1, 1)
        source = torch.arange(bins, device=x.device).view(1, 1, -1, 1) - shift  # (B, 1, F, 1)
        moved = x.gather(2, (source % bins).expand_as(x))  # (B, C, F, T)
        if self.method in ("default", "circular"):
            return moved
        free = (source < 0) | (source >= bins)  # (B, 1, F, 1)
        if self.method == "zero_fill":
            return torch.where(free, fill_value(x, "min"), moved)
        if self.method == "flex_melody":
            return torch.where(free, LOWEST, moved)
        return torch.where(padding(x), x, torch.where(free, low_noise(x, shift, params["noise"]), moved))


def tonal_centre(x: Tensor) -> Tensor:
    """Mean bin of the loudest tenth of all cells: (B, C, F, T) -> (B,)."""
    cells = x.flatten(1)  # (B, C F T)
    loudest = cells.topk(math.ceil(cells.shape[1] / 10), dim=1).indices  # (B, K)
    return (loudest // x.shape[3] % x.shape[2]).float().mean(1)


def padding(x: Tensor) -> Tensor:
    """Frames that have the same value in every bin: (B, C, F, T) -> (B, C, 1, T)."""
    return x.amin(2, keepdim=True) == x.amax(2, keepdim=True)


def low_noise(x: Tensor, shift: Tensor, noise: Tensor) -> Tensor:
    """What stands below the lowest bin of x (B, C, F, T) moved up by ``shift`` (B, 1, 1, 1): (B, C, F, T).

    Each frame has the mean and half the deviation of its lowest bins, fading by a raised cosine from the seam down
    to the level of the quietest bin, but within one deviation of the mean.
    """
    x = x.float()
    lowest = x[:, :, :NEIGHBOURS]  # (B, C, 8, T)
    mean, deviation = lowest.mean(2, keepdim=True), lowest.std(2, keepdim=True, correction=0)  # (B, C, 1, T)
    quietest = x.mean(3, keepdim=True).amin(2, keepdim=True)  # (B, C, 1, 1)
    below = shift - 1 - torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1)  # (B, 1, F, 1) bins to the seam
    weight = 0.5 + 0.5 * torch.cos(torch.pi * (below + 1) / (shift + 1))  # (B, 1, F, 1), near 1 at the seam
    sound = torch.nn.functional.pad(noise, (0, 0, 0, x.shape[2] - noise.shape[2]))  # (B, C, F, T)
    fill = torch.lerp(quietest, mean + 0.5 * deviation * sound, weight)
    fill = torch.minimum(torch.maximum(fill, mean - deviation), mean + deviation)
    mirror = x.gather(2, below.clamp(0, x.shape[2] - 1).expand_as(x))  # the bin as far above the seam
    share = (1 - (below + 1) / (SEAM + 1)).clamp(0, 1) * (below >= 0)  # (B, 1, F, 1)
    return torch.lerp(fill, mirror, share)
