"""What corpora of cover songs share: lists of recordings whose audio may be missing, works, coverage."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError
from tonnetz.tracks import SPLITS

YOUTUBE = re.compile(r"(?:v=|youtu\.be/|embed/|/v/|shorts/)([\w-]{11})|^([\w-]{11})$")


class Covers(Corpus):
    """Recordings of works as some list names them; what of them is there becomes rows, the rest is counted.

    A subclass yields `listed`: the columns of a row, and in ``audio`` the paths or the names (without extension) that
    its file may have, the likeliest first. Every row carries `work`, and `group`: the recording itself. Where a corpus
    puts one recording into two splits, only the later one (test before valid before train) keeps it.

    Args:
        root: the folder of the lists, or one list.
        audio: folder of the audio files, relative to the root; null looks everywhere below the root.
        missing: ``skip`` goes on without recordings whose file is not there, ``fail`` refuses.
        split: put every recording into this split.
    """

    free = Corpus.free | {"missing"}

    def __init__(
        self, root: str | Path, *, audio: str | None = None, missing: str = "skip", split: str | None = None
    ) -> None:
        super().__init__(root, split=split)
        if missing not in ("skip", "fail"):
            raise UserError(f"data.corpus.missing={missing}: known are skip, fail")
        self.audio, self.missing = audio, missing

    @property
    def home(self) -> Path:
        """The folder: the root, or where it lies when it is a file."""
        return self.root.parent if self.root.is_file() else self.root

    @abstractmethod
    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield what the lists say: columns of a row, and `audio`, the names that its file may have."""

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a recording that is there; count, and say once, how many are."""
        rows = _once(self._settle(list(self.listed())), apart=self.split is None)
        names = self._by_name() if rows else {}
        found: list[dict[str, Any]] = []
        lost: list[dict[str, Any]] = []
        for row in rows:
            path = self._place(row.pop("audio"), names)
            (lost if path is None else found).append({"labels": None, "offset": None, **row, "path": str(path)})
        self._count(found, lost)
        return iter(_apart(found) if self.split is None else found)

    def _settle(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What a corpus does with all its rows at once, for example setting works apart. The default is nothing."""
        return rows

    def _by_name(self) -> dict[str, Path]:
        """Audio files by their name without extension; of several the first."""
        folder = self.home / self.audio if self.audio else self.home
        if not folder.is_dir():
            raise UserError(f"data.corpus.audio={self.audio}: no such folder: {folder}")
        return {path.stem: path for path in reversed(self.audio_files(folder))}

    def _place(self, names: Sequence[str | Path], by_name: dict[str, Path]) -> Path | None:
        """The file of a recording: a path that exists, or the file that has one of the names."""
        for name in names:
            if isinstance(name, Path):
                if name.is_file():
                    return name
            elif name in by_name:
                return by_name[name]
        return None

    def _count(self, found: list[dict[str, Any]], lost: list[dict[str, Any]]) -> None:
        """Set `coverage`, print it the first time. Raises UserError when nothing is there, or not all that must be."""
        total = len(found) + len(lost)
        if not found or (lost and self.missing == "fail"):
            first = f", the first: {lost[0]['id']}" if lost else ""
            remedy = "say where it is, data.corpus.audio=FOLDER"
            remedy += "" if not found else ", or go on without: data.corpus.missing=skip"
            raise UserError(f"{self.root}: {len(lost)} of {total} recordings have no audio file{first}; {remedy}")
        works = {row["work"] for row in found}
        say = self.coverage is None
        self.coverage = {
            "listed": total,
            "found": len(found),
            "percent": round(100 * len(found) / total, 1),
            "works": len(works),
            "works_listed": len(works | {row["work"] for row in lost}),
            "missing": [row["id"] for row in lost],
        }
        if say:
            print(f"{self.name}: {len(found)} of {total} recordings found ({self.coverage['percent']} %)")


def _once(rows: list[dict[str, Any]], apart: bool) -> list[dict[str, Any]]:
    """Without repeats: one row for a recording of a work (in a split, when splits count: `apart`).

    Raises UserError for an id that names two recordings, or one of two works.
    """
    kept: dict[Any, dict[str, Any]] = {}
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        kept.setdefault((row["work"], row["group"], row.get("split") if apart else None), row)
    for row in kept.values():
        other = seen.setdefault(row["id"], row)
        if (other["work"], other["group"]) != (row["work"], row["group"]):
            raise UserError(
                f"id '{row['id']}' is listed twice, for works '{other['work']}' and '{row['work']}' (recordings "
                f"'{other['group']}' and '{row['group']}'); ids must be unique, correct one"
            )
    return list(kept.values())


def _apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without recordings (by group or file) that a later split has too."""
    rank = {name: place for place, name in enumerate(SPLITS)}
    last: dict[str, int] = {}
    for row in rows:
        for name in (row["group"], row["path"]):
            last[name] = max(last.get(name, -1), rank.get(row.get("split") or "", -1))
    kept = [row for row in rows if max(last[row["group"]], last[row["path"]]) <= rank.get(row.get("split") or "", 9)]
    if len(kept) < len(rows):
        print(f"left out {len(rows) - len(kept)} rows of recordings that a later split has too")
    return kept


def youtube_id(url: str) -> str | None:
    """The id of a video in its address, or a bare id; None when there is none."""
    match = YOUTUBE.search(url.strip())
    return (match[1] or match[2]) if match else None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UserError when it is missing or not UTF-8."""
    try:
        return [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")]
    except OSError:
        raise UserError(f"{path}: no such list") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})") from None
