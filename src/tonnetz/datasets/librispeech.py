"""LibriSpeech (Panayotov et al. 2015): read English, a speaker and a chapter of a book for every utterance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tonnetz.datasets.assets import Asset, Downloadable
from tonnetz.datasets.covers import read_lines
from tonnetz.datasets.files import audio_by_id
from tonnetz.errors import UserError, suggest

LABELS = ("speaker", "sex")
PARTS = {"train": "train", "dev": "valid", "test": "test"}  # split by how the name of a part begins
ARCHIVES = {  # SHA-256
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}


class LibriSpeech(Downloadable):
    """``train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac``, ``dev-clean``, ``test-clean``, ... at any depth.

    The parts are the splits, and share no speaker. Columns artist (the speaker), group (speaker and chapter), part,
    and sex where SPEAKERS.TXT is there.

    Args:
        root: the folder.
        label: null, or ``speaker`` or ``sex`` (from SPEAKERS.TXT). Speakers can be told from each other only within a
            part: then utterances are divided by data.valid and data.test, whole chapters together.
        parts: those to take, e.g. [train-clean-100]; null takes all that are there.
        download: fetch the `parts` that are not there yet: 0.3 GB each of dev and test, 6 to 30 GB of train.
        url: address of the folder that holds train-clean-100.tar.gz, ...; null = `home`.
        split: put every utterance into this split.
    """

    name = "librispeech"
    home = "https://www.openslr.org/resources/12"

    def __init__(
        self,
        root: str | Path,
        *,
        label: str | None = None,
        parts: list[str] | None = None,
        download: bool = False,
        url: str | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(root, download=download, url=url, split=split)
        if label is not None and label not in LABELS:
            raise UserError(f"data.corpus.label={label}: known are {', '.join(LABELS)}, null")
        self.label, self.parts = label, None if parts is None else list(parts)

    def wanted(self) -> Sequence[Asset]:
        """The `parts` of which there is no folder. Raises UserError when none are named, or one is unknown."""
        if self.parts is None:
            raise UserError(f"data.corpus.parts: say which to fetch, of {', '.join(ARCHIVES)}")
        for part in self.parts:
            if part not in ARCHIVES:
                raise UserError(f"data.corpus.parts: no part '{part}' of LibriSpeech{suggest(part, ARCHIVES)}")
        lost = [part for part in self.parts if not any(self.root.rglob(part))]
        return [Asset({f"{part}.tar.gz": ARCHIVES[part]}, into=part) for part in lost]

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
