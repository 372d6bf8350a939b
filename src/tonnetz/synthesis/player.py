"""A note to play and the synthetic player who plays it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tonnetz.synthesis.signal import Signal


@dataclass(frozen=True)
class Note:
    """One note: MIDI pitch, sounding seconds, velocity 0..1, the pitch it is slurred from (None: a fresh
    attack).
    """

    pitch: float
    seconds: float
    velocity: float = 0.8
    previous: float | None = None


@dataclass(frozen=True)
class Player:
    """Habits and instrument of one player, every number in -1..1 around the instrument's average."""

    bright: float = 0.0
    attack: float = 0.0
    vibrato_rate: float = 0.0
    vibrato_depth: float = 0.0
    detune: float = 0.0
    body: float = 0.0
    decay: float = 0.0
    noise: float = 0.0


Voice = Callable[[Note, Player, np.random.Generator, int], Signal]


def key(text: str) -> int:
    """A stable 32-bit number for a name, to key random generators."""
    return zlib.crc32(text.encode())


def player(instrument: str, index: int, seed: int = 0) -> Player:
    """Player `index` of an instrument; nobody else's draws touch it."""
    draws = np.random.default_rng([seed, key("player"), key(instrument), index]).uniform(-1, 1, 8)
    return Player(*(float(value) for value in draws))
