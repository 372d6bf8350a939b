"""Barlow Twins: the correlation of the two views' dimensions should be the identity."""

from __future__ import annotations

from torch import Tensor

from tonnetz.losses.metric import check_positive
from tonnetz.losses.vicreg import off_diagonal
from tonnetz.losses.views import ViewLoss


class BarlowTwins(ViewLoss):
    """Sum of (1 - c_ii)^2 + `redundancy` x sum of c_ij^2, i != j (Zbontar et al. 2021).

    c (D, D) is the correlation over the batch of each dimension of one view with each of the other. Dimensions are
    standardised with the variance over N, plus 1e-5, as batch normalisation does.
    """

    norm = others = True

    def __init__(self, redundancy: float = 5e-3) -> None:
        super().__init__()
        check_positive(redundancy=redundancy)
        self.redundancy = redundancy

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of the two views `online` (2, N, D)."""
        centred = online - online.mean(1, keepdim=True)  # (2, N, D)
        unit = centred * (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        correlation = unit[0].T @ unit[1] / online.shape[1]  # (D, D)
        agree = (1 - correlation.diagonal()).square().sum()
        return agree + self.redundancy * off_diagonal(correlation)
