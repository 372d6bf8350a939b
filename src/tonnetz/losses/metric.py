"""What metric losses share: which vectors count, which pairs are positive, and weighted sums."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError


class MetricLoss(nn.Module):
    """A loss on embeddings. `weight` counts within a `Sum`.

    A work of code -1 is unknown: its tracks take no part. A batch without a pair to learn from costs a zero with a
    gradient. Subclasses write `compare`, or `segments` when they need to know which vectors form a track.
    """

    kind = "metric"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor | None = None) -> Tensor:
        """Scalar loss of z (B, S, D) with works (B,), tracks (B,) and the mask (B, S) of valid segments."""
        known = (group >= 0)[:, None].expand(z.shape[:2])
        valid = known if valid is None else known & valid
        with torch.autocast(z.device.type, enabled=False):
            return self.segments(z.float().masked_fill(~valid[..., None], 0.0), group, row, valid)

    def segments(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor) -> Tensor:
        """Scalar loss of float32 z (B, S, D), of which the segments `valid` (B, S) count; the others are 0."""
        flat = z[valid]  # (N, D)
        if not len(flat):
            return flat.sum()
        group, row = (x[:, None].expand(valid.shape)[valid] for x in (group, row))  # (N,)
        return self.compare(flat, group, row)

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D), at least one, with known works (N,) and tracks (N,)."""
        raise TypeError(f"{type(self).__name__} defines no compare")


class Sum(MetricLoss):
    """Weighted sum of losses by name; `last` keeps the parts of the latest call, unweighted, for logging."""

    def __init__(self, parts: Mapping[str, MetricLoss], weight: float = 1.0) -> None:
        super().__init__(weight)
        if not parts:
            raise UserError("loss.parts: no part; name at least one loss")
        self.parts = nn.ModuleDict(parts)
        self.last: dict[str, Tensor] = {}

    def forward(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor | None = None) -> Tensor:
        """Scalar sum of weight x part over the parts."""
        costs = {name: part(z, group, row, valid) for name, part in self.parts.items()}
        self.last = {name: cost.detach() for name, cost in costs.items()}
        return torch.stack([self.parts[name].weight * cost for name, cost in costs.items()]).sum()


def pairs(group: Tensor, row: Tensor, within_track: bool = False) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs (N, N) of vectors with works and tracks (N,); no vector pairs with itself.

    Two vectors of one track are a positive pair when `within_track`, else no pair at all.
    """
    same = group[:, None] == group
    unlike = ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    return same & (unlike if within_track else row[:, None] != row), ~same


def mean_of(cost: Tensor, mask: Tensor) -> Tensor:
    """Mean of the costs where `mask`; 0 with a gradient path when nowhere."""
    return cost.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def check_positive(**values: float) -> None:
    """Raise UserError for a value that is not a positive number."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise UserError(f"{name}: {value} is not above 0")


def check_groups(group: Tensor, classes: int) -> None:
    """Raise UserError when a work's code has no class."""
    top = int(group.max()) if len(group) else -1
    if top >= classes:
        raise UserError(f"loss: work {top} is none of {classes} classes; build the loss with the works of training")


def columns(outputs: int | None, classes: int) -> int:
    """Rows of a head's weights: `outputs`, or one a class when that is None. Raises UserError for too few."""
    if outputs is not None and outputs < classes:
        raise UserError(f"loss: outputs={outputs} are too few for {classes} works; raise it, or null for one a work")
    return classes if outputs is None else outputs
