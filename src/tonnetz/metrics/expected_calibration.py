"""Are probabilities what they say? The expected calibration error, and the curve behind it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Reliability(NamedTuple):
    """What happened in each bin of confidence (B,); NaN for an empty bin."""

    confidence: Tensor  # mean
    accuracy: Tensor
    n: Tensor


def reliability(confidence: Tensor, correct: Tensor, bins: int = 15) -> Reliability:
    """Bins of equal width, (low, high], of confidences (...,) in 0 ... 1 and of whether they were correct (...,)."""
    confidence, correct = confidence.flatten().double(), correct.flatten().double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    place = (torch.bucketize(confidence, edges) - 1).clamp(0, bins - 1)  # 0 belongs to the first
    count = torch.bincount(place, minlength=bins)
    said, right = (torch.bincount(place, weights, bins) for weights in (confidence, correct))
    return Reliability(said / count, right / count, count)


def expected_calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """Mean of |accuracy - confidence| over bins, weighted by their counts (Naeini et al. 2015); NaN without any.

    `confidence` (...,) is the probability of the answer given, `correct` (...,) whether it was right.
    """
    curve = reliability(confidence, correct, bins)
    gap = (curve.accuracy - curve.confidence).abs().nan_to_num()
    return float((gap * curve.n).sum() / curve.n.sum())
