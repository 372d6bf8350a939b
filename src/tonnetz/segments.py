"""Segments: equal pieces of a sequence of frames, each of which becomes one vector."""

from __future__ import annotations

import torch
from torch import Tensor


def grid(rate: float, segment: float, hop: float | None) -> tuple[int, int]:
    """Frames of a segment and frames from one to the next."""
    return max(1, round(segment * rate)), max(1, round((hop or segment) * rate))


def cut(
    x: Tensor, lengths: Tensor, rate: float, segment: float, hop: float | None, tail: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut x (B, T, ...) at `rate` frames a second into segments: (B, S, L, ...), valid (B, S), seconds (B, S).

    A segment is valid when it lies within the frames `lengths` (B,); the first one always is. With `tail` an example
    that ends between two steps gets one more segment, which ends where the example does.
    """
    size, step = grid(rate, segment, hop)
    missing = max(0, size - x.shape[1])
    if missing:
        x = torch.cat([x, x[:, -1:].expand(-1, missing, *x.shape[2:])], 1)
    parts = x.unfold(1, size, step).movedim(-1, 2)  # (B, S, L, ...)
    first = torch.arange(parts.shape[1], device=x.device) * step  # (S,)
    valid = first + size <= lengths[:, None]
    valid[:, 0] = True
    first = first.expand(valid.shape)
    short = (lengths > size) & (lengths < x.shape[1]) & ((lengths - size) % step > 0)  # (B,)
    if tail and step > 1 and bool(short.any()):
        last = (lengths - size).clamp(min=0)  # (B,)
        index = last[:, None] + torch.arange(size, device=x.device)  # (B, L)
        end = x[torch.arange(len(x), device=x.device)[:, None], index.clamp(max=x.shape[1] - 1)]  # (B, L, ...)
        parts = torch.cat([parts, end[:, None]], 1)
        valid, first = torch.cat([valid, short[:, None]], 1), torch.cat([first, last[:, None]], 1)
    return parts, valid, first / rate
