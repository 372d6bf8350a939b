"""Logistic regression on the support, to the optimum, for all episodes at once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from tonnetz.heads.base import Head, flat

TINY = torch.finfo(torch.float64).tiny
CHECK = 5  # steps between two looks at convergence, each a wait for the device
NEWTON = 2  # steps of a line search
ROUNDING = 1e-12  # of the gradient's terms: what is left of them is no slope


class LogisticRegression(Head):
    """Multinomial logistic regression with an L2 penalty: scikit-learn's ``LogisticRegression(C=c)``, batched.

    Minimises c * (sum of cross-entropies) + |W|^2 / 2, the bias free. As in scikit-learn, two classes share one weight
    vector, which halves the penalty. Computes in float64.

    Args:
        c: weight of the data against the penalty.
        normalize: none, l2 (Tian et al. 2020, arXiv:2003.11539) or cl2; see `Head`.
        tolerance: relative error of the weights at which an episode is solved.
        steps: most steps; a warning says so when they do not suffice.
    """

    def __init__(self, c: float = 1.0, normalize: str = "l2", tolerance: float = 1e-4, steps: int = 1000) -> None:
        super().__init__(normalize)
        self.c, self.tolerance, self.steps = c, tolerance, steps

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Logits of the fitted regression."""
        x, target = flat(support.double(), mask)  # (E, N, D), (E, N, C)
        two = mask.any(-1).sum(-1) == 2  # (E,)
        penalty = torch.where(two, 2.0, 1.0)[:, None, None].double() / self.c  # (E, 1, 1)
        with torch.no_grad():
            # weights lie in the span of the examples, so with fewer examples than dimensions coordinates there suffice
            base, coordinates = torch.linalg.qr(x.mT) if x.shape[1] < x.shape[2] else (None, x.mT)
            weight, bias = fit(coordinates.mT, target, penalty, self.tolerance, self.steps)  # (E, R, C), (E, 1, C)
            weight = weight if base is None else base @ weight  # (E, D, C)
        return query @ weight.to(query) + bias.to(query)


def fit(
    x: Tensor, target: Tensor, penalty: Tensor, tolerance: float = 1e-4, steps: int = 1000
) -> tuple[Tensor, Tensor]:
    """Weights (E, R, C) and biases (E, 1, C) that minimise cross-entropy + penalty / 2 |W|^2.

    Nonlinear conjugate gradients. The Hessian of a softmax is at most 1/2 (Boehning 1992), which bounds that of the
    loss: the bound's inverse is the preconditioner, the bound's minimum on a line the start of its search by Newton.
    The loss is strongly convex by the penalty, so |gradient| <= tolerance * penalty * |W|, at which it stops, means
    that the weights are off by `tolerance` at most. Weak penalties on long embeddings take many steps.

    Args:
        x: examples (E, N, R) in float64.
        target: (E, N, C), one-hot, zero for an example that does not exist. A class without one gets weights 0.
        penalty: (E, 1, 1).
        tolerance: relative error of the weights.
        steps: most steps; a warning says so when they do not suffice.
    """
    exists = target.sum(-1, keepdim=True)  # (E, N, 1)
    count = target.sum(1, keepdim=True)  # (E, 1, C)
    never = torch.zeros_like(count).masked_fill(count == 0, -1e300)  # added to logits of absent classes
    x = torch.cat([x, torch.ones_like(exists)], -1) * exists  # (E, N, R + 1) the bias is a weight without penalty
    decay = penalty.expand(-1, x.shape[-1], 1).clone()  # (E, R + 1, 1)
    decay[:, -1] = 0
    bound = x.mT @ x / 2 + torch.diag_embed(decay[..., 0])
    bound[:, -1, -1].clamp_(min=0.5)  # an episode without examples
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(bound))  # (E, R + 1, R + 1)
    weight, logits = x.new_zeros(*decay.shape[:2], target.shape[-1]), torch.zeros_like(target)  # (E, R + 1, C)
    down, best, gain = weight, weight, torch.ones_like(penalty)  # direction of search
    flat_slope = ROUNDING**2 * _square(x.mT @ target)  # (E,)
    for step in range(steps):
        prob = (logits + never).softmax(-1)
        slope = x.mT @ (prob - target) + decay * weight  # rows of x that do not exist are zero
        # where all examples are equal the optimum is no weight at all, to which no error is relative
        if step % CHECK == 0 and bool((_square(slope) <= tolerance**2 * _square(decay * weight) + flat_slope).all()):
            return weight[:, :-1], weight[:, -1:]
        old_best, old_gain = best, gain
        best = inverse @ slope  # the bound's minimum
        gain = _sum(slope * best)
        keep = ((gain - _sum(slope * old_best)) / old_gain.clamp(min=TINY)).clamp(min=0)  # Polak-Ribiere
        keep = torch.where(gain + keep * _sum(slope * down) > 0, keep, 0.0)  # never uphill
        down = best + keep * down
        down_logits = x @ down
        width = _width(logits + never, down_logits, exists, _sum(slope * down), _sum(decay * down**2))
        weight, logits = weight - width * down, logits - width * down_logits
    warnings.warn(f"LogisticRegression: {steps} steps leave an error above {tolerance}; raise steps", stacklevel=2)
    return weight[:, :-1], weight[:, -1:]


def _width(logits: Tensor, down: Tensor, exists: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
    """How far (E, 1, 1) to go down a line, whose slope and curvature by the penalty are given."""
    start = exists * logits.softmax(-1)
    least = width = slope / (_sum(down**2) / 2 + bend).clamp(min=TINY)  # the bound's minimum is never too far
    for step in range(NEWTON + 1):
        prob = exists * (logits - width * down).softmax(-1)
        rest = slope + _sum((prob - start) * down) - width * bend  # slope there
        if step < NEWTON:
            curvature = _sum(prob * (down - (prob * down).sum(-1, keepdim=True)) ** 2) + bend
            width = torch.maximum(least, width + rest / curvature.clamp(min=TINY))
    return torch.where(rest.abs() < 0.9 * slope, width, least)


def _sum(x: Tensor) -> Tensor:
    return x.sum((1, 2), keepdim=True)  # (E, 1, 1)


def _square(x: Tensor) -> Tensor:
    return (x**2).sum((1, 2))  # (E,)
