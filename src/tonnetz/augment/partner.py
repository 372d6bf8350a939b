"""Which other examples of the batch an example is put together with, and the label of the whole."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_partners(x: Tensor, most: int) -> Tensor:
    """For each example of x (B, ...) itself and up to most - 1 different others in random order, (B, S).

    Every row is the head of a random permutation of the batch that begins with the example; S = min(most, B).
    """
    order = torch.rand(len(x), len(x), device=x.device)  # (B, B)
    order.fill_diagonal_(-1.0)  # itself first
    return order.argsort(1)[:, :most]  # (B, S)


def draw_count(x: Tensor, most: int) -> Tensor:
    """For each example of x (B, ...) a number of sources, uniform in 1 ... min(most, B), (B,) int64."""
    return 1 + (torch.rand(len(x), device=x.device) * min(most, len(x))).long()


def join_labels(label: Tensor, partners: Tensor, used: Tensor) -> Tensor:
    """Logical OR of the labels of the used sources: label (B, K), partners and used (R, S) -> (R, K).

    The largest known value holds where it is positive (0.5 or more); else one unknown source makes it NaN.
    """
    members = label[partners]  # (R, S, K)
    used = used.unsqueeze(-1)  # (R, S, 1)
    known = torch.where(used & ~members.isnan(), members, 0.0).amax(1)  # (R, K)
    unknown = (used & members.isnan()).any(1)  # (R, K)
    return torch.where(unknown & (known < 0.5), torch.nan, known)


def scale_peak(x: Tensor) -> Tensor:
    """x (..., C, N) divided by its peak over C and N; silence stays silence."""
    return x / x.abs().amax((-2, -1), keepdim=True).clamp(min=1e-8)
