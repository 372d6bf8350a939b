"""Embeddings whose innermost axis is the pitch class: another key is a rotation of them."""

from __future__ import annotations

from torch import Tensor

PITCHES = 12


def transpose(z: Tensor, semitones: int) -> Tensor:
    """Rotate vectors (..., 12 n) as if the music sounded that many semitones higher."""
    return z.unflatten(-1, (-1, PITCHES)).roll(semitones, -1).flatten(-2)


def profile(z: Tensor) -> Tensor:
    """How much of each pitch class a set of vectors (..., S, 12 n) holds: (..., 12), positive parts on average."""
    return z.unflatten(-1, (-1, PITCHES)).clamp(min=0).mean((-3, -2))
