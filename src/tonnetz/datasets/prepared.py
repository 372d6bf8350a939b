"""A corpus that was prepared before: its audio is at hand, its raw files need not be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tonnetz.datasets.base import Corpus, Progress
from tonnetz.errors import UserError
from tonnetz.tracks import read_table


class Prepared(Corpus):
    """A folder made by job=prepare: ``tracks.jsonl`` and ``audio/RATE/``. It may have moved since.

    Args:
        root: the folder.
        split: put every track into this split.
    """

    name = "prepared"

    def __init__(self, root: str | Path, *, split: str | None = None) -> None:
        super().__init__(root, split=split)

    @property
    def rate(self) -> tuple[int, ...]:
        """The sample rates (Hz) of the stored rows: one, as `prepare` writes them."""
        return tuple(sorted(self._table()["sample_rate"].unique()))

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a folder that job=prepare did not make."""
        super().fetch(progress)
        if not (self.root / "tracks.jsonl").is_file():
            raise UserError(f"{self.root}: no tracks.jsonl in it; give a folder that job=prepare made")

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield the stored rows; `audio` is where the file lies now. Raises UserError when it is gone."""
        for row in self._table().iter_rows(named=True):
            yield {**row, "audio": str(self._audio(Path(row["audio"])))}

    def _audio(self, stored: Path) -> Path:
        """Find a prepared file by its stored place or, when the folder has moved, by its last parts."""
        inside = self.root.joinpath("audio", *stored.parts[-3:])  # audio/RATE/ab/abcdef.wav
        for path in (inside, stored):
            if path.is_file():
                return path.resolve()
        raise UserError(f"{stored}: the prepared audio is gone; prepare the corpus anew from its raw files")

    def _table(self) -> pl.DataFrame:
        frame = read_table(self.root / "tracks.jsonl")
        for column in ("audio", "header", "first", "samples", "peak", "level", "sample_rate"):
            if column not in frame.columns:
                raise UserError(
                    f"{self.root / 'tracks.jsonl'}: no column {column}; give a folder that job=prepare made"
                )
        return frame
