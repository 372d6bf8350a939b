"""TUNe (Velez and Burgoyne, 2022): a U-Net on the waveform whose output goes down again through a tail."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError
from tonnetz.models.waveform import Block, Pyramid, Waveform, clear, enter, pool3


class UNet(nn.Module):
    """``down`` levels of doubling width, then ``up`` levels back, each joined with the level that it came from.

    ``last``, if given, is the width of the last level instead of its own. Levels count from 0, the full rate.
    """

    def __init__(self, inputs: int, width: int, down: int, up: int, last: int | None = None) -> None:
        super().__init__()
        if width < 1 or down < 1 or not 0 <= up < down:
            raise UserError(f"model: width={width} down={down} up={up}; needs width and down above 0, up below down")
        widths = [width * 2**level for level in range(down)]
        self.down = nn.ModuleList(Block(i, o, he=True) for i, o in zip([inputs, *widths], widths, strict=False))
        self.level = down - 1 - up  # of the output
        levels = range(down - 2, self.level - 1, -1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[n + 1], widths[n], (1, 3), (1, 3)) for n in levels)
        outputs = [last if last and n == self.level else widths[n] for n in levels]
        self.merge = nn.ModuleList(Block(2 * widths[n], o, he=True) for n, o in zip(levels, outputs, strict=True))
        self.widths = {down - 1: widths[-1], **dict(zip(levels, outputs, strict=True))}  # by level, on the way up
        self.taps = (*(f"down{n + 1}" for n in range(down)), *(f"up{n + 1}" for n in range(up)))

    def stages(self, x: Tensor, pyramid: Pyramid) -> Iterator[tuple[str, Tensor, int]]:
        """Yield (tap name, (B, C_i, 1, T / 3 ** level), level), down and up, of x (B, C, 1, T) cleared of padding."""
        skips: list[Tensor] = []
        h = x
        for level, block in enumerate(self.down):
            h = block(pool3(h) if level else h, pyramid.keep(level))
            yield f"down{level + 1}", h, level
            skips.append(h)
        level = len(skips) - 1
        for index, (up, merge) in enumerate(zip(self.up, self.merge, strict=True)):
            level -= 1
            keep, skip = pyramid.keep(level), skips[level]
            h = clear(up(h)[..., : skip.shape[-1]], keep)  # the level below was rounded up
            h = merge(torch.cat([h, skip], 1), keep)
            yield f"up{index + 1}", h, level


class Tune(Waveform):
    """The TUNe family, meant for frontend=raw: U-Net, then a pooled convolution an entry of ``tail``, their widths.

    ``skips`` joins the levels of the tail with those of the way up, as TUNe+ has it. ``up`` 0 is a plain encoder. The
    default is TUNe (Tail+5), 2,096,970 parameters with one channel; config/model/tune has the other members. Taps are
    in the order of computation, so the ``eval_layer`` k of the original code is ``taps[-1 - k]``.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 11,
        down: int = 5,
        up: int = 4,
        tail: tuple[int, ...] = (22, 44, 88, 176, 352, 352, 352, 352, 512),
        skips: bool = False,
    ) -> None:
        super().__init__(channels, bins)
        if not tail or min(tail) < 1:
            raise UserError(f"model.tail={list(tail)}: give at least one width, all above 0")
        self.unet = UNet(channels * bins, width, down, up)
        levels = range(self.unet.level + 1, self.unet.level + 1 + len(tail))
        known = self.unet.widths if skips else {}
        inputs = [
            before + known.get(n, 0)
            for n, before in zip(levels, (self.unet.widths[levels[0] - 1], *tail), strict=False)
        ]
        self.tail = nn.ModuleList(Block(i, o, he=True) for i, o in zip(inputs, tail, strict=True))
        self.skips, self.dim, self.stride = skips, tail[-1], 3 ** levels[-1]
        self.taps = (*self.unet.taps, *(f"tail{index + 1}" for index in range(len(tail))))
        # a sixth faster on CPU; the layout of the weights decides for conv2d
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield every convolution on the way down, up and through the tail, the last one as (B, T', D)."""
        pyramid, frames, made = Pyramid(mask), x.shape[-1], {}
        for name, h, level in self.unet.stages(enter(x, pyramid), pyramid):
            yield name, h, 3**level
            made[level] = h  # what was made last at a level is what the tail is joined with
        for name, block in zip(self.taps[-len(self.tail) :], self.tail, strict=True):
            level += 1
            h = pool3(h)
            h = torch.cat([h, made[level]], 1) if self.skips and level in made else h
            h = block(h, pyramid.keep(level))  # (B, C_i, 1, T / 3 ** level)
            yield name, self.whole(h, frames) if name == self.taps[-1] else h, 3**level
