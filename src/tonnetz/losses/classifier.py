"""Classification of works behind a BN-neck: CoverHunter's focal head, ByteCover2's cross-entropy head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.losses.metric import MetricLoss, check_groups, columns

EPS = torch.finfo(torch.float32).eps


class Neck(nn.BatchNorm1d):
    """Batch normalisation whose bias stays 0 (Luo et al. 2019); a single vector is normalised as at test."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.bias.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        """Normalise vectors (N, D)."""
        if self.training and len(z) > 1:
            return super().forward(z)
        return F.batch_norm(z, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class FocalClassifier(MetricLoss):
    """Softmax focal loss of the works, mean of (1 - p)^gamma (-log p) with p = softmax(W neck(z)) + eps.

    `eps` is that of float32. Gamma 0 is plain cross-entropy. Smoothing s costs (1 - s) of the true class plus the
    s-weighted mean of all classes. `outputs` are the columns of W, those beyond the works never true (CoverHunter:
    30,000); null is one a work.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        gamma: float = 2.0,
        label_smoothing: float = 0.0,
        outputs: int | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if not 0 <= gamma < math.inf:
            raise UserError(f"gamma: {gamma} is not a finite exponent of at least 0; 0 is plain cross-entropy")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing: {label_smoothing} is outside [0, 1); 0 turns it off")
        self.classes, self.gamma, self.label_smoothing = classes, gamma, label_smoothing
        self.neck = Neck(dim)
        self.linear = nn.Linear(dim, columns(outputs, classes), bias=False)

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,); `row` does not matter."""
        check_groups(group, self.classes)
        logits = self.linear(self.neck(z))  # (N, K)
        if self.gamma == 0:
            return F.cross_entropy(logits, group, label_smoothing=self.label_smoothing)
        log_p = torch.logaddexp(logits.log_softmax(-1), logits.new_full((), math.log(EPS)))  # log (softmax + eps)
        miss = (1 - log_p.exp()).clamp(min=EPS)  # not 0, where a power has no finite slope
        cost = -(miss**self.gamma) * log_p  # (N, K)
        true = cost.gather(1, group[:, None])[:, 0]
        return ((1 - self.label_smoothing) * true + self.label_smoothing * cost.mean(1)).mean()
