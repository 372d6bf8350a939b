"""Baseline++: a cosine classifier trained on the support."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tonnetz.heads.base import Head, flat, means


class BaselinePP(Head):
    """Scores scale * cos(query, weight), the weights trained on the support (Chen et al. 2019, arXiv:1904.04232).

    All episodes at once by gradient descent with momentum on the whole support, from the directions of the class means
    (Qi et al. 2018, arXiv:1712.07136), so that nothing is drawn at random.

    Args:
        scale: factor of the cosine.
        steps: gradient steps.
        lr: step width.
        momentum: share of the last step that goes on.
        normalize: none, l2 or cl2; see `Head`. Lengths do not matter, a center does.
    """

    def __init__(
        self,
        scale: float = 10.0,
        steps: int = 100,
        lr: float = 0.1,
        momentum: float = 0.9,
        normalize: str = "none",
    ) -> None:
        super().__init__(normalize)
        self.scale, self.steps, self.lr, self.momentum = scale, steps, lr, momentum

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Scaled cosines to the trained weights."""
        x, target = flat(functional.normalize(support, dim=-1), mask)
        with torch.no_grad():
            weight = self._train(x, target, functional.normalize(means(support, mask), dim=-1))
        return self.scale * functional.normalize(query, dim=-1) @ functional.normalize(weight, dim=-1).mT

    def _train(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Weights (E, C, D) that fit unit examples (E, N, D) to one-hot targets (E, N, C), zero where none exists."""
        exists = target.sum(-1, keepdim=True)  # (E, N, 1)
        share = self.scale / exists.sum(1, keepdim=True).clamp(min=1)
        absent = target.sum(1, keepdim=True) == 0  # (E, 1, C)
        step = torch.zeros_like(weight)
        for _ in range(self.steps):
            length = weight.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            unit = weight / length
            logits = (self.scale * x @ unit.mT).masked_fill(absent, -torch.inf)
            error = share * (exists * logits.softmax(-1).nan_to_num() - target)  # (E, N, C)
            slope = error.mT @ x  # (E, C, D) of unit vectors
            slope = (slope - unit * (slope * unit).sum(-1, keepdim=True)) / length  # through the normalisation
            step = self.momentum * step + slope
            weight = weight - self.lr * step
        return weight
