"""What every head has in common: it learns classes from the embeddings of a support, and scores queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from tonnetz.errors import UserError, suggest

NORMALIZE = ("none", "l2", "cl2")


class Head(ABC):
    """A classifier of few-shot episodes, many at once, without parameters of its own.

    Letters: E episodes, C classes of an episode, S support examples of a class, M queries, D embedding.

    Args:
        normalize: what happens to embeddings first: none, l2 (unit length), or cl2 (the mean of the training classes
            is subtracted, then unit length; Wang et al. 2019, arXiv:1911.04623).
    """

    transductive: ClassVar[bool] = False  # whether the answer to a query depends on the other queries

    def __init__(self, normalize: str = "none") -> None:
        self.normalize = chosen("normalize", normalize, NORMALIZE)

    def __call__(
        self,
        support: Tensor,
        mask: Tensor,
        query: Tensor,
        center: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Scores (E, M, C) like log-probabilities: their softmax over classes is a probability, the largest wins.

        Args:
            support: embeddings (E, C, S, D).
            mask: (E, C, S) bool, which of them exist. A class without any is absent, and scores -inf.
            query: embeddings (E, M, D).
            center: (D,) mean embedding of the training classes, for normalize=cl2.
            valid: (E, M) bool, which queries exist; null: all. Transductive heads learn from these alone.

        Raises UserError for cl2 without a center. Memory is O(E M C + E C S (D + C S)), so callers pass a part of the
        episodes at a time.
        """
        if support.shape[:3] != mask.shape or support.shape[::3] != query.shape[::2]:
            shapes = f"{tuple(support.shape)}, {tuple(mask.shape)}, {tuple(query.shape)}"
            raise ValueError(f"support (E, C, S, D), mask (E, C, S) and query (E, M, D) do not agree: {shapes}")
        if valid is None:
            valid = torch.ones(query.shape[:2], dtype=torch.bool, device=query.device)
        with torch.autocast(query.device.type, enabled=False):
            support, query = (normalized(z, self.normalize, center) for z in (support, query))
            support = support.masked_fill(~mask[..., None], 0.0)  # heads may sum over it
            query = query.masked_fill(~valid[..., None], 0.0)
            scores = self.scores(support, mask, query, valid)  # (E, M, C)
        return scores.masked_fill(~mask.any(-1)[:, None], -torch.inf)

    @abstractmethod
    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Scores (E, M, C) of normalised embeddings, zero where they do not exist. Absent classes score anything."""


def chosen(key: str, value: str, known: tuple[str, ...]) -> str:
    """Return the value. Raises UserError when it is not one of those that a head's key may have."""
    if value not in known:
        raise UserError(f"task.heads: {key}='{value}' is not known{suggest(value, known)}")
    return value


def normalized(z: Tensor, how: str, center: Tensor | None = None) -> Tensor:
    """Embeddings (..., D), at least in float32, after `none`, `l2` or `cl2`; see `Head`."""
    z = z if z.dtype == torch.float64 else z.float()
    if how == "none":
        return z
    if how == "cl2":
        if center is None:
            raise UserError("task.heads: normalize=cl2 needs the mean of training embeddings; take normalize=l2")
        z = z - center.to(z)
    return functional.normalize(z, dim=-1)


def means(support: Tensor, mask: Tensor) -> Tensor:
    """Mean embedding (E, C, D) of each class, of a support (E, C, S, D) that is zero where mask (E, C, S) is False."""
    return support.sum(2) / mask.sum(2, keepdim=True).clamp(min=1)


def flat(support: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Support as rows (E, C S, D), and their classes (E, C S, C), one-hot, zero where there is no example."""
    label = torch.eye(mask.shape[1], dtype=support.dtype, device=mask.device)  # (C, C)
    return support.flatten(1, 2), (mask[..., None] * label[:, None]).flatten(1, 2)
