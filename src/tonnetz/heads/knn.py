"""The k nearest examples vote."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.heads.base import Head, flat
from tonnetz.heads.prototypes import similarity

REST = 1e-6  # share of the votes that all classes get by the distance of their nearest example


class KNN(Head):
    """The k nearest support examples vote, each with the inverse of its distance; the score is the log of the share.

    A millionth of the votes goes to all classes by a softmax of minus the distance of their nearest example: it
    settles ties, and orders classes without a vote.

    Args:
        k: voters; all examples when there are fewer.
        normalize: none, l2 or cl2; see `Head`.
    """

    def __init__(self, k: int = 5, normalize: str = "l2") -> None:
        super().__init__(normalize)
        if k < 1:
            raise UserError(f"task.heads: k={k} neighbours cannot vote; give 1 or more")
        self.k = k

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Log share of votes."""
        x, label = flat(support, mask)  # (E, N, D), (E, N, C)
        away = -similarity(query, x)  # (E, M, N)
        away = away.masked_fill(~mask.flatten(1)[:, None], torch.inf)
        near, index = away.topk(min(self.k, away.shape[-1]), largest=False)  # (E, M, k)
        exact = near == 0  # an example that is the query outvotes all others, as in scikit-learn
        weight = torch.where(exact.any(-1, keepdim=True), exact.to(near), 1 / near)
        ballot = label.argmax(-1)[:, None].expand_as(away).gather(-1, index)  # (E, M, k)
        votes = near.new_zeros(*near.shape[:2], label.shape[-1]).scatter_add(-1, ballot, weight)  # (E, M, C)
        share = votes / votes.sum(-1, keepdim=True).clamp(min=torch.finfo(votes.dtype).tiny)
        nearest = away.unflatten(-1, mask.shape[1:]).amin(-1)  # (E, M, C)
        rest = (-nearest).softmax(-1).clamp(min=1e-30)
        return ((1 - REST) * share + REST * rest).log()
