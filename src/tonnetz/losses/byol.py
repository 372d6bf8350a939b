"""Without negatives: predict the other view's target (BYOL, SimSiam)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from tonnetz.losses.views import ViewLoss, check_momentum
from tonnetz.reductions import TINY


class BYOL(ViewLoss):
    """2 - 2 cosine of the prediction from each view and the target of the other (Grill et al. 2020).

    The mean over excerpts, summed over the two directions: 0 at best, 4 where nothing is alike.

    Args:
        momentum: first and last decay of the moving average that makes the targets; it rises along half a cosine.
    """

    predicts = True
    norm = True

    def __init__(self, momentum: Sequence[float] = (0.996, 1.0)) -> None:
        super().__init__()
        self.momentum = check_momentum(momentum)

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of predictions (2, N, D) and targets (2, N, D)."""
        return 2 * (2 - 2 * crossed(online, target))


class SimSiam(ViewLoss):
    """Minus the cosine of the prediction from each view and the projection of the other (Chen & He 2021).

    The projection is a constant here: no gradient, no moving average. The mean of the two directions: -1 at best.
    """

    predicts = True
    norm = True

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of predictions (2, N, D) and targets (2, N, D)."""
        return -crossed(online, target)


def crossed(online: Tensor, target: Tensor) -> Tensor:
    """Mean cosine of each view (2, N, D) with the target (2, N, D) of the other. Scalar."""
    return F.cosine_similarity(online, target.detach().flip(0), dim=-1, eps=TINY).mean()
