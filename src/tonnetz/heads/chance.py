"""Heads that do not look: the rows of a table that others must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.heads.base import Head

BLIND = ("constant", "random")  # what they are called
MIX = (0x2545F4914F6CDD1D, 0x369DEA0F31A53F85)  # odd multipliers below 2**63 that spread the bits of a hash


class Constant(Head):
    """Always the class with the most support, the first of those; the score is the log of its share of the support."""

    def __init__(self) -> None:
        super().__init__()

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Log shares, the same for every query."""
        count = mask.sum(-1).to(query)  # (E, C)
        share = count / count.sum(-1, keepdim=True).clamp(min=1)
        return share.log()[:, None].expand(*query.shape[:2], -1)


class Random(Head):
    """Uniformly random answers: the score is the log of a uniform number.

    The number is a hash of the embeddings of query and support, the class's place and the seed. So it depends neither
    on the order of queries nor on which of them are asked together, and a clip gets another answer in every episode.

    Args:
        seed: another seed, other answers.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Logs of uniform numbers."""
        episode = _key(support).sum((1, 2))  # (E,); what does not exist is zero, and so is its key
        key = _mixed(_key(query) + _mixed(episode + self.seed)[:, None])  # (E, M)
        classes = torch.arange(mask.shape[1], device=query.device)
        number = _mixed(key[..., None] + _mixed(classes + 1))  # (E, M, C)
        uniform = ((number & 0x7FFFFF).double() + 0.5) / 2**23
        return uniform.log().to(query.dtype)


def _key(z: Tensor) -> Tensor:
    """Vectors (..., D) hashed to int64, wrapping around; zeros to 0."""
    place = torch.arange(1, z.shape[-1] + 1, device=z.device)
    bits = z.float().contiguous().view(torch.int32).long()  # (..., D)
    return _mixed(bits * _mixed(place)).sum(-1)


def _mixed(x: Tensor) -> Tensor:
    """Integers hashed to int64 by multiplications and shifts."""
    x = (x ^ (x >> 31)) * MIX[0]
    x = (x ^ (x >> 29)) * MIX[1]
    return x ^ (x >> 32)
