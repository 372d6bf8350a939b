"""TinySOL (Cella et al. 2020): 2,913 single notes of 14 instruments of the orchestra, with five official folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tonnetz.datasets.files import read_csv
from tonnetz.datasets.listed import Listed
from tonnetz.errors import UserError

TABLE = "TinySOL_metadata.csv"
COLUMNS = {  # ours: how the table's own name begins, in lower case; the first that fits
    "path": ("path",),
    "fold": ("fold",),
    "instrument": ("instrument (in full)", "instrument name", "instrument"),
    "family": ("family",),
    "technique": ("technique (in full)", "technique name", "technique"),
    "pitch": ("pitch",),
    "midi": ("pitch id",),
    "dynamics": ("dynamics",),
    "instance": ("instance id",),
    "string": ("string id",),
}
NEEDED = ("path", "fold", "instrument")


class TinySOL(Listed):
    """``TinySOL_metadata.csv`` and the audio it names, each in any sub-folder; labels are names of instruments.

    Columns fold (0 to 4, official), family, technique, pitch (A#1), midi, dynamics, instance and string come
    from the table. ``data.folds=5 data.fold=0 data.fold_by=table`` validates on an official fold.

    Args:
        root: the folder.
        missing: ``skip`` or ``fail``, for recordings without a file.
        split: put every note into this split.
    """

    name = "tinysol"

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a note. Raises UserError for a missing table, or one without the columns that it must have."""
        tables = sorted(self.root.rglob(TABLE))
        if not tables:
            raise UserError(f"{self.root}: no {TABLE} in it; download it beside the audio (it holds the folds)")
        columns, rows = read_csv(tables[0])
        names = {ours: _column(columns, begins) for ours, begins in COLUMNS.items()}
        for ours in NEEDED:
            if names[ours] is None:
                raise UserError(f"{tables[0]}: no column {ours} (but {', '.join(columns)}); restore it")
        for line, cells in rows:
            facts: dict[str, Any] = {ours: cells[name] or None if name else None for ours, name in names.items()}
            place = f"{tables[0]} line {line}"
            for ours in ("fold", "midi"):
                facts[ours] = _number(facts[ours], ours, place)
            path, label = facts.pop("path"), facts.pop("instrument")
            if not path or not label:
                raise UserError(f"{place}: names no file, or no instrument; restore it")
            name = path.rpartition("/")[2]
            yield {"id": path.removesuffix(".wav"), "labels": [label], "audio": name.removesuffix(".wav"), **facts}


def _column(columns: Sequence[str], begins: Sequence[str]) -> str | None:
    """The column that is named like one of `begins`, or begins like it where nothing is."""
    lower = {name.lower(): name for name in columns}
    for word in begins:
        if word in lower:
            return lower[word]
    return next((name for word in begins for key, name in lower.items() if key.startswith(f"{word} (")), None)


def _number(cell: str | None, name: str, place: str) -> int | None:
    try:
        return int(cell) if cell else None
    except ValueError:
        raise UserError(f"{place}: {name} '{cell}' is not a number; restore it") from None
