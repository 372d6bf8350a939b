"""Several examples one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, Batch
from tonnetz.augment.partner import draw_count, draw_partners, join_labels
from tonnetz.errors import UserError


class ConcatN(Augmentation):
    """The window cut into 1 to ``n`` equal parts, the first from the example itself, the others from other
    rows.

    Each part is an excerpt from a random place of its source's valid samples, repeated if it is too short;
    ``label`` is the logical OR as in ``SumN``, ``lengths`` the whole window. One part means no change.
    """

    def __init__(self, p: float = 0.5, n: int = 3, sample_rate: int = 16000) -> None:
        """Most parts (>= 1)."""
        super().__init__(p, sample_rate)
        if n < 1:
            raise UserError(f"augment ConcatN.n: {n} parts make no sound; use 1 or more")
        self.n = n

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Sources (B, S) as rows of the batch, number of parts (B,), and place of each excerpt from 0 to 1
        (B, S).
        """
        partners = draw_partners(x, self.n)  # (B, S)
        place = torch.rand(partners.shape, device=x.device)
        return {"partners": partners, "count": draw_count(x, self.n), "place": place}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """All of x (B, C, N), lengths (B,); partners, place (R, S), count (R,) -> R windows (R, C, N)."""
        size = x.shape[-1]
        n = torch.arange(size, device=x.device)  # (N,)
        count = params["count"].unsqueeze(1)  # (R, 1)
        part = n * count // max(size, 1)  # (R, N) which part sample n is in
        source = params["partners"].gather(1, part)  # (R, N)
        length = params["lengths"].clamp(min=1)[source]  # (R, N)
        start = -(-part * size // count)  # (R, N) first sample of the part
        room = (length - -(-size // count) + 1).clamp(min=1)  # (R, N) places where the excerpt can begin
        offset = (params["place"].gather(1, part) * room).long()  # (R, N)
        return x.transpose(1, 2)[source, (n - start + offset) % length].transpose(1, 2)  # (R, C, N)

    def _change(self, batch: Batch, rows: Tensor, params: dict[str, Tensor]) -> Batch:
        """Audio, label and lengths of ``rows`` (R,) that have more than one part."""
        x = batch[self.key]
        several = params["count"] > 1  # (R,)
        rows, params = rows[several], {k: v[several] for k, v in params.items()}
        full = torch.full((len(x),), x.shape[-1], device=x.device)
        y = self.transform(x, **params, lengths=batch.get("lengths", full))  # (R, C, N)
        changed: Batch = {self.key: x.index_copy(0, rows, y)}
        if "label" in batch:
            used = torch.arange(params["partners"].shape[1], device=x.device) < params["count"].unsqueeze(1)
            joined = join_labels(batch["label"], params["partners"], used)  # (R, K)
            changed["label"] = batch["label"].index_copy(0, rows, joined)
        if "lengths" in batch:
            changed["lengths"] = batch["lengths"].index_copy(0, rows, full[rows].to(batch["lengths"].dtype))
        return changed
