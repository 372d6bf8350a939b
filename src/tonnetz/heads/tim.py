"""TIM: prototypes that make queries certain one by one, and balanced together."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.heads.base import Head, flat, means
from tonnetz.heads.prototypes import similarity


class TIM(Head):
    """Transductive information maximisation (Boudiaf et al. 2020, arXiv:2008.11297). Transductive.

    From the class means on, weights w minimise support * CE(support) - H(mean query) + conditional * mean H(query), H
    the entropy of softmax(-temperature / 2 |z - w|^2), by the paper's alternating directions (TIM-ADM). The second term
    assumes that the queries are balanced over the classes of an episode.

    Args:
        temperature: tau of the paper.
        support: weight of the support's cross-entropy, lambda of the paper.
        conditional: weight of the queries' own entropy, alpha of the paper.
        steps: alternations.
        normalize: none, l2 or cl2; see `Head`.
    """

    transductive = True

    def __init__(
        self,
        temperature: float = 15.0,
        support: float = 0.1,
        conditional: float = 0.1,
        steps: int = 150,
        normalize: str = "l2",
    ) -> None:
        super().__init__(normalize)
        self.temperature, self.support, self.conditional, self.steps = temperature, support, conditional, steps

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Logits -temperature / 2 |query - w|^2."""
        x, label = flat(support, mask)  # (E, N, D), (E, N, C)
        with torch.no_grad():
            weight = self._fit(x, label, query, valid, means(support, mask))
        return self.temperature / 2 * similarity(query, weight, "squared")

    def _fit(self, x: Tensor, label: Tensor, query: Tensor, valid: Tensor, weight: Tensor) -> Tensor:
        """Weights (E, C, D). Support and queries are rows of one matrix, of which each has a share in the means."""
        z = torch.cat([x, query], 1)  # (E, N + M, D)
        exists = torch.cat([label.sum(-1), valid.to(z)], 1)[..., None]  # (E, N + M, 1)
        size, asked = label.sum((1, 2)), valid.sum(1).clamp(min=1)  # (E,)
        share = exists * _joined(x, query, self.support / (1 + self.conditional), (size / asked)[:, None, None])
        absent = label.sum(1, keepdim=True) == 0  # (E, 1, C)
        square = (z**2).sum(-1, keepdim=True)  # (E, N + M, 1)
        for _ in range(self.steps):
            near = 2 * z @ weight.mT - square - (weight**2).sum(-1)[:, None]  # (E, N + M, C) -|z - w|^2
            logits = (self.temperature / 2 * near).masked_fill(absent, -torch.inf)
            prob = logits.softmax(-1).nan_to_num()  # (E, N + M, C)
            goal = torch.cat([label, self._goal(prob[:, x.shape[1] :], valid)], 1)
            goal, prob = share * goal, share * prob
            total = goal.sum(1)[..., None].clamp(min=1e-12)  # (E, C, 1)
            weight = ((goal - prob).mT @ z + prob.sum(1)[..., None] * weight) / total
        return weight

    def _goal(self, prob: Tensor, valid: Tensor) -> Tensor:
        """What queries should be, (E, M, C): sharper than they are, and balanced."""
        sharp = prob ** (1 + self.conditional) * valid[..., None]
        balanced = sharp / sharp.sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        return balanced / balanced.sum(-1, keepdim=True).clamp(min=1e-12)


def _joined(x: Tensor, query: Tensor, first: float, second: Tensor) -> Tensor:
    """`first` for every example and `second` (E, 1, 1) for every query, (E, N + M, 1)."""
    return torch.cat([x.new_full((*x.shape[:2], 1), first), second.expand(*query.shape[:2], 1).to(x)], 1)
