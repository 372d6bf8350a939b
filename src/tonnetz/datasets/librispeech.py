"""LibriSpeech (Panayotov et al. 2015): read English, a speaker and a chapter of a book for every utterance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.base import Corpus
from tonnetz.datasets.covers import read_lines
from tonnetz.datasets.files import audio_by_id
from tonnetz.errors import UserError

LABELS = ("speaker", "sex")
PARTS = {"train": "train", "dev": "valid", "test": "test"}  # split by how the name of a part begins


class LibriSpeech(Corpus):
    """``train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac``, ``dev-clean``, ``test-clean``, ... at any depth.

    The parts are the splits, and share no speaker. Columns artist (the speaker), group (speaker and chapter), part,
    and sex where SPEAKERS.TXT is there.

    Args:
        root: the folder.
        label: null, or ``speaker`` or ``sex`` (from SPEAKERS.TXT). Speakers can be told from each other only within a
            part: then utterances are divided by data.valid and data.test, whole chapters together.
        parts: those to take, e.g. [train-clean-100]; null takes all that are there.
        split: put every utterance into this split.
    """

    name = "librispeech"

    def __init__(
        self,
        root: str | Path,
        *,
        label: str | None = None,
        parts: list[str] | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(root, split=split)
        if label is not None and label not in LABELS:
            raise UserError(f"data.corpus.label={label}: known are {', '.join(LABELS)}, null")
        self.label, self.parts = label, None if parts is None else list(parts)

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row an utterance. Raises UserError for a file in other folders, or a speaker of unknown sex."""
        sexes = self._sexes()
        rows = []
        for path in audio_by_id(self).values():
            part, speaker, chapter = ("", "", "", *path.parts[:-1])[-3:]
            split = PARTS.get(part.partition("-")[0])
            if split is None or path.stem.split("-")[:2] != [speaker, chapter]:
                raise UserError(f"{path}: is no train-*, dev-* or test-*/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN; move it")
            if self.parts is not None and part not in self.parts:
                continue
            row = {"id": path.stem, "path": str(path), "labels": None, "group": f"{speaker}-{chapter}"}
            row |= {"artist": speaker, "part": part, "sex": sexes.get(speaker)}
            row["split"] = None if self.label == "speaker" else split
            rows.append(self._labelled(row))
        if not rows:
            raise UserError(f"data.corpus.parts={self.parts}: {self.root} has none of them; null takes all")
        return iter(rows)

    def _labelled(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its label. Raises UserError when it has none."""
        if self.label is None:
            return row
        value = row["artist"] if self.label == "speaker" else row["sex"]
        if value is None:
            raise UserError(f"{self.root}: SPEAKERS.TXT, which says the sex of speaker {row['artist']}, is not there")
        return {**row, "labels": [value]}

    def _sexes(self) -> dict[str, str]:
        """F or M by speaker, from lines ``ID | SEX | SUBSET | MINUTES | NAME``."""
        found = {}
        for path in sorted(self.root.rglob("SPEAKERS.TXT"))[:1]:
            for text in read_lines(path):
                cells = [cell.strip() for cell in text.split("|")]
                if not text.startswith(";") and len(cells) > 1:
                    found[cells[0]] = cells[1]
        return found
