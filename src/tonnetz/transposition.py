"""Embeddings whose innermost axis is the pitch class: another key is a rotation of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PITCHES = 12
SHARE = 3  # the best one of so many windows say which key two recordings share


def transpose(z: Tensor, semitones: int) -> Tensor:
    """Rotate vectors (..., 12 n) as if the music sounded that many semitones higher."""
    return z.unflatten(-1, (-1, PITCHES)).roll(semitones, -1).flatten(-2)


def turned(z: Tensor, turns: int = PITCHES) -> Tensor:
    """Vectors (..., D) in all keys: (12, ..., D); as they are, (1, ..., D), when `turns` is 1."""
    return torch.stack([transpose(z, turn) for turn in range(PITCHES)]) if turns > 1 else z[None]


def best_turn(near: Tensor) -> Tensor:
    """The turn (...,) in which a recording matches another best; `near` (turns, ..., S) says how well in each.

    It holds the highest similarity of every window, -inf where there is none. The best third of the windows decide:
    parts may be missing in the other recording, and what is padded does not count.
    """
    best = near.topk(max(1, near.shape[-1] // SHARE), -1).values  # (turns, ..., k)
    share = (near.isfinite().sum(-1, keepdim=True) // SHARE).clamp(min=1)
    kept = (torch.arange(best.shape[-1], device=near.device) < share) & best.isfinite()
    return torch.where(kept, best, 0.0).sum(-1).argmax(0)


def turn_towards(z: Tensor, reference: Tensor, turns: int = PITCHES) -> tuple[Tensor, Tensor]:
    """Vectors z (N, D), each in the key in which it is most like its reference (N, D), and that key (N,)."""
    tried = turned(z, turns)  # (turns, N, D)
    key = best_turn((tried * reference).sum(-1, keepdim=True))
    return tried[key, torch.arange(len(z), device=z.device)], key


def in_semitones(key: int) -> int:
    """A turn of 0 to 11 as semitones from -5 to 6."""
    return key - PITCHES if key > PITCHES // 2 else key


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
