"""Two examples and their labels blended."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, Batch
from tonnetz.augment.partner import draw_partners
from tonnetz.errors import UserError


class Mixup(Augmentation):
    """lam * a + (1 - lam) * b of audio or features and of labels, lam ~ Beta(alpha, alpha) (Zhang et al.
    2018).

    lam is the larger share, so ``row`` and ``start`` still name the example that prevails; over pairs in
    random order that is the same mixture. A label is known only where both are. ``lengths`` become the longer
    one.
    """

    def __init__(self, p: float = 1.0, alpha: float = 0.3, key: str = "audio", sample_rate: int = 16000) -> None:
        """Beta parameter (> 0) and what is mixed: ``audio`` or ``features``."""
        super().__init__(p, sample_rate)
        if alpha <= 0 or key not in ("audio", "features"):
            raise UserError(f"augment Mixup: alpha {alpha}, key {key!r}; use alpha > 0 and key audio or features")
        self.alpha, self.key = alpha, key

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Row of the other example (B,), itself in a batch of one, and share of the first (B,)."""
        beta = torch.full((len(x),), self.alpha, device=x.device)
        share = torch.distributions.Beta(beta, beta).sample()  # (B,)
        return {"partner": draw_partners(x, 2)[:, -1], "share": torch.maximum(share, 1 - share)}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """All of x (B, ...); rows, partner, share (R,) -> R blends (R, ...)."""
        share = params["share"].to(x.dtype).view(-1, *[1] * (x.dim() - 1))  # (R, 1, ...)
        return share * x[params["rows"]] + (1 - share) * x[params["partner"]]

    def _change(self, batch: Batch, rows: Tensor, params: dict[str, Tensor]) -> Batch:
        """``key``, label and lengths of ``rows`` (R,)."""
        blended = [self.key, "label"] if "label" in batch else [self.key]
        changed: Batch = {
            k: batch[k].index_copy(0, rows, self.transform(batch[k], rows=rows, **params)) for k in blended
        }
        if "lengths" in batch:
            lengths = batch["lengths"]
            longer = torch.maximum(lengths[rows], lengths[params["partner"]])  # (R,)
            changed["lengths"] = lengths.index_copy(0, rows, longer)
        return changed
