"""Contrastive losses on cosine similarities: SupCon and NT-Xent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.losses.metric import MetricLoss, check_positive, mean_of, pairs
from tonnetz.reductions import TINY


class Contrastive(MetricLoss):
    """Cosine similarities over a temperature; segments of one track are positives when `within_track`."""

    def __init__(self, temperature: float = 0.1, within_track: bool = False, weight: float = 1.0) -> None:
        super().__init__(weight)
        check_positive(temperature=temperature)
        self.temperature, self.within_track = temperature, within_track


class SupCon(Contrastive):
    """Supervised contrastive loss (Khosla et al. 2020, L_out), mean over the anchors that have a positive.

    -log softmax of each positive among all positives and negatives of the anchor, mean over its positives.
    Another segment of the same track is a positive when `within_track`, else it is left out altogether.
    """

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,) and tracks (N,)."""
        return sup_con(similarity(z) / self.temperature, *pairs(group, row, self.within_track))


class NTXent(Contrastive):
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020), mean over all positive pairs.

    -log of exp(s) of the pair over exp(s) of the pair plus those of the anchor's negatives: unlike in SupCon, the
    positives of an anchor do not compete. `within_track` as in SupCon.
    """

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,) and tracks (N,)."""
        return nt_xent(similarity(z) / self.temperature, *pairs(group, row, self.within_track))


def sup_con(score: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """SupCon of scores (N, M), cosines over a temperature, with masks of positives and negatives. Scalar."""
    count = positive.sum(1)  # (N,)
    mean = score.masked_fill(~positive, 0.0).sum(1) / count.clamp(min=1)
    return mean_of(log_sum_exp(score, positive | negative) - mean, count > 0)


def nt_xent(score: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """NT-Xent of scores (N, M), cosines over a temperature, with masks of positives and negatives. Scalar."""
    return mean_of(F.softplus(log_sum_exp(score, negative)[:, None] - score), positive)


def decoupled(score: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of log sum exp of an anchor's negatives less a positive, of scores (N, M); anchors need both. Scalar."""
    return mean_of(log_sum_exp(score, negative)[:, None] - score, positive & negative.any(1, keepdim=True))


def similarity(z: Tensor) -> Tensor:
    """Cosine similarities (N, N) of vectors (N, D)."""
    z = F.normalize(z, dim=-1, eps=TINY)
    return z @ z.T


def log_sum_exp(score: Tensor, mask: Tensor) -> Tensor:
    """Log of the sum of exp(score) (N, M) over the masked cells of each row, very small when there are none."""
    return score.masked_fill(~mask, torch.finfo(score.dtype).min / 4).logsumexp(1)
