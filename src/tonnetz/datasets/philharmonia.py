"""Philharmonia Orchestra sound samples: single notes and phrases, a folder an instrument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.base import Corpus
from tonnetz.datasets.files import audio_by_id

FIELDS = ("instrument", "pitch", "length", "dynamic", "articulation")
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Philharmonia(Corpus):
    """``root/INSTRUMENT/instrument_pitch_length_dynamic_articulation.mp3``; percussion may have sub-folders.

    Columns instrument, pitch (Ds4 is D sharp 4), midi, length, dynamic and articulation come from file names.

    Args:
        root: the folder.
        split_percussion: false: percussion is one class; true: each percussion instrument is one.
        split: put every file into this split.
    """

    name = "philharmonia"

    def __init__(self, root: str | Path, *, split_percussion: bool = False, split: str | None = None) -> None:
        super().__init__(root, split=split)
        self.split_percussion = split_percussion

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a file."""
        for name, path in audio_by_id(self).items():
            facts = parse_name(path.stem)
            label = self._label(path.relative_to(self.root).parts[:-1], facts["instrument"])
            yield {"id": name, "path": str(path), "labels": [label], **facts}

    def _label(self, folders: tuple[str, ...], instrument: str) -> str:
        """The folder, the sub-folder of percussion, or the file's own word where there is none."""
        if not folders:
            return instrument
        if self.split_percussion and folders[0].lower() == "percussion":
            return folders[1] if len(folders) > 1 else instrument
        return folders[0]


def parse_name(stem: str) -> dict[str, Any]:
    """Split ``violin_Ds4_05_forte_arco-normal`` into columns; None for what it does not say."""
    parts = stem.split("_")
    if len(parts) != len(FIELDS):
        return {**dict.fromkeys(FIELDS), "instrument": parts[0], "midi": None}
    facts: dict[str, Any] = {field: part or None for field, part in zip(FIELDS, parts, strict=True)}
    return {**facts, "midi": midi_number(parts[1])}


def midi_number(pitch: str) -> int | None:
    """MIDI number of a pitch like A4 (69) or Ds4 (63; s is sharp), None for anything else."""
    match = re.fullmatch(r"([A-G])(s?)(-?\d)", pitch)
    return 12 * (int(match[3]) + 1) + SEMITONES[match[1]] + len(match[2]) if match else None
