"""NSynth (Engel et al. 2017): 305,979 notes of 4 s from 1,006 sampled and synthetic instruments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.listed import Listed
from tonnetz.errors import UserError

SPLITS = ("train", "valid", "test")
LABELS = {"family": "instrument_family_str", "instrument": "instrument_str"}
COLUMNS = {"instrument": "instrument_str", "source": "instrument_source_str", "pitch": "pitch", "velocity": "velocity"}


class NSynth(Listed):
    """``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``, or some of them, each with examples.json and audio/.

    The folders are the splits. Where one of valid and test is absent, train stays open: it is carved out of it.
    Notes of one instrument stay together (column group). The official valid and test share instruments; such an
    instrument counts as a group of its own in each. Columns instrument, source, pitch (MIDI) and velocity.

    Args:
        root: the folder that holds the three, or one of them.
        label: ``family`` (11 classes), or ``instrument`` (a class each; data.taxonomy=null).
        missing: ``skip`` or ``fail``, for notes without a file.
        split: put every note into this split.
    """

    name = "nsynth"

    def __init__(
        self, root: str | Path, *, label: str = "family", missing: str = "skip", split: str | None = None
    ) -> None:
        super().__init__(root, missing=missing, split=split)
        if label not in LABELS:
            raise UserError(f"data.corpus.label={label}: known are {', '.join(LABELS)}")
        self.label = label

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a note. Raises UserError when no list is there, or one is damaged."""
        homes = {name: self.root / f"nsynth-{name}" for name in SPLITS}
        found = {name: home for name, home in homes.items() if (home / "examples.json").is_file()}
        if not found and (self.root / "examples.json").is_file():
            found = {self.root.name.removeprefix("nsynth-"): self.root}
        if not found:
            names = ", ".join(home.name for home in homes.values())
            raise UserError(f"{self.root}: no examples.json in {names}; unpack NSynth (json/wav) there")
        notes = {name: _read(home / "examples.json") for name, home in found.items()}
        splits_of: dict[str, set[str]] = {}
        for name, entries in notes.items():
            for facts in entries.values():
                splits_of.setdefault(facts["instrument_str"], set()).add(name)
        for name, entries in notes.items():
            folder = found[name] / "audio"
            for key, facts in entries.items():
                instrument = facts["instrument_str"]
                yield {
                    "id": key,
                    "audio": folder / f"{key}.wav",
                    "labels": [facts[LABELS[self.label]]],
                    "split": name if name in ("valid", "test") or len(found) == len(SPLITS) else None,
                    "group": instrument if len(splits_of[instrument]) == 1 else f"{name}/{instrument}",
                    **{ours: facts[theirs] for ours, theirs in COLUMNS.items()},
                }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The notes of a split: key -> facts."""
    try:
        notes: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for key, facts in notes.items():
            absent = {*LABELS.values(), *COLUMNS.values()} - facts.keys()
            if absent:
                raise UserError(f"{path}: note {key} has no {min(absent)}; restore it")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the notes of NSynth ({error}); restore it") from None
    return notes
