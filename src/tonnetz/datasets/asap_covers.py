"""ASAP covers: human piano performances of 105 works, each rendered in another key, tempo and instrument."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tonnetz.datasets.covers import Covers
from tonnetz.errors import UserError
from tonnetz.tracks import read_table


class AsapCovers(Covers):
    """``tracks.jsonl`` (id, path, duration, work, composer, split train | test, key_shift, tempo, program) and audio.

    Validation is whole works out of the training works, so nothing of it is ever learned from.

    Args:
        root: the folder.
        valid_works: fraction of the training works that become the split valid.
        seed: which works those are.
        missing: ``skip`` or ``fail``, for recordings without a file.
        split: put every recording into this split.
    """

    name = "asap_covers"
    free = Covers.free | {"valid_works", "seed"}

    def __init__(
        self,
        root: str | Path,
        *,
        valid_works: float = 0.15,
        seed: int = 0,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, missing=missing, split=split)
        if not 0 <= valid_works < 1:
            raise UserError(f"data.corpus.valid_works={valid_works}: must be in [0, 1)")
        self.valid_works, self.seed = valid_works, seed

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a performance. Raises UserError when the table lacks a column."""
        path = self.home / "tracks.jsonl"
        table = read_table(path)
        for column in ("id", "path", "work", "split"):
            if table[column].null_count():
                raise UserError(f"{path}: row {table[column].is_null().arg_true()[0] + 1} has no {column}; restore it")
        train = sorted(table.filter(split="train")["work"].unique())
        count = round(self.valid_works * len(train))
        held = {train[i] for i in np.random.default_rng(self.seed).permutation(len(train))[:count]}
        for row in table.iter_rows(named=True):
            split = "valid" if row["split"] == "train" and row["work"] in held else row["split"]
            facts = {"split": split, "group": row["id"], "artist": row.get("composer")}
            yield {**row, **facts, "audio": [self.home / row["path"]], "unknown": None}
