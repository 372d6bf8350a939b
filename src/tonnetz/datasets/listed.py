"""What corpora have in common whose own list says which recordings there should be."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError


class Listed(Corpus):
    """Recordings as a list names them; what of them is there becomes rows, the rest is counted and said once.

    A subclass yields `listed`: the columns of a row, and in ``audio`` the place of its file, or the name (without
    extension) that it has in whatever sub-folder.

    Args:
        root: the folder.
        missing: ``skip`` goes on without recordings whose file is not there, ``fail`` refuses.
        split: put every recording into this split.
    """

    free = Corpus.free | {"missing"}

    def __init__(self, root: str | Path, *, missing: str = "skip", split: str | None = None) -> None:
        super().__init__(root, split=split)
        if missing not in ("skip", "fail"):
            raise UserError(f"data.corpus.missing={missing}: known are skip, fail")
        self.missing = missing

    @abstractmethod
    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield what the list says: columns of a row, and `audio`, the place or the name of its file."""

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a recording that is there; count, and say once, how many are."""
        rows = list(self.listed())
        names: dict[str, Path] = {}
        if any(isinstance(row["audio"], str) for row in rows):
            names = {path.stem: path for path in reversed(self.audio_files())}
        found: list[dict[str, Any]] = []
        lost: list[str] = []
        for row in rows:
            place = row.pop("audio")
            path = names.get(place) if isinstance(place, str) else place if place.is_file() else None
            if path is None:
                lost.append(row["id"])
            else:
                found.append({**row, "path": str(path)})
        self._count(found, lost)
        return iter(found)

    def _count(self, found: list[dict[str, Any]], lost: list[str]) -> None:
        """Set `coverage`, print it the first time. Raises UserError when nothing is there, or not all that must be."""
        total = len(found) + len(lost)
        if not found or (lost and self.missing == "fail"):
            first = f", the first: {lost[0]}" if lost else ""
            remedy = "restore them, or go on without: data.corpus.missing=skip" if found else "check data.root"
            raise UserError(f"{self.root}: {len(lost)} of {total} recordings have no audio file{first}; {remedy}")
        say = self.coverage is None
        percent = round(100 * len(found) / total, 1)
        self.coverage = {"listed": total, "found": len(found), "percent": percent, "missing": lost, **self.facts(found)}
        if say:
            first = f"; the first that is missing: {lost[0]}" if lost else ""
            print(f"{self.name}: {len(found)} of {total} recordings found ({percent} %){first}{self.remarks()}")

    def facts(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """What else `coverage` holds. The default is nothing."""
        return {}

    def remarks(self) -> str:
        """What else is said once, after `coverage` is set. The default is nothing."""
        return ""
