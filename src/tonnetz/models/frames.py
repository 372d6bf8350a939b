"""No network: the frames of the front-end as they are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tonnetz.models.base import Backbone


class Frames(Backbone):
    """Hands the front-end's frames on, channels and bins joined: (B, C, F, T) to (B, T, C F).

    With ``frontend=mfcc pooling=mean_std`` a recording is the mean and deviation of its MFCCs, the classic description
    of timbre; ``task=fewshot task.whiten=0.05`` makes a strong few-shot recogniser of it.
    """

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__(channels, bins)
        self.dim, self.stride, self.taps = channels * bins, 1, ("output",)

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the frames (B, T, C F)."""
        if mask is not None:
            x = x.masked_fill(~mask[:, None, None], 0.0)
        yield "output", x.permute(0, 3, 1, 2).flatten(2), 1
