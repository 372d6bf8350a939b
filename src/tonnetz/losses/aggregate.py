"""Prototypes of the nodes above the classes of an episode: five ways to make one of what lies below a node."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError, suggest
from tonnetz.geometry import Flat, Hyperbolic

AGGREGATES = ("leaf_mean", "recursive", "support_mean", "size_weighted", "learned")
HIDDEN = 32  # units of the attention


class Aggregate(nn.Module):
    """Prototypes of classes, and from them those of the nodes above, for many episodes at once.

    Args:
        kind: ``leaf_mean``: the mean over the classes under a node. ``recursive``: over its children's prototypes.
            ``support_mean``: over all support clips under it. ``size_weighted``: over its children's prototypes, each
            weighted by its number of support clips to the `power`. ``learned``: over its classes, weighted by
            attention (Ilse et al. 2018, arXiv:1802.04712), the softmax of v tanh(W p + b), which begins uniform.
        power: of size_weighted: 0 is recursive, 1 in flat space support_mean.
        dim: of the embeddings, for learned.
    """

    def __init__(self, kind: str = "leaf_mean", power: float = 0.5, dim: int | None = None) -> None:
        super().__init__()
        if kind not in AGGREGATES:
            raise UserError(f"loss.aggregate={kind}: is unknown{suggest(kind, AGGREGATES)}")
        if power < 0:
            raise UserError(f"loss.power={power}: must not be negative")
        self.kind, self.power = kind, power if kind == "size_weighted" else 0.0
        self.attention: nn.Module | None = None
        if kind == "learned":
            if dim is None:
                raise ValueError("learned aggregation needs the size of the embeddings, dim")
            self.attention = nn.Sequential(nn.Linear(dim, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1, bias=False))
            nn.init.zeros_(self.attention[2].weight)  # type: ignore[arg-type]

    def forward(
        self, space: Flat | Hyperbolic, points: Tensor, shown: Tensor, paths: Tensor, heights: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prototypes (E, n, C, D) of the classes and at `heights`, slots and existence (E, n, C).

        A node stands in the slot of its first class, and the slot of every class is that of its node.

        Args:
            space: of the points.
            points, shown: (E, C, S, D) support and (E, C, S) which of it exists.
            paths: (E, C, L) node ids of each class from itself upwards.
            heights: above the class, rising.
        """
        leaf, present = leaves(space, points, shown)
        clips = shown.sum(2)  # (E, C)
        own = torch.arange(leaf.shape[1], device=leaf.device).expand(present.shape)
        found = [(leaf, own, present)]
        below, exists, size = leaf, present, clips
        for height in range(1, max(heights, default=0) + 1):  # the levels of a tree, never its classes
            slot, upper = slot_of(paths[..., height], present)
            member = _members(slot, present)  # (E, G, C)
            if self.kind == "support_mean":
                each = _members(slot.repeat_interleave(shown.shape[2], 1), shown.flatten(1), slot.shape[1])
                prototypes = space.mean(_shares(each), points.flatten(1, 2))
            elif self.kind in ("recursive", "size_weighted"):
                children = _members(slot, exists) * size[:, None] ** self.power
                prototypes = space.mean(_shares(children), below)
            else:
                prototypes = space.mean(_shares(member) if self.attention is None else self._attend(member, leaf), leaf)
            below, exists, size = prototypes, upper, (member * clips[:, None]).sum(2)
            if height in heights:
                found.append((prototypes, slot, upper))
        prototypes, slots, exists = (torch.stack(values, 1) for values in zip(*found, strict=True))
        return prototypes, slots, exists

    def _attend(self, member: Tensor, leaf: Tensor) -> Tensor:
        """Weights (E, G, C) of the classes (E, C, D) that are members of each slot, by attention."""
        assert self.attention is not None
        score = self.attention(leaf)[..., 0][:, None]  # (E, 1, C)
        bare = ~member.any(2, keepdim=True)  # their softmax would be NaN, and so its gradient
        return score.masked_fill(member == 0, -torch.inf).masked_fill(bare, 0.0).softmax(2) * member


def leaves(space: Flat | Hyperbolic, points: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (E, C, D) of the points (E, C, S, D) that exist, and whether a class has any (E, C)."""
    weight = shown.to(points.dtype) / shown.sum(2, keepdim=True).clamp(min=1)
    return space.mean(weight[:, :, None], points)[:, :, 0], shown.any(2)


def slot_of(nodes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Slot of each class's node: the first present class under the same node; which slots are such firsts.

    nodes, present, and both results are (E, C).
    """
    alike = (nodes[:, :, None] == nodes[:, None, :]) & present[:, None, :]  # (E, C, C)
    slot = alike.to(torch.uint8).argmax(2)
    return slot, present & (slot == torch.arange(nodes.shape[1], device=nodes.device))


def _members(slot: Tensor, counted: Tensor, slots: int | None = None) -> Tensor:
    """Which (E, N), of those that are `counted`, belong to each slot, (E, G, N) of 0 and 1."""
    return F.one_hot(slot, slots or slot.shape[1]).mT * counted[:, None]


def _shares(weight: Tensor) -> Tensor:
    """Weights (E, G, N), each 0 or at least 1, as shares that sum to 1; zeros in slots without members."""
    return weight / weight.sum(2, keepdim=True).clamp(min=1)
