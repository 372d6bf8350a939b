"""VICReg: views agree, every dimension varies, no two dimensions say the same."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.losses.views import ViewLoss


class VICReg(ViewLoss):
    """Variance-invariance-covariance regularisation (Bardes et al. 2022).

    `invariance` x mean squared difference of the two views, + `variance` x mean over dimensions of
    relu(1 - sqrt(var + epsilon)), mean of the two views, + `covariance` x sum of the squared covariances off the
    diagonal / D, sum of the two views. Variances and covariances divide by N - 1.
    """

    norm = others = True

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, epsilon: float = 1e-4
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance, self.epsilon = invariance, variance, covariance, epsilon

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of the two views `online` (2, N, D)."""
        agree = F.mse_loss(online[0], online[1])
        centred = online - online.mean(1, keepdim=True)  # (2, N, D)
        cov = centred.mT @ centred / max(online.shape[1] - 1, 1)  # (2, D, D)
        var = cov.diagonal(dim1=1, dim2=2)  # (2, D)
        spread = (1 - (var + self.epsilon).sqrt()).relu().mean()
        return self.invariance * agree + self.variance * spread + self.covariance * off_diagonal(cov) / cov.shape[-1]


def off_diagonal(square: Tensor) -> Tensor:
    """Sum of the squares off the diagonal of (..., D, D). Scalar."""
    alone = torch.eye(square.shape[-1], dtype=torch.bool, device=square.device)
    return square.masked_fill(alone, 0.0).square().sum()
