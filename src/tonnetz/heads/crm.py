"""Conditional risk minimisation: the answer whose expected mistake is least severe."""

from __future__ import annotations

import torch
from torch import Tensor


def risk(prob: Tensor, costs: Tensor) -> Tensor:
    """Expected cost (E, M, C) of every answer k: sum over c of prob(c) * costs(k, c).

    Args:
        prob: probabilities (E, M, C) of the classes.
        costs: (E, C, C) or (C, C), of answering the row's class when the column's is true, as heights of common
            ancestors.
    """
    return prob @ costs.to(prob).mT


def least_risk(prob: Tensor, costs: Tensor, present: Tensor | None = None) -> Tensor:
    """Answers (E, M) of least expected cost, without any training (Karthik et al. 2021, arXiv:2104.00795).

    See `risk`. Classes that are not `present` (E, C) are never answered.
    """
    expected = risk(prob, costs)
    if present is not None:
        expected = expected.masked_fill(~present[:, None], torch.inf)
    return expected.argmin(-1)
