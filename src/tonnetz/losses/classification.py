"""Classification losses on logits (B, K) and targets (B, K) in [0, 1], NaN = unknown.

The binary family is a mean over known cells, cross-entropy a mean over rows of one class or a mixture.
Unknown cells change neither value nor gradient; a batch without a known cell costs a zero with a gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError


def bce(logits: Tensor, target: Tensor, pos_weight: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy, mean over known cells; `pos_weight` (K,) scales the cost of positives. Scalar."""
    x, y, known = _cells(logits, target, label_smoothing)
    cost = F.binary_cross_entropy_with_logits(x, y, pos_weight=pos_weight, reduction="none")  # (B, K)
    return _mean(cost, known)


def focal(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float | None = None,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sigmoid focal loss -alpha_t (1 - p_t)^gamma log p_t, mean over known cells (Lin et al. 2017). Scalar.

    p_t is p for positives and 1 - p for negatives, alpha_t is `alpha` and 1 - `alpha`, or 1 and 1 when None.
    """
    x, y, known = _cells(logits, target, label_smoothing)
    log_p, log_q = F.logsigmoid(x), F.logsigmoid(-x)  # (B, K) log p and log (1 - p)
    # Powers as exponentials of logs: pow has an infinite slope at 0 for gamma < 1.
    positive = -(gamma * log_q).exp() * log_p
    negative = -(gamma * log_p).exp() * log_q
    if pos_weight is not None:
        positive = positive * pos_weight
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return _mean(y * positive + (1 - y) * negative, known)


def asymmetric_focal(
    logits: Tensor,
    target: Tensor,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    shift: float = 0.05,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Asymmetric loss for multi-label data, mean over known cells (Ridnik et al. 2021). Scalar.

    Positives cost -(1 - p)^g+ log p; negatives cost -q^g- log(1 - q) with q = max(p - shift, 0), so that
    negatives easier than `shift` cost nothing.
    """
    x, y, known = _cells(logits, target, label_smoothing)
    log_p, log_q = F.logsigmoid(x), F.logsigmoid(-x)
    positive = -(gamma_positive * log_q).exp() * log_p
    log_shift = x.new_full((), math.log(shift) if shift > 0 else -math.inf)
    shifted = x.sigmoid() - shift
    hard = shifted > 0
    power = torch.where(hard, shifted, 1.0) ** gamma_negative  # 1 where unused: pow has no finite slope at 0
    negative = torch.where(hard, -power * torch.logaddexp(log_q, log_shift).clamp(max=0.0), 0.0)
    return _mean(y * positive + (1 - y) * negative, known)


def cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy, mean over the rows whose known targets sum to 1. Scalar.

    These rows have exactly one known positive, or a mixture of classes as mixup makes it. Classes exclude one
    another, so every other class of such a row, unknown ones too, is a negative.
    """
    y = target.float().nan_to_num(0.0)  # (B, K)
    usable = (y.sum(1) - 1).abs() < 1e-3  # (B,)
    x, y = (torch.where(usable[:, None], z, 0.0) for z in (logits.float(), y))
    return _mean(F.cross_entropy(x, y, reduction="none", label_smoothing=label_smoothing), usable)


def positive_weights(positives: Tensor, known: Tensor, cap: float = 10.0) -> Tensor:
    """Weights (N - n) / n (K,) from n positive and N known files per class, within [1 / cap, cap].

    A class without a known file gets 1, a class without a positive one `cap`.
    """
    positives, known = positives.float(), known.float()
    weights = ((known - positives) / positives).clamp(1 / cap, cap)  # (K,)
    return torch.where(known > 0, weights, 1.0)


class _Loss(nn.Module):
    """Checks and keeps the label smoothing, which every classification loss has."""

    activation: str = "sigmoid"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing: {label_smoothing} is outside [0, 1); 0 turns it off")
        self.label_smoothing = label_smoothing


class _Balanced(_Loss):
    """Keeps positive weights, empty until `fit_counts`, in a buffer that travels with the checkpoint."""

    pos_weight: Tensor

    def __init__(self, label_smoothing: float = 0.0, cap: float = 10.0) -> None:
        super().__init__(label_smoothing)
        if cap < 1:
            raise UserError(f"cap: {cap} is below 1; give the largest weight of a positive, such as 10")
        self.cap = cap
        self.register_buffer("pos_weight", torch.empty(0))

    def fit_counts(self, positives: Tensor, known: Tensor) -> None:
        """Set the weights from positive and known files (K,) per class in the training split."""
        self.pos_weight = positive_weights(positives, known, self.cap).to(self.pos_weight.device)

    def _weights(self) -> Tensor:
        if not self.pos_weight.numel():
            raise UserError("loss: positive weights need class counts; call fit_counts before training")
        return self.pos_weight

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        saved = state_dict.get(f"{prefix}pos_weight")
        if saved is not None:  # its size is known only from the data
            self.pos_weight = self.pos_weight.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class BCE(_Loss):
    """Binary cross-entropy over known cells. Targets y become y (1 - s) + s / 2 with label smoothing s."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (B, K) for targets (B, K), NaN = unknown."""
        return bce(logits, target, label_smoothing=self.label_smoothing)


class BCEPosWeight(_Balanced):
    """Binary cross-entropy whose positives weigh (N - n) / n, at most `cap` and at least 1 / `cap`."""

    def __init__(self, cap: float = 10.0, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing, cap)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (B, K) for targets (B, K). Raises UserError before `fit_counts`."""
        return bce(logits, target, self._weights(), self.label_smoothing)


class CrossEntropy(_Loss):
    """Softmax cross-entropy over the rows with exactly one known positive, or a mixture that sums to 1."""

    activation = "softmax"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (B, K) for targets (B, K), NaN = unknown."""
        return cross_entropy(logits, target, self.label_smoothing)


class Focal(_Balanced):
    """Sigmoid focal loss (Lin et al. 2017); `balance` multiplies positives by (N - n) / n, capped."""

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = None,
        balance: bool = False,
        cap: float = 10.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing, cap)
        _check_gamma(gamma=gamma)
        if alpha is not None and not 0 <= alpha <= 1:
            raise UserError(f"alpha: {alpha} is outside [0, 1]; null turns it off")
        self.gamma, self.alpha, self.balance = gamma, alpha, balance

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits and targets (B, K). Raises UserError for `balance` before `fit_counts`."""
        weights = self._weights() if self.balance else None
        return focal(logits, target, self.gamma, self.alpha, weights, self.label_smoothing)


class AsymmetricFocal(_Loss):
    """Asymmetric focal loss (Ridnik et al. 2021): an exponent for either sign, and shifted negatives."""

    def __init__(
        self,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        shift: float = 0.05,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        _check_gamma(gamma_positive=gamma_positive, gamma_negative=gamma_negative)
        if not 0 <= shift < 1:
            raise UserError(f"shift: {shift} is outside [0, 1); 0 turns it off")
        self.gamma_positive, self.gamma_negative, self.shift = gamma_positive, gamma_negative, shift

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (B, K) for targets (B, K), NaN = unknown."""
        return asymmetric_focal(
            logits, target, self.gamma_positive, self.gamma_negative, self.shift, self.label_smoothing
        )


def _cells(logits: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and smoothed targets, float32 and harmless in unknown cells, and the mask of known cells."""
    known = ~target.isnan()  # (B, K)
    x = torch.where(known, logits.float(), 0.0)
    y = torch.where(known, target.float(), 0.0)
    return x, y * (1 - label_smoothing) + label_smoothing / 2, known


def _mean(cost: Tensor, known: Tensor) -> Tensor:
    """Mean of the costs where `known`; 0 with a gradient path when nothing is."""
    return torch.where(known, cost, 0.0).sum() / known.sum().clamp(min=1)


def _check_gamma(**gammas: float) -> None:
    for name, gamma in gammas.items():
        if not 0 <= gamma < math.inf:
            raise UserError(f"{name}: {gamma} is not a finite exponent of at least 0; 0 is plain cross-entropy")


def auto(multilabel: bool, label_smoothing: float = 0.0) -> BCE | CrossEntropy:
    """Cross-entropy when every track has exactly one class, binary cross-entropy otherwise."""
    return BCE(label_smoothing) if multilabel else CrossEntropy(label_smoothing)
