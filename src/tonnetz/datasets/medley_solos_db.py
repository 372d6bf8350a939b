"""Medley-solos-DB (Lostanlen et al. 2019): 21,571 clips of 3 s, eight instruments, with an official split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tonnetz.datasets.files import read_csv, split_names
from tonnetz.datasets.listed import Listed
from tonnetz.errors import UserError

TABLE = "Medley-solos-DB_metadata.csv"
COLUMNS = ("subset", "instrument", "instrument_id", "song_id", "uuid4")


class MedleySolosDB(Listed):
    """``Medley-solos-DB_metadata.csv`` and the clips it names, each in any sub-folder.

    The official subsets are the splits. Clips of one song stay together (columns group and track).

    Args:
        root: the folder.
        missing: ``skip`` or ``fail``, for clips without a file.
        split: put every clip into this split.
    """

    name = "medley_solos_db"

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a clip. Raises UserError for a missing table, or one that is not that of the corpus."""
        tables = sorted(self.root.rglob(TABLE))
        if not tables:
            raise UserError(f"{self.root}: no {TABLE} in it; download it beside the audio (it holds the labels)")
        columns, rows = read_csv(tables[0])
        for name in COLUMNS:
            if name not in columns:
                raise UserError(f"{tables[0]}: no column {name} (but {', '.join(columns)}); restore it")
        for line, cells in rows:
            splits = split_names([cells["subset"]])
            if splits is None:
                raise UserError(f"{tables[0]} line {line}: subset '{cells['subset']}' is unknown; restore it")
            stem = f"Medley-solos-DB_{cells['subset']}-{cells['instrument_id']}_{cells['uuid4']}"
            yield {
                "id": stem.removeprefix("Medley-solos-DB_"),
                "audio": stem,
                "labels": [cells["instrument"]],
                "split": splits[cells["subset"]],
                "group": f"song {cells['song_id']}",
                "track": f"song {cells['song_id']}",
                "instrument_id": cells["instrument_id"],
            }
