"""Instrument families: an auxiliary loss on the strongest member of each family."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError
from tonnetz.losses.classification import bce


def family_scores(logits: Tensor, families: Tensor, count: int | None = None) -> Tensor:
    """Largest score (B, F) among the members of each family, from scores (B, K) and family indices (K,).

    Index -1 is a class without family, F is `count` or else the largest index + 1 (a wait for the device). A
    family without members scores -inf.
    """
    size = int(families.max()) + 1 if count is None else count
    slot = torch.where(families < 0, size, families).expand_as(logits)  # classes without family in a last column
    best = logits.new_full((len(logits), size + 1), -torch.inf)
    return best.scatter_reduce(1, slot, logits, "amax")[:, :size]  # (B, F)


def family_targets(target: Tensor, families: Tensor, count: int | None = None) -> Tensor:
    """Target (B, F) of each family: positive if a member is, else NaN if a member is, else 0."""
    unknown = target.isnan()
    known = family_scores(torch.where(unknown, 0.0, target), families, count)  # (B, F) largest known target
    doubt = family_scores(unknown.to(target.dtype), families, count) > 0
    return torch.where(doubt & (known <= 0.5), torch.nan, known)


def family_loss(logits: Tensor, target: Tensor, families: Tensor | Sequence[int], count: int | None = None) -> Tensor:
    """Binary cross-entropy of families, from class logits and targets (B, K) and indices (K,). Scalar."""
    index = torch.as_tensor(families, device=logits.device)
    return bce(family_scores(logits.float(), index, count), family_targets(target, index, count))


class FamilyLoss(nn.Module):
    """Binary cross-entropy of families: the largest member logit against the largest member target.

    `families` gives each class's family index 0 ... F - 1, or -1 for a class without family. Raises UserError
    for an index below -1, or when a family between 0 and F - 1 has no class.
    """

    activation: str = "sigmoid"
    families: Tensor

    def __init__(self, families: Sequence[int]) -> None:
        super().__init__()
        used = {index for index in families if index != -1}
        if not used or used != set(range(len(used))):
            raise UserError(f"families: {sorted(used)} are not 0 ... F - 1; number families from 0, -1 is none")
        self.count = len(used)
        self.register_buffer("families", torch.tensor(list(families)), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of class logits (B, K) for class targets (B, K), NaN = unknown."""
        classes = logits.shape[1]
        if classes != len(self.families):
            raise UserError(f"families: {len(self.families)} entries for {classes} classes; give one per class")
        return family_loss(logits, target, self.families, self.count)
