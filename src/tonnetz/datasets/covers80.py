"""covers80 (Ellis and Cotton 2007): 80 songs, each by two artists or three, in sub-folders; lists A and B."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tonnetz.datasets.covers import Covers, read_lines

LISTS = {"A": "list1.list", "B": "list2.list"}


class Covers80(Covers):
    """``WORK/artist+album+nn-Title.mp3``, beside ``list1.list`` (A) and ``list2.list`` (B): paths without extension.

    Column list says which list names a recording (A, B, or null: some works have a third version). The literature
    tests on all of it: ``data.corpus.split=test``; it has no split of its own.
    The root is the folder ``covers32k``, or one that holds it.
    """

    name = "covers80"

    @property
    def home(self) -> Path:
        """The folder with the lists, or with the folders of works."""
        inner = (self.root / "covers32k", *self.root.glob("*/covers32k"))
        return next((folder for folder in inner if folder.is_dir()), self.root)

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield what the lists name and what lies in folders of works."""
        folder = self.home / self.audio if self.audio else self.home
        side = {name: letter for letter, file in LISTS.items() for name in self._list(file)}
        files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in self.audio_files(folder)}
        for name in sorted({*side, *(name for name in files if "/" in name)}):
            work, _, stem = name.rpartition("/")
            artist, _, title = stem.partition("+")
            yield {
                "id": name,
                "audio": [files[name]] if name in files else [stem],
                "work": PurePosixPath(work).name,
                "group": name,
                "artist": artist if title else None,
                "list": side.get(name),
            }

    def _list(self, file: str) -> list[str]:
        """Names in a list, without the extension that some copies write; none when the list is not there."""
        path = self.home / file
        lines = read_lines(path) if path.is_file() else []
        names = (line.strip().removeprefix("./").replace("\\", "/") for line in lines)
        return [name.removesuffix(".mp3") for name in names if "/" in name]
