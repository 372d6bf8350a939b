"""A CSV file that lists recordings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from tonnetz.datasets.base import Corpus, Progress
from tonnetz.datasets.files import FACTS, pick_column, read_csv, track_ids, typed_cells
from tonnetz.errors import UserError, suggest

FILE_COLUMNS = ("file", "path", "filename")
LABEL_COLUMNS = ("label", "labels")


class Csv(Corpus):
    """A CSV file with a column file (or path, filename), relative to it, and labels in one of two forms.

    Either a column label (or labels, separated by ``;`` or ``|``; empty is unlabelled), or a column a class
    with 1, 0, or nothing (also nan) where nobody judged. Without either the tracks are unlabelled. Columns
    id, split, group, work, artist, fold, offset and duration (seconds; a file may then have several rows) are
    understood.

    Args:
        root: the CSV file, or its folder.
        file: name of the CSV file in the folder.
        classes: which columns are classes; null takes all that are not named above. Others are carried along.
        split: put every track into this split.
    """

    name = "csv"
    audible = True  # whether a row without its audio file is refused

    def __init__(
        self,
        root: str | Path,
        *,
        file: str | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(root, split=split)
        self.file = file
        self.classes = None if classes is None else list(classes)

    @property
    def path(self) -> Path:
        """The CSV file."""
        return self.root / self.file if self.file else self.root

    @property
    def multilabel(self) -> bool:  # type: ignore[override]
        """Whether any track has a number of labels other than one, or labels that nobody judged."""
        rows = self._rows()
        return any(row["unknown"] or (row["labels"] is not None and len(row["labels"]) != 1) for row in rows)

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a missing file, and a folder without the name of the file."""
        if self.path.is_dir():
            raise UserError(f"data.root={self.root}: a folder; give the CSV file, or its name in data.corpus.file")
        if not self.path.is_file():
            raise UserError(f"data.root={self.path}: no such CSV file")

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a line. Raises UserError, naming file and line, for whatever is wrong in one."""
        return iter(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        columns, lines = read_csv(self.path)
        files = pick_column(columns, FILE_COLUMNS)
        if files is None:
            raise UserError(f"{self.path} line 1: no column file (or path, filename); it has {', '.join(columns)}")
        if not lines:
            raise UserError(f"{self.path}: lists no audio files")
        label = pick_column(columns, LABEL_COLUMNS)
        classes = [] if label and self.classes is None else self._classes(columns, files)
        rows = [self._row(line, cells, files, label, classes) for line, cells in lines]
        self._name(rows, [line for line, _ in lines])
        return rows

    def _classes(self, columns: list[str], files: str) -> list[str]:
        """The columns that are classes."""
        known = (*FACTS, *LABEL_COLUMNS)
        free = [name for name in columns if name != files and name.lower() not in known]
        for name in self.classes or ():
            if name not in free:
                raise UserError(f"data.corpus.classes: {self.path} has no column '{name}'{suggest(name, free)}")
        return free if self.classes is None else self.classes

    def _row(
        self, line: int, cells: dict[str, str], files: str, label: str | None, classes: list[str]
    ) -> dict[str, Any]:
        place = f"{self.path} line {line}"
        file = cells[files]
        path = self.path.parent / Path(file).expanduser()
        if not file or (self.audible and not path.is_file()):
            raise UserError(f"{place}: no such audio file: {path}; correct the row, or remove it")
        extra = {name: cell for name, cell in cells.items() if name not in {files, label, *classes}}
        row: dict[str, Any] = {
            "id": None,
            "offset": None,
            **typed_cells(extra, place),
            "labels": None,
            "unknown": None,
        }
        row |= {"path": os.path.normpath(path), "file": file}
        if classes:
            values = {name: _judgement(cells[name], name, place) for name in classes}
            row["labels"] = [name for name, value in values.items() if value == 1]
            row["unknown"] = [name for name, value in values.items() if value is None]
        elif label and cells[label]:
            names = (name.strip() for name in re.split(r"[;|]", cells[label]))
            row["labels"] = list(dict.fromkeys(name for name in names if name))
        return row

    def _name(self, rows: list[dict[str, Any]], lines: list[int]) -> None:
        """Give every row an id; excerpts of a file are told apart by their offsets. Refuses repeated rows."""
        paths = [PurePath(row.pop("file")) for row in rows]
        names = dict(zip(dict.fromkeys(paths), track_ids(list(dict.fromkeys(paths))), strict=True))
        seen: dict[Any, int] = {}
        ids: dict[str, int] = {}
        for row, path, line in zip(rows, paths, lines, strict=True):
            offset = row["offset"] or 0.0
            first = seen.setdefault((row["path"], offset), line)
            if first != line:
                raise UserError(f"{self.path} line {line}: {path} is in line {first} already; remove one row")
            row["id"] = row["id"] or (f"{names[path]}@{offset:g}" if offset else names[path])
            twin = ids.setdefault(row["id"], line)
            if twin != line:
                raise UserError(
                    f"{self.path} line {line}: id '{row['id']}' is in line {twin} already; ids must be unique"
                )


def _judgement(cell: str, name: str, place: str) -> int | None:
    """1, 0, or None for a cell that says nothing."""
    if cell.lower() in ("", "nan"):
        return None
    if cell in ("0", "1", "0.0", "1.0"):
        return int(float(cell))
    raise UserError(
        f"{place}: column '{name}' holds '{cell}'; a class has 0, 1 or nothing"
        " (data.corpus.classes says which columns are classes)"
    )
