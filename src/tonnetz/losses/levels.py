"""How the losses at the levels of a tree become one: the weightings of hierarchical prototypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError, suggest

WEIGHTINGS = (
    "exp",
    "exp_leafheavy",
    "interp_avg",
    "interp_avg_decay",
    "multi_hot",
    "learned",
    "uncertainty",
)


def chosen_heights(levels: str | Sequence[int] | None, height: int, depth: int) -> tuple[int, ...]:
    """Heights of the loss terms beside the leaf (0), lowest first.

    `levels` is ``leaf``, ``all`` or a list of heights (1 to depth - 1); null takes the `height` highest levels below
    the root. Raises UserError for a height that the tree does not have.
    """
    top = depth - 1
    if levels is None:
        if not 0 <= height <= top:
            raise UserError(f"loss.height={height}: this tree has {top} levels above the classes; take 0 to {top}")
        return tuple(range(depth - height, depth))
    if isinstance(levels, str):
        if levels not in ("leaf", "all"):
            raise UserError(f"loss.levels={levels}: need leaf, all, a list of heights from 1 to {top}, or null")
        return tuple(range(1, depth)) if levels == "all" else ()
    wanted = sorted({int(h) for h in levels} - {0})
    if wanted and not 1 <= wanted[0] <= wanted[-1] <= top:
        raise UserError(f"loss.levels={list(levels)}: this tree has {top} levels above the classes; take 1 to {top}")
    return tuple(wanted)


class Weighting(nn.Module):
    """One loss of the losses l_0 (leaf) to l_{n-1} (highest level).

    With n terms: ``exp``: sum of exp(-alpha i) l_i. ``exp_leafheavy``: l_0 + sum of exp(alpha (n - 1 - i)) l_i.
    ``interp_avg``: alpha l_0 + (1 - alpha) mean of the others. ``interp_avg_decay``: the same with each of the others
    weighted by exp(-beta (n - 1 - i)). ``learned``: l_0 + sum of softmax(v)_i l_i. ``uncertainty``: sum of
    exp(-s_i) l_i + s_i / 2 (Kendall et al. 2018, for classification). One term alone is taken as it is.
    ``multi_hot`` is no sum of losses but one binary cross-entropy over the nodes of all levels, see `Prototypes`.

    Args:
        kind: one of the above.
        alpha, beta: of the formulas.
        normalized: make the weights of exp, exp_leafheavy and interp_avg_decay sum to 1.
    """

    def __init__(self, kind: str = "exp", alpha: float = 1.0, beta: float = 0.5, normalized: bool = False) -> None:
        super().__init__()
        if kind not in WEIGHTINGS:
            raise UserError(f"loss.weighting={kind}: is unknown{suggest(kind, WEIGHTINGS)}")
        self.kind, self.alpha, self.beta, self.normalized = kind, alpha, beta, normalized
        self.free: nn.Parameter | None = None

    def grow(self, count: int) -> None:
        """Make the learned weights of `count` terms."""
        sizes = {"learned": count - 1, "uncertainty": count}
        if sizes.get(self.kind, 0) > 0:
            self.free = nn.Parameter(torch.zeros(sizes[self.kind]))

    def forward(self, losses: Tensor) -> Tensor:
        """Combine losses (..., n) to (...)."""
        if losses.shape[-1] == 1:
            return losses[..., 0]
        if self.kind == "uncertainty" and self.free is not None:
            return (losses * torch.exp(-self.free) + self.free / 2).sum(-1)
        return (losses * self.weights(losses.shape[-1]).to(losses)).sum(-1)

    def weights(self, count: int) -> Tensor:
        """Weights (n,) of `count` terms."""
        i = torch.arange(count, dtype=torch.float32)
        if self.kind == "learned" and self.free is not None:
            return torch.cat([self.free.new_ones(1), self.free.softmax(0)])
        if self.kind == "uncertainty" and self.free is not None:
            return torch.exp(-self.free)
        leaf, others = (i == 0).float(), (i > 0).float()
        back = count - 1 - i
        found = {
            "exp": torch.exp(-self.alpha * i),
            "exp_leafheavy": leaf + others * torch.exp(self.alpha * back),
            "interp_avg": self.alpha * leaf + (1 - self.alpha) * others / max(count - 1, 1),
            "interp_avg_decay": self.alpha * leaf
            + (1 - self.alpha) * others * torch.exp(-self.beta * back) / max(count - 1, 1),
            "multi_hot": torch.ones(count),
        }[self.kind]
        return found / found.sum() if self.normalized else found
