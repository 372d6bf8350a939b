"""Embeddings whose innermost axis is the pitch class: another key is a rotation of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PITCHES = 12
SHARE = 3  # the best one of so many windows say which key two recordings share


def transpose(z: Tensor, semitones: int) -> Tensor:
    """Rotate vectors (..., 12 n) as if the music sounded that many semitones higher."""
    return z.unflatten(-1, (-1, PITCHES)).roll(semitones, -1).flatten(-2)


def transpose_each(z: Tensor, semitones: Tensor) -> Tensor:
    """Rotate each of some sets of vectors (P, S, 12 n) by semitones of its own (P,)."""
    place = (torch.arange(PITCHES, device=z.device) - semitones[:, None]) % PITCHES  # (P, 12)
    parts = z.unflatten(-1, (-1, PITCHES))  # (P, S, n, 12)
    return parts.gather(-1, place[:, None, None].expand(parts.shape)).flatten(-2)


def turned(z: Tensor, turns: int = PITCHES) -> Tensor:
    """Vectors (..., D) in all keys: (12, ..., D); as they are, (1, ..., D), when `turns` is 1."""
    return torch.stack([transpose(z, turn) for turn in range(PITCHES)]) if turns > 1 else z[None]


def best_turn(near: Tensor, other: Tensor | None = None) -> Tensor:
    """The turn (...,) in which a recording matches another best; `near` (turns, ..., S) says how well in each.

    It holds the highest similarity of every window, -inf where there is none. The best third of the windows decide:
    parts may be missing in the other recording, and what is padded does not count. The third is of the windows of the
    `other` (...,) where it has fewer: of a whole concert no more than those can match.
    """
    best = near.topk(max(1, near.shape[-1] // SHARE), -1).values  # (turns, ..., k)
    windows = near.isfinite().sum(-1, keepdim=True)  # (turns, ..., 1)
    windows = windows if other is None else torch.minimum(windows, other[..., None])
    share = (windows // SHARE).clamp(min=1)
    kept = (torch.arange(best.shape[-1], device=near.device) < share) & best.isfinite()
    return torch.where(kept, best, 0.0).sum(-1).argmax(0)


def turn_towards(z: Tensor, reference: Tensor, turns: int = PITCHES) -> tuple[Tensor, Tensor]:
    """Vectors z (N, D), each in the key in which it is most like its reference (N, D), and that key (N,)."""
    tried = turned(z, turns)  # (turns, N, D)
    key = best_turn((tried * reference).sum(-1, keepdim=True))
    return tried[key, torch.arange(len(z), device=z.device)], key


def in_one_key(a: Tensor, b: Tensor, real_a: Tensor, real_b: Tensor, turns: int = PITCHES) -> tuple[Tensor, Tensor]:
    """Products (P, S, s) of the windows of a (P, S, D), in its best key, and b (P, s, D); and that key (P,).

    The key is that of `best_turn`, one for a pair. Cells without a window (`real_a`, `real_b`, or NaN) are NaN.
    """
    real = real_a[:, :, None] & real_b[:, None]

    def cells(a: Tensor) -> Tensor:
        return (a @ b.mT).masked_fill(~real, torch.nan)

    keys = range(PITCHES if turns > 1 else 1)  # one after the other: all at once may be large
    near = [cells(transpose(a, key) if key else a).nan_to_num(-torch.inf).amax(-1) for key in keys]  # (P, S) each
    best = best_turn(torch.stack(near), (real_b & ~b.isnan().any(-1)).sum(-1))
    return cells(transpose_each(a, best) if turns > 1 else a), best


def in_semitones(key: Any) -> Any:
    """Turns of 0 to 11, one or an array, as semitones from -5 to 6."""
    return (key + 5) % PITCHES - 5


def profile(z: Tensor) -> Tensor:
    """How much of each pitch class a set of vectors (..., S, 12 n) holds: (..., 12), positive parts on average."""
    return z.unflatten(-1, (-1, PITCHES)).clamp(min=0).mean((-3, -2))


def profiles(z: Tensor, valid: Tensor) -> Tensor:
    """Centred unit pitch profile (N, 12) of tracks (N, S, D); zeros when D is no multiple of 12."""
    if z.shape[-1] % PITCHES:
        return z.new_zeros(len(z), PITCHES)
    mean = profile(z * valid[..., None])  # (N, 12)
    return F.normalize(mean - mean.mean(-1, keepdim=True), dim=-1)


def likely_turns(a: Tensor, b: Tensor, turns: int) -> list[Tensor]:
    """Whether each pair of profiles (..., 12) is among the `turns` likeliest in each key: one mask (...) a key.

    The optimal transposition index of Serra et al. 2008, which costs nothing beside the matching itself.
    """
    if turns == 1:
        return [torch.ones(torch.broadcast_shapes(a.shape, b.shape)[:-1], dtype=torch.bool, device=a.device)]
    agreement = torch.stack([(a.roll(turn, -1) * b).sum(-1) for turn in range(PITCHES)], -1)  # (..., 12)
    chosen = torch.zeros_like(agreement, dtype=torch.bool)
    chosen.scatter_(-1, agreement.topk(turns, -1).indices, True)
    return list(chosen.unbind(-1))
