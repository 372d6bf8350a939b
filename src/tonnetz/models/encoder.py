"""Front-end, spectral augmentation and backbone as one module: from a batch to frames with a mask."""

from __future__ import annotations

from torch import Tensor, nn

from tonnetz.augment import Augment
from tonnetz.frontend import Frontend
from tonnetz.models.base import Backbone, length_mask


class Encoder(nn.Module):
    """``forward(batch) -> (frames (B, T', D), mask (B, T'))``; skips the front-end when the batch holds features."""

    def __init__(self, frontend: Frontend, backbone: Backbone, augment: Augment) -> None:
        super().__init__()
        self.frontend, self.backbone, self.augment = frontend, backbone, augment
        self.dim = backbone.dim

    def features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch with `features` (B, C, F, T) and `lengths` (B,) in frames."""
        if "features" in batch:
            return batch
        frames = self.frontend.frames(batch["lengths"])
        return {**batch, "features": self.frontend(batch["audio"]), "lengths": frames}

    def _input(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.augment.features(self.features(batch))
        x, lengths = batch["features"], batch["lengths"]
        return x, lengths, length_mask(lengths, x.shape[-1])

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode `audio` (B, 1, N) or `features` (B, C, F, T) of the batch."""
        x, lengths, _ = self._input(batch)
        return self.encode(x, lengths)

    def encode(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode augmented features (B, C, F, T) with valid frames (B,)."""
        hidden = self.backbone(x, length_mask(lengths, x.shape[-1]))  # (B, T', D)
        return hidden, length_mask(self.backbone.frames(lengths), hidden.shape[1])

    @property
    def rate(self) -> float:
        """Output frames a second."""
        return self.frontend.sample_rate / self.frontend.hop / self.backbone.stride

    def layers(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """All taps of the backbone by name, each (B, T', D_i), and the mask (B, T') of the last."""
        x, lengths, mask = self._input(batch)
        taps = self.backbone.layers(x, mask)
        last = taps[self.backbone.taps[-1]]
        return taps, length_mask(self.backbone.frames(lengths), last.shape[1])
