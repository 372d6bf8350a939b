"""Several examples sounding together."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, Batch, check_order
from tonnetz.augment.partner import draw_count, draw_partners, join_labels, scale_peak
from tonnetz.errors import UserError


class SumN(Augmentation):
    """Sum of 1 to ``n`` examples of the batch, the example itself among them, ``label`` their logical OR.

    Each source is scaled to peak 1 and then by its own gain, uniform in dB; a sum beyond +-1 is scaled back
    to it. Unknown labels: a known positive wins, else NaN if any source is NaN. ``lengths`` become the
    longest source's.
    """

    def __init__(
        self, p: float = 0.5, n: int = 3, low: float = -6.0, high: float = 6.0, sample_rate: int = 16000
    ) -> None:
        """Most sources (>= 1), and range of each gain in dB."""
        super().__init__(p, sample_rate)
        check_order(self, low, high)
        if n < 1:
            raise UserError(f"augment SumN.n: {n} sources make no sound; use 1 or more")
        self.n, self.low, self.high = n, low, high

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Sources (B, S) as rows of the batch, which are used (B, S), and gains in dB (B, S)."""
        partners = draw_partners(x, self.n)  # (B, S)
        used = torch.arange(partners.shape[1], device=x.device) < draw_count(x, self.n).unsqueeze(1)  # (B, S)
        gain = self.low + (self.high - self.low) * torch.rand(partners.shape, device=x.device)
        return {"partners": partners, "used": used, "gain": gain}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """All examples x (B, C, N); partners, used, gain (R, S) -> R sums (R, C, N)."""
        weight = 10 ** (params["gain"] / 20) * params["used"]  # (R, S)
        total = torch.einsum("rs,rscn->rcn", weight, scale_peak(x)[params["partners"]])  # (R, C, N)
        return total / total.abs().amax((1, 2), keepdim=True).clamp(min=1.0)

    def _change(self, batch: Batch, rows: Tensor, params: dict[str, Tensor]) -> Batch:
        """Audio, label and lengths of ``rows`` (R,)."""
        x = batch[self.key]
        changed: Batch = {self.key: x.index_copy(0, rows, self.transform(x, **params).to(x.dtype))}
        partners, used = params["partners"], params["used"]
        if "label" in batch:
            joined = join_labels(batch["label"], partners, used)  # (R, K)
            changed["label"] = batch["label"].index_copy(0, rows, joined)
        if "lengths" in batch:
            longest = (batch["lengths"][partners] * used).amax(1)  # (R,)
            changed["lengths"] = batch["lengths"].index_copy(0, rows, longest)
        return changed
