"""Any table of recordings from one file: a track table, a CoverHunter list, or a spreadsheet."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from tonnetz.datasets.coverhunter import ALIASES, CoverHunter, parse_list
from tonnetz.datasets.covers import read_lines
from tonnetz.datasets.table import Csv
from tonnetz.errors import UserError
from tonnetz.tracks import read_table, table


def read_list(path: str | Path) -> pl.DataFrame:
    """Return a track table of what a file lists. Audio need not be there; paths are made absolute where it is."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a tracks.jsonl, a CoverHunter list or a CSV file")
    if path.suffix.lower() == ".csv":
        sheet = Csv(path, classes=[])  # columns are facts here, never classes
        sheet.audible = False
        return table(sheet.tracks())
    if _is_track_table(path):
        frame = read_table(path)
        places = [str(_found([path.parent / name], name)) if name else None for name in frame["path"]]
        return frame.with_columns(pl.Series("path", places, dtype=pl.String))
    corpus = CoverHunter(path)
    return table(
        {
            **line.facts,
            "id": line.id,
            "path": str(_found(corpus.places(path, line.wav), line.wav)) if line.wav else None,
            "work": line.work,
            "group": line.original,
            "duration": line.duration,
        }
        for line in parse_list(path)
    )


def _is_track_table(path: Path) -> bool:
    """Whether the first line is a JSON object with an id of ours."""
    first = next((line for line in read_lines(path) if line.strip()), "")
    try:
        cells = json.loads(first)
    except ValueError:
        return False
    return isinstance(cells, dict) and "id" in cells and not any(name in cells for name in ALIASES["id"])


def _found(places: list[str | Path], name: str) -> str | Path:
    """The first place that is a file, else the name as it is written."""
    return next((place.resolve() for place in places if isinstance(place, Path) and place.is_file()), name)
