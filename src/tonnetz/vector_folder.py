"""A folder of vectors, one .npy a recording, which several processes fill: what job.features and jukemir read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.errors import UserError
from tonnetz.manifest import write_json
from tonnetz.paths import file_mark


class VectorFolder:
    """``{name}.npy`` of recordings, ``embedding.json`` about all of them, and of which recording each file is.

    Args:
        path: the folder.
        writer: of the processes that fill it, the name of this one; each keeps a list of its own.
    """

    def __init__(self, path: Path, writer: str) -> None:
        self.path, self.sources = path, path / f"sources.{writer}.jsonl"

    def claim(self, facts: dict[str, Any]) -> None:
        """Say what its vectors are. Raises UserError when they are other ones already."""
        path = self.path / "embedding.json"
        if not any(self.path.rglob("*.npy")):
            write_json(path, facts)
        elif not path.is_file():
            raise UserError(f"job.npy={self.path}: holds vectors whose model is not known; take another folder")
        elif json.loads(path.read_text()) != facts:
            raise UserError(
                f"job.npy={self.path}: holds vectors of another model, layer or window; take another folder"
            )

    def held(self, names: Sequence[str], places: Sequence[str]) -> list[bool]:
        """Whether there is a file of each name that is the recording's own, whose sound has not changed since.

        Raises UserError where a file of that name is another recording's.
        """
        known: dict[str, set[tuple[str, str]]] = {}
        for path in self.path.glob("sources.*.jsonl"):
            for line in path.read_text().splitlines():
                name, *source = json.loads(line)
                known.setdefault(name, set()).add(tuple(source))
        found = []
        for name, source in zip(names, map(_source, places), strict=True):
            own = known.get(name, set())
            others = {place for place, _ in own} - {source[0]}
            if others:
                raise UserError(
                    f"job.npy={self.path}: {name}.npy is of {min(others)}, not of {source[0]}; take another folder"
                )
            found.append(source in own and _readable(self.path / f"{name}.npy"))
        return found

    def write(self, vectors: Tensor, rows: Tensor, names: Sequence[str], places: Sequence[str], windows: bool) -> None:
        """Write the vectors (M, D) of each row, by its name, with its place: (D,), or all of its `windows` (m, D)."""
        with self.sources.open("a") as listing:
            for row in rows.unique().tolist():
                found = vectors[rows == row].numpy()
                with replacing(self.path / f"{names[row]}.npy") as part, part.open("wb") as file:
                    np.save(file, found if windows else found[0])
                listing.write(json.dumps([names[row], *_source(places[row])]) + "\n")


def file_names(paths: Sequence[str]) -> list[str]:
    """What the .npy of each file is called. Raises UserError when two would be called the same."""
    first: dict[str, str] = {}
    for path in paths:
        other = first.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(f"job.npy: {other} and {path} would both be {Path(path).stem}.npy; embed them apart")
    return list(first)


def _source(place: str) -> tuple[str, str]:
    """A recording, and what changes when its sound does; nothing of a web address."""
    return (os.path.abspath(place), file_mark(place)) if os.path.exists(place) else (place, "")


def _readable(path: Path) -> bool:
    try:
        return path.is_file() and np.load(path, mmap_mode="r", allow_pickle=False).size > 0
    except (ValueError, EOFError, OSError):
        return False
