"""The hybrid of TUNe and CLMR: the U-Net of TUNe makes one channel at full rate, SampleCNN reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from tonnetz.checkpoint import load_checkpoint
from tonnetz.errors import UserError
from tonnetz.models.samplecnn import SampleCNN
from tonnetz.models.tune import UNet
from tonnetz.models.waveform import Pyramid, Waveform, enter

PLACE = "encoder.backbone."


class TuneHybrid(Waveform):
    """A U-Net of ``width``, ``down`` and ``up``, then SampleCNN of ``widths``; 2,522,505 parameters with one channel.

    ``pretrained`` names a checkpoint whose SampleCNN it starts with. ``frozen`` keeps that as it is, its running
    statistics too. Raises UserError for a checkpoint with another network.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 10,
        down: int = 5,
        up: int = 4,
        widths: tuple[int, ...] = (128, 128, 256, 256, 256, 256, 256, 256, 512),
        pretrained: str | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__(channels, bins)
        if up != down - 1:
            raise UserError(
                f"model.up={up}: SampleCNN reads the full rate; model.up must be {down - 1}, model.down - 1"
            )
        self.unet = UNet(channels * bins, width, down, up, last=1)
        self.samplecnn = SampleCNN(1, 1, widths)
        self.dim, self.stride, self.frozen = self.samplecnn.dim, self.samplecnn.stride, frozen
        self.taps = (*self.unet.taps, *self.samplecnn.taps)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if pretrained:
            self._start(pretrained)
        if frozen:
            self.samplecnn.requires_grad_(False)

    def _start(self, path: str) -> None:
        state = load_checkpoint(Path(path))["state_dict"]
        weights = {name.removeprefix(PLACE): value for name, value in state.items() if name.startswith(PLACE)}
        try:
            self.samplecnn.load_state_dict(weights)
        except RuntimeError:
            raise UserError(f"model.pretrained={path}: has no SampleCNN of widths model.widths on raw audio") from None

    def train(self, mode: bool = True) -> Self:
        """Choose training or evaluation; a frozen SampleCNN stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.samplecnn.eval()
        return self

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the stages of the U-Net, then those of SampleCNN, the last one as (B, T', D)."""
        h = x
        for name, h, level in self.unet.stages(enter(x, pyramid := Pyramid(mask)), pyramid):
            yield name, h, 3**level
        yield from self.samplecnn.stages(h, pyramid.mask)
