"""SHS100K: about 10,000 works and 100,000 recordings of Second Hand Songs; the old lists and the new CSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.covers import Covers, read_lines, youtube_id
from tonnetz.errors import UserError

OLD = {"train": "SHS100K-TRAIN", "valid": "SHS100K-VAL", "test": "SHS100K-TEST"}  # set id, version id
NEW = {"train": "train.csv", "valid": "validate.csv", "test": "test.csv"}
COLUMNS = ("performance", "work", "title", "artist", "video")  # of the new files, which have no head line


class SHS100K(Covers):
    """Two forms, told apart by what is in the folder (or its ``meta``).

    Old: ``list`` (tab-separated set id, version id, title, performer, url, status) with the id lists
    ``SHS100K-TRAIN``, ``-VAL`` and ``-TEST``; recordings that are in none of them are left out when any is there.
    New: ``train.csv``, ``validate.csv``, ``test.csv`` (performance, work, title, performer, YouTube id).
    Audio files are named by ``SET_VERSION``, by the performance, or by the YouTube id, in any sub-folder.
    """

    name = "shs100k"

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a version. Raises UserError, naming file and line, for one that cannot be read."""
        folder = next((f for f in (self.home, self.home / "meta") if (f / "list").is_file()), None)
        if folder is not None:
            return self._old(folder)
        if not any((self.home / file).is_file() for file in NEW.values()):
            raise UserError(f"{self.home}: neither a file 'list' nor one of {', '.join(NEW.values())}; check data.root")
        return self._new()

    def _old(self, folder: Path) -> Iterator[dict[str, Any]]:
        splits = {key: name for name, file in OLD.items() for key in _keys(folder / file)}
        for line, text in enumerate(read_lines(folder / "list"), 1):
            cells = [cell.strip() for cell in text.split("\t")]
            if not text.strip() or (line == 1 and not cells[0].isdigit()):  # some copies name the columns
                continue
            if len(cells) < 5:
                raise UserError(f"{folder / 'list'} line {line}: {len(cells)} cells, not set, version, title, ...")
            work, version, title, artist, url, *status = cells
            key = f"{work}_{version}"
            if splits and key not in splits:
                continue
            video = youtube_id(url)
            yield {
                "id": key,
                "audio": [key, f"{work}-{version}", *([video] if video else [])],
                "work": work,
                "group": video or key,
                "artist": artist or None,
                "split": splits.get(key),
                "title": title or None,
                "url": url or None,
                "status": status[0] if status else None,
            }

    def _new(self) -> Iterator[dict[str, Any]]:
        for split, file in NEW.items():
            path = self.home / file
            reader = csv.reader(read_lines(path) if path.is_file() else [])
            for line, cells in enumerate(reader, 1):
                if not cells or (line == 1 and not cells[0].strip().isdigit()):
                    continue
                if len(cells) != len(COLUMNS):
                    raise UserError(f"{path} line {reader.line_num}: {len(cells)} cells, not {', '.join(COLUMNS)}")
                key, work, title, artist, video = (cell.strip() for cell in cells)
                yield {
                    "id": key,
                    "audio": [*([video] if video else []), key, f"{work}_{key}"],
                    "work": work,
                    "group": video or key,
                    "artist": artist or None,
                    "split": split,
                    "title": title or None,
                }


def _keys(path: Path) -> list[str]:
    """``SET_VERSION`` of each line of an id list, however its two numbers are separated."""
    if not path.is_file():
        return []
    keys = []
    for line, text in enumerate(read_lines(path), 1):
        words = [word for word in re.split(r"[\s,_]+", text) if word]
        if not words:
            continue
        if len(words) < 2 or not words[0].isdigit():
            raise UserError(f"{path} line {line}: '{text}' is not a set id and a version id")
        keys.append(f"{words[0]}_{words[1]}")
    return keys
