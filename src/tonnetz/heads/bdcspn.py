"""BD-CSPN: prototypes rectified by the queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tonnetz.errors import UserError
from tonnetz.heads.base import Head, flat, means
from tonnetz.heads.prototypes import similarity


class BDCSPN(Head):
    """Cosine prototypes with both biases diminished (Liu et al. 2020, arXiv:1911.10713). Transductive.

    The queries are shifted so that their mean is that of the support. The `top` queries that are most confidently of a
    class join its support, and the new prototype is the mean of both with weights softmax(scale * cos(example, old
    prototype)).

    Args:
        top: queries that may join each class.
        scale: factor of cosines, in the weights and in the scores.
        normalize: none, l2 or cl2; see `Head`.
    """

    transductive = True

    def __init__(self, top: int = 8, scale: float = 10.0, normalize: str = "l2") -> None:
        super().__init__(normalize)
        if top < 0:
            raise UserError(f"task.heads: top={top} queries cannot join a class; give 0 or more")
        self.top, self.scale = top, scale

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Scaled cosines to rectified prototypes."""
        middle = _mean(support.flatten(1, 2), mask.flatten(1))  # (E, 1, D)
        query = query + middle - _mean(query, valid)
        old = means(support, mask)  # (E, C, D)
        cosine = similarity(query, old, "cosine").masked_fill(~mask.any(-1)[:, None], -torch.inf)  # (E, M, C)
        x, label = flat(support, mask)
        near = similarity(x, old, "cosine")  # (E, N, C)
        weight = torch.cat(
            [_weights(self.scale * near, label), _weights(self.scale * cosine, self._join(cosine, valid))], 1
        )
        total = weight.sum(1)[..., None].clamp(min=torch.finfo(weight.dtype).tiny)  # (E, C, 1)
        new = weight.mT @ torch.cat([x, query], 1) / total  # (E, C, D)
        return self.scale * similarity(query, new, "cosine")

    def _join(self, cosine: Tensor, valid: Tensor) -> Tensor:
        """Which queries join which class (E, M, C), 0 or 1: those nearest to it, its `top` most confident."""
        own = functional.one_hot(cosine.argmax(-1), cosine.shape[-1]) * valid[..., None]  # (E, M, C)
        confident = cosine.softmax(-1).nan_to_num().masked_fill(own == 0, -1.0)
        best = confident.topk(min(self.top, cosine.shape[1]), dim=1).indices
        return torch.zeros_like(cosine).scatter(1, best, 1.0) * own


def _weights(logits: Tensor, member: Tensor) -> Tensor:
    """exp(logits) of members, 0 of others; scaled cosines do not overflow at any sensible scale."""
    return torch.where(member > 0, logits, -torch.inf).exp()


def _mean(z: Tensor, exists: Tensor) -> Tensor:
    return z.sum(1, keepdim=True) / exists.sum(1)[:, None, None].clamp(min=1)  # (E, 1, D)
