"""What an embedding is like: collapsed or spread, and what can be read from it with little training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PAIRS = 2048  # vectors whose distances to each other are looked at, at most


def deviation(z: Tensor) -> Tensor:
    """Standard deviation of unit vectors z (N, D), mean over dimensions, times sqrt(D). Scalar.

    0 where all vectors are one (collapse), near 1 where they point everywhere (Chen & He 2021).
    """
    return F.normalize(z, dim=-1).std(0, correction=0).mean() * z.shape[1] ** 0.5


def effective_rank(z: Tensor) -> Tensor:
    """RankMe of z (N, D): exp of the entropy of the normalised singular values (Garrido et al. 2023). Scalar.

    From 1 to min(N, D).
    """
    share = torch.linalg.svdvals(z)
    share = share / share.sum().clamp(min=torch.finfo(z.dtype).tiny)
    return torch.special.entr(share).sum().exp()


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of the unit vectors of pairs (N, D): 0 at best (Wang & Isola 2020). Scalar."""
    return (F.normalize(first, dim=-1) - F.normalize(second, dim=-1)).square().sum(-1).mean()


def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean of exp(-t d^2) over all pairs of unit vectors z (N, D): the lower, the more even. Scalar.

    Wang & Isola 2020. Of more than 2,048 vectors, those at even distances are taken. NaN for a single vector.
    """
    z = F.normalize(z[:: -(-len(z) // PAIRS)], dim=-1)
    first, second = torch.triu_indices(len(z), len(z), 1, device=z.device)
    square = (2 - 2 * z @ z.T)[first, second].clamp(min=0)  # (pairs,)
    return (-t * square).exp().mean().log()


def nearest(bank: Tensor, label: Tensor, z: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Share (M, K) of each class among the `k` neighbours of z (M, D) in `bank` (N, D) with labels (N, K).

    Neighbours count with exp(cosine / temperature) (Wu et al. 2018). NaN labels do not count, and leave 0 where no
    neighbour knows.
    """
    score = F.normalize(z, dim=-1) @ F.normalize(bank, dim=-1).T  # (M, N)
    near, index = score.topk(min(k, len(bank)), 1)  # (M, k)
    weight = (near / temperature).softmax(1)[..., None]  # (M, k, 1)
    found = label[index]  # (M, k, K)
    known = weight * found.isfinite()
    return (known * found.nan_to_num()).sum(1) / known.sum(1).clamp(min=torch.finfo(z.dtype).tiny)


def ridge(bank: Tensor, label: Tensor, z: Tensor, decay: float = 0.1) -> Tensor:
    """Scores (M, K) of z (M, D) by least squares on standardised `bank` (N, D) with labels (N, K).

    The linear map minimises the mean squared error + `decay` x its squared norm; NaN labels count as the mean.
    """
    mean, scale = bank.mean(0), bank.std(0, correction=0).clamp(min=1e-6)
    x = (bank - mean) / scale  # (N, D)
    average = label.nanmean(0).nan_to_num()  # (K,)
    y = (label - average).nan_to_num()  # (N, K)
    gram = x.T @ x / len(x) + decay * torch.eye(x.shape[1], device=x.device)  # (D, D)
    weight = torch.linalg.solve(gram, x.T @ y / len(x))  # (D, K)
    return (z - mean) / scale @ weight + average
