"""Keys: their names as numbers, and the weighted score of MIREX and mir_eval.

Key 0 to 11 is C to B major, 12 to 23 is C to B minor, counted in semitones.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from tonnetz.errors import UserError

KEYS = tuple(
    f"{tonic} {mode}"
    for mode in ("major", "minor")
    for tonic in ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
)
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
MODES = {"": 0, "maj": 0, "major": 0, "min": 1, "minor": 1, "m": 1}
NAME = re.compile(r"([A-Ga-g])([#b♯♭]?)[\s:_-]*([a-z]*)")


def parse_key(name: str) -> int:
    """Number of a key such as ``C major``, ``F# minor``, ``Ebm`` or ``a:min``. Raises UserError for another text."""
    found = NAME.fullmatch(str(name).strip())
    mode = MODES.get(found[3]) if found else None
    if found is None or mode is None:
        raise UserError(f"'{name}': is no key; write for example 'C major', 'F# minor', 'Ebm'")
    sharp = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(found[2], 0)
    return (LETTERS[found[1].upper()] + sharp) % 12 + 12 * mode


def key_table(symmetric: bool = False) -> Tensor:
    """Weighted score (24, 24) of [true key, estimated key], float64.

    1 for the key, 0.5 for a fifth above in the same mode (with `symmetric`, as MIREX scores it, also a fifth below;
    mir_eval does not), 0.3 for the relative, 0.2 for the parallel key, else 0.
    """
    number = torch.arange(24)
    tonic, minor = number % 12, number // 12
    step = (tonic[None] - tonic[:, None]) % 12  # semitones from the true to the estimated tonic
    same = minor[None] == minor[:, None]
    to_relative = torch.where(minor == 0, 9, 3)[:, None]  # C major to A minor is 9, A minor to C major is 3 semitones
    table = torch.zeros(24, 24, dtype=torch.float64)
    table[same & (step == 0)] = 1.0
    table[same & ((step == 7) | ((step == 5) & symmetric))] = 0.5
    table[~same & (step == to_relative)] = 0.3
    table[~same & (step == 0)] = 0.2
    return table


def key_score(score: Tensor, target: Tensor, symmetric: bool = False) -> Tensor:
    """Mean weighted score (C,) of the highest of 24 scores (C, 24, N) for true keys (N,) or (C, N); -1 = unknown."""
    known = target >= 0
    value = key_table(symmetric).to(score.device)[target.clamp(min=0), score.argmax(-2)]  # (C, N)
    return (value * known).sum(-1) / known.sum(-1)


def key_score_macro(score: Tensor, target: Tensor) -> Tensor:
    """The same (C,), as the mean over the true keys that occur, each of which counts alike."""
    known = target >= 0
    value = key_table().to(score.device)[target.clamp(min=0), score.argmax(-2)]  # (C, N)
    each = torch.nn.functional.one_hot(target.clamp(min=0), len(KEYS)).double() * known[..., None]  # (..., N, 24)
    total = (value[:, None] @ each)[:, 0]  # (C, 24)
    return (total / each.sum(-2)).nanmean(-1)
