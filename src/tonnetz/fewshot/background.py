"""Is it a known class at all? A likelihood ratio against all the classes that might be (PLDA, Ioffe 2006)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 3  # of training, at least, to say how classes differ
SHRINKAGE = 0.1  # share of a sphere in either covariance


class Background(nn.Module):
    """How the training classes lie: Gaussian clips around class means that are Gaussian themselves.

    With within-class covariance W and covariance B of the means, a vector of a class of which n examples have been
    seen is Gaussian around their mean (drawn towards the mean of all), and one of any other class has covariance B + W
    around the mean of all. The logarithm of the ratio of both densities is above 0 where it is rather of the class.
    Coordinates in which W is the identity and B is diagonal make that a sum (Ioffe 2006, "Probabilistic Linear
    Discriminant Analysis"). Training clips teach it in closed form.

    Args:
        dim: of the vectors.
    """

    mean: Tensor
    matrix: Tensor
    variance: Tensor
    fitted: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))
        self.register_buffer("variance", torch.zeros(dim))  # of class means, where clips have 1
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, z: Tensor, codes: Tensor) -> None:
        """Learn from vectors z (N, D) with class codes (N,); nothing when classes or clips of them are too few."""
        _, place, counts = codes.unique(return_inverse=True, return_counts=True)
        if len(counts) < CLASSES or len(z) == len(counts):
            return
        z = z.double()
        means = z.new_zeros(len(counts), z.shape[1]).index_add(0, place, z) / counts[:, None]  # (K, D)
        mean = means.mean(0)
        within = _rounded((z - means[place]).T @ (z - means[place]) / (len(z) - len(counts)))
        between = _rounded((means - mean).T @ (means - mean) / (len(counts) - 1))
        root = torch.linalg.inv(torch.linalg.cholesky(within))
        variance, vectors = torch.linalg.eigh(root @ between @ root.T)
        self.mean.copy_(mean)
        self.matrix.copy_(vectors.T @ root)
        self.variance.copy_(variance.clamp(min=0))
        self.fitted.fill_(True)

    def ratios(self, z: Tensor, mean: Tensor, count: Tensor) -> Tensor:
        """Log-likelihood ratios (..., M, C) of vectors z (..., M, D) and classes, float64.

        Args:
            z: vectors as they were learned from.
            mean: of the examples of each class, (..., C, D).
            count: of these examples, (..., C); 0 gives 0.
        """
        own, classes = self._turned(z), self._turned(mean)
        spread, n = self.variance.double(), count.double()[..., None]  # (D,), (..., C, 1)
        left = spread / (1 + n * spread)  # (..., C, D) what is still unknown of the class's mean
        centre, precision = n * left * classes, 1 / (1 + left)
        far = own**2 @ precision.mT - 2 * own @ (centre * precision).mT + (centre**2 * precision).sum(-1)[..., None, :]
        any_class = (own**2 / (1 + spread)).sum(-1, keepdim=True) + spread.log1p().sum()  # (..., M, 1)
        return (any_class - far - left.log1p().sum(-1)[..., None, :]) / 2

    def _turned(self, z: Tensor) -> Tensor:
        return (z.double() - self.mean.double()) @ self.matrix.double().T

    def tensors(self) -> dict[str, Tensor]:
        """What was learned, to be kept."""
        return {"mean": self.mean, "matrix": self.matrix, "variance": self.variance}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Background:
        """One that learned this."""
        found = cls(len(tensors["mean"]))
        found.load_state_dict(tensors | {"fitted": torch.tensor(True)})
        return found

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights from before there was a background leave it unlearned."""
        if f"{prefix}fitted" in state:
            super()._load_from_state_dict(state, prefix, *rest)


def _rounded(covariance: Tensor) -> Tensor:
    """A covariance (D, D) drawn towards a sphere of the same trace."""
    level = covariance.diagonal().mean().clamp(min=1e-12)
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(covariance)).to(covariance)
