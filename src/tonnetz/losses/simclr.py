"""Contrastive losses on pairs of views: NT-Xent (SimCLR), DCL, and SupCon with the excerpts of a recording."""

from __future__ import annotations

import torch
from torch import Tensor

from tonnetz.losses.contrastive import decoupled, nt_xent, similarity, sup_con
from tonnetz.losses.metric import check_positive
from tonnetz.losses.views import PairLoss


class SimCLR(PairLoss):
    """NT-Xent on the 2N views of N excerpts (Chen et al. 2020): cross-entropy of the partner among all other views.

    -log(exp(s_p) / (exp(s_p) + sum of exp(s_n) over the negatives)) with s = cosine / temperature, mean over all 2N
    views. An uninformed encoder costs ln(2N - 1).
    """

    contrast = staticmethod(nt_xent)

    def __init__(self, temperature: float = 0.5, kin: str = "masked") -> None:
        super().__init__(kin)
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of the two views `online` (2, N, D) of excerpts of recordings (N,)."""
        score = similarity(online.flatten(0, 1)) / self.temperature  # (2N, 2N)
        excerpt = torch.arange(len(code), device=code.device).repeat(2)  # (2N,)
        same = excerpt[:, None] == excerpt
        positive, negative = self.relation(code.repeat(2), code.repeat(2), same)
        alone = torch.eye(len(excerpt), dtype=torch.bool, device=code.device)
        return self.contrast(score, positive & ~alone, negative)


class DCL(SimCLR):
    """Decoupled contrastive loss (Yeh et al. 2022): NT-Xent without the positive in the denominator.

    The gradient does not vanish where the positive is already near, so that small batches do.
    """

    contrast = staticmethod(decoupled)

    def __init__(self, temperature: float = 0.1, kin: str = "masked") -> None:
        super().__init__(temperature, kin)


class SupConViews(SimCLR):
    """SupCon (Khosla et al. 2020, L_out) on views: all excerpts of a recording are positives and share the mass."""

    contrast = staticmethod(sup_con)

    def __init__(self, temperature: float = 0.1, kin: str = "positive") -> None:
        super().__init__(temperature, kin)
