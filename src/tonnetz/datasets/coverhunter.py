"""The lists of CoverHunter and CoverHunterMPS: dataset.txt, full.txt, train.txt, val.txt, test.txt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonnetz.datasets.covers import Covers, read_lines
from tonnetz.datasets.files import RESERVED
from tonnetz.errors import UserError

# What the versions of the programs call the same thing.
ALIASES = {"id": ("perf", "utt", "rec"), "work": ("work", "song"), "work_id": ("work_id", "song_id")}
PARTS = {"train": ("train.txt",), "valid": ("val.txt", "dev.txt"), "test": ("test.txt",)}
# Tempo and noise copies that its preparation makes of a recording.
COPY = re.compile(r"^(?:sp_\d+(?:\.\d+)?-|noise[^-]*-|[^-]*_noise-)+")
OMITTED = {"wav", "dur_s", "dur_ms", "feat", "feat_len", "embed", "start", "start_s", "split", "group", "fold"}


@dataclass(frozen=True)
class Line:
    """One line of a list. `facts` are its other columns, as text."""

    number: int
    id: str
    wav: str | None
    work: str
    duration: float | None  # seconds
    facts: dict[str, str]

    @property
    def original(self) -> str:
        """The recording that this is, or is a tempo or noise copy of."""
        return COPY.sub("", self.id)


class CoverHunter(Covers):
    """A list of JSON objects, or of tab-separated ``key:value``, one recording a line, under any historical key names.

    In a folder, ``train.txt`` with ``val.txt`` and ``test.txt`` give the splits; without them ``full.txt`` or
    ``dataset.txt`` is read and all is open. Paths are relative to the list, to one of the folders above it, or to
    `audio`. Tempo and noise copies are left out where their recording is listed: training augments by itself.

    Args:
        root: the folder, or one list.
        file: name of the list in the folder, when the choice above is not the wanted one.
        audio: folder of the audio files, relative to the root.
        strict: true refuses the first line that cannot be read; false says which ones and goes on without them.
        missing: ``skip`` or ``fail``, for recordings without a file.
        split: put every recording into this split.
    """

    name = "coverhunter"
    free = Covers.free | {"strict"}

    def __init__(
        self,
        root: str | Path,
        *,
        file: str | None = None,
        audio: str | None = None,
        strict: bool = True,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, audio=audio, missing=missing, split=split)
        self.file, self.strict = file, strict

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a line. Raises UserError, naming file and line, for one that cannot be read."""
        for path, split in self._lists():
            for line in parse_list(path, self.strict):
                yield {
                    **line.facts,
                    "id": line.id,
                    "audio": self.places(path, line.wav) if line.wav else [line.id],
                    "work": line.work,
                    "group": line.original,
                    "split": split,
                }

    def _lists(self) -> list[tuple[Path, str | None]]:
        """The lists to read, with the splits that they are."""
        if self.file or self.root.is_file():
            return [(self.root / self.file if self.file else self.root, None)]
        parts = [(self.root / file, split) for split, names in PARTS.items() for file in names]
        parts = [(path, split) for path, split in parts if path.is_file()]
        if any(split == "train" for _, split in parts):
            return list(parts)
        for file in ("full.txt", "dataset.txt"):
            if (self.root / file).is_file():
                return [(self.root / file, None)]
        raise UserError(
            f"{self.root}: no train.txt, full.txt or dataset.txt in it; name the list, data.corpus.file=NAME"
        )

    def places(self, path: Path, wav: str) -> list[str | Path]:
        """Where the file may be; at last, any file of that name."""
        folders = [path.parent, *path.resolve().parents[1:4]]
        inside = [self.home / self.audio / wav, self.home / self.audio / Path(wav).name] if self.audio else []
        return [*inside, *(folder / wav for folder in folders), Path(wav).stem]

    def _settle(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave out tempo and noise copies of recordings that are listed themselves."""
        ids = {row["id"] for row in rows}
        kept = [row for row in rows if row["id"] == row["group"] or row["group"] not in ids]
        if len(kept) < len(rows) and self.coverage is None:
            print(f"{self.name}: left out {len(rows) - len(kept)} tempo and noise copies of listed recordings")
        return kept


def parse_list(path: Path, strict: bool = True) -> list[Line]:
    """Return the lines of a list; equal ones once. Raises UserError, naming file and line, for a bad one.

    Without `strict` bad lines are left out, and the first few are printed.
    """
    found: dict[str, Line] = {}
    problems = []
    for number, text in enumerate(read_lines(path), 1):
        if not text.strip():
            continue
        try:
            line = _line(number, text, path)
            twin = found.setdefault(line.id, line)
            if (twin.work, twin.wav) != (line.work, line.wav):
                raise UserError(
                    f"{path} line {number}: '{line.id}' is in line {twin.number} already, with another work or file; "
                    "remove one"
                )
        except UserError as error:
            if strict:
                raise
            problems.append(str(error))
    if problems:
        print("\n".join([*problems[:5], f"{path}: left out {len(problems)} lines that cannot be read"]))
    if not found:
        raise UserError(f"{path}: lists no recordings")
    return list(found.values())


def _line(number: int, text: str, path: Path) -> Line:
    place = f"{path} line {number}"
    cells = _cells(text, place)
    named = {name: _first(cells, aliases) for name, aliases in ALIASES.items()}
    work = named["work"] or named["work_id"]
    for name, value in (("perf (or utt, rec)", named["id"]), ("work (or song, work_id, song_id)", work)):
        if value is None:
            raise UserError(f"{place}: has no {name}; it has {', '.join(cells) or 'nothing'}")
    known = {alias for aliases in ALIASES.values() for alias in aliases} | OMITTED | RESERVED
    facts = {key: str(value) for key, value in cells.items() if key not in known and not isinstance(value, dict | list)}
    if named["work_id"] is not None:
        facts["work_id"] = named["work_id"]
    wav = cells.get("wav")
    return Line(number, str(named["id"]), str(wav) if wav else None, str(work), _seconds(cells, place), facts)


def _cells(text: str, place: str) -> dict[str, Any]:
    """The cells of a line by key, whatever its form."""
    if text.lstrip().startswith("{"):
        try:
            cells = json.loads(text)
        except ValueError as error:
            raise UserError(f"{place}: not a JSON object ({error}); correct or remove the line") from None
        return {str(key): value for key, value in cells.items() if value is not None}
    pairs = [cell.partition(":") for cell in text.strip().split("\t") if cell.strip()]
    if not all(colon and key.strip() for key, colon, _ in pairs):
        raise UserError(f"{place}: neither a JSON object nor tab-separated key:value; correct or remove the line")
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _first(cells: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(cells[name]) for name in names if name in cells and str(cells[name]).strip()), None)


def _seconds(cells: dict[str, Any], place: str) -> float | None:
    for key, unit in (("dur_s", 1.0), ("dur_ms", 1e-3)):
        if key in cells:
            try:
                return float(cells[key]) * unit
            except (TypeError, ValueError):
                raise UserError(f"{place}: {key} '{cells[key]}' is not a number") from None
    return None
