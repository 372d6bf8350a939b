"""A folder of recordings with one sub-folder a class or a work, or without either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.base import Corpus
from tonnetz.datasets.files import audio_by_id, pick_column, read_csv, split_names, typed_cells
from tonnetz.errors import UserError, near

LEVELS = ("class", "work")


class Folder(Corpus):
    """``root/CLASS/**/*.wav``; or ``root/SPLIT/CLASS/**/*.wav`` when all top folders are names of splits.

    Given splits are kept. Where one of valid and test is absent, training files stay open: it is carved
    out of them (``data.valid=0 data.test=0`` keeps all for training).

    Args:
        root: the folder.
        labelled: false: all files, wherever they lie, are unlabelled.
        level: what a sub-folder stands for: ``class``, or ``work`` (its files are versions of one work; unlabelled).
        metadata: CSV file (relative to the root) with column file and any of work, artist, group, split, ...
        split: put every file into this split.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        *,
        labelled: bool = True,
        level: str = "class",
        metadata: str | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(root, split=split)
        if level not in LEVELS:
            raise UserError(f"data.corpus.level={level}: known are {', '.join(LEVELS)}")
        self.labelled, self.level = labelled, level
        self.metadata = metadata

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a file. Raises UserError for a file outside class folders, or metadata of a file not there."""
        files = audio_by_id(self)
        facts = self._metadata(list(files.values())) if self.metadata else {}
        tops = [path.relative_to(self.root).parts[:-1][:1] for path in files.values()]
        splits = split_names([top[0] for top in tops if top]) if all(tops) else None
        for name, path in files.items():
            folders = path.relative_to(self.root).parts[:-1]
            row: dict[str, Any] = {"id": name, "path": str(path), "labels": None, "split": None}
            if splits:
                row["split"] = splits[folders[0]]
                folders = folders[1:]
                if row["split"] == "train" and len(set(splits.values())) < 3:
                    row["split"] = None
            if self.level == "work":
                row |= {"work": self._work(path, folders, facts), "group": name}
            elif self.labelled:
                row["labels"] = [self._class(path, folders)]
            yield {**row, **facts.get(path, {})}

    def _work(self, path: Path, folders: tuple[str, ...], facts: dict[Path, dict[str, Any]]) -> str:
        """The work of the folder; the metadata may say better, and has to for a file that lies in no folder."""
        if not folders and "work" not in facts.get(path, {}):
            raise UserError(self._without_work(path))
        return folders[0].strip() if folders else str(facts[path]["work"])

    def _without_work(self, path: Path) -> str:
        """What to say of a file that lies in no folder, by whether there is a spreadsheet and what it has."""
        if not self.metadata:
            return (
                f"{path}: lies in no folder of a work; put it into one, or name its work in a spreadsheet with the "
                "columns file and work, data.corpus.metadata=FILE.csv"
            )
        source = self.root / self.metadata
        columns, _ = read_csv(source)
        if pick_column(columns, ("work",)) is None:
            return f"{source} line 1: no column work (it has {', '.join(columns)}), and {path} lies in no folder of one"
        return f"{path}: lies in no folder of a work; put it into one, or write its work into {source}"

    def _class(self, path: Path, folders: tuple[str, ...]) -> str:
        if not folders:
            raise UserError(f"{path}: lies in no class folder; put it into one, or set data.corpus.labelled=false")
        return folders[0].strip()

    def _metadata(self, files: list[Path]) -> dict[Path, dict[str, Any]]:
        """Extra columns by audio file. Rows name a path from the root, or a file name when it is unique."""
        source = self.root / str(self.metadata)
        columns, rows = read_csv(source)
        key = pick_column(columns, ("file", "path", "filename"))
        if key is None:
            raise UserError(f"{source}: no column file (or path, filename); it says which row belongs to which file")
        by_name: dict[str, list[Path]] = {}
        for path in files:
            by_name.setdefault(path.name, []).append(path)
        exact = set(files)
        found: dict[Path, dict[str, Any]] = {}
        stray: list[tuple[str, str]] = []  # place and name of rows whose file is not there
        for line, cells in rows:
            place = f"{source} line {line}"
            wanted = cells.pop(key)
            cells.pop("id", None)  # the place in the folder is the id
            paths = [self.root / wanted] if self.root / wanted in exact else by_name.get(wanted, [])
            if len(paths) > 1:
                raise UserError(f"{place}: '{wanted}' is the name of {len(paths)} files; write its path from the root")
            if not paths:
                stray.append((place, wanted))
            for path in paths:
                if path in found:
                    raise UserError(f"{place}: '{wanted}' has a row already; remove one")
                found[path] = {name: value for name, value in typed_cells(cells, place).items() if value is not None}
        if not found:
            raise UserError(f"{source}: names no audio file under {self.root}; its column {key} must hold file names")
        if stray:
            raise UserError(self._not_there(stray, files))
        return found

    def _not_there(self, stray: list[tuple[str, str]], files: list[Path]) -> str:
        """What to say of rows whose file is not there: a misspelt one would lose its split or work in silence."""
        place, wanted = stray[0]
        alike = near(wanted, (path.relative_to(self.root).as_posix() for path in files))
        more = f" ({len(stray)} such rows in all)" if len(stray) > 1 else ""
        return f"{place}: no such audio file: {self.root / wanted}{alike}; correct the row, or remove it{more}"
