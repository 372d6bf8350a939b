"""Evaluation sets beside the splits of a corpus, and lists that say which tracks ask and which answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError
from tonnetz.tracks import SPLITS

ROLES = ("stop", "benchmark")
LISTS = ("queries", "references", "exclude")


@dataclass(frozen=True)
class EvaluationSet:
    """Recordings that are evaluated during training.

    Args:
        corpus: where they come from.
        role: ``stop``: its mAP counts in `valid/map`, which chooses checkpoints and stops runs; ``benchmark``: it is
            reported and cannot influence anything.
        every: epochs between two evaluations.
        lists: files that name queries, references and pairs to exclude.
    """

    corpus: Corpus
    role: str = "benchmark"
    every: int = 1
    lists: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(f"data.sets: role '{self.role}' is unknown; known are {', '.join(ROLES)}")
        if self.every < 1:
            raise UserError(f"data.sets: every={self.every} must be at least 1")
        if self.role == "stop" and self.every != 1:  # valid/map would mean one thing now and another then
            raise UserError(f"data.sets: every={self.every}: a set of role stop is evaluated each time; take every=1")


def check_names(names: Mapping[str, EvaluationSet]) -> None:
    """Raise UserError for a set that is called like a split."""
    for name in names:
        if name in SPLITS:
            raise UserError(f"data.sets.{name}: is the name of a split; choose another")


def read_roles(lists: Mapping[str, str | None], frame: pl.DataFrame) -> dict[str, Tensor]:
    """Rows of `frame` that ask (queries), that answer (references), and pairs (E, 2) of rows to leave out (exclude).

    A list names one track a line by its id, or is any list that data=csv or data=coverhunter reads; exclusions are a
    CSV of two ids a line, or JSON whose `query_in_ref` holds pairs of places in the two lists. Raises UserError for a
    file that is missing or empty, or names a track that is not there, or one twice.
    """
    unknown = set(lists) - set(LISTS)
    if unknown:
        raise UserError(f"data.lists.{min(unknown)}: known are {', '.join(LISTS)}")
    place = {name: row for row, name in enumerate(frame["id"])}
    found: dict[str, Tensor] = {}
    for name in ("queries", "references"):
        path = lists.get(name)
        if path:
            found[name] = torch.tensor(_side(name, Path(path), place))
    path = lists.get("exclude")
    if path:
        every = torch.arange(frame.height)
        sides = found.get("queries", every), found.get("references", every)
        found["exclude"] = torch.tensor(_pairs(Path(path), place, sides), dtype=torch.long).reshape(-1, 2)
    return found


def _side(name: str, path: Path, place: dict[str, int]) -> list[int]:
    """The rows that a list of queries or references names."""
    tracks = _ids(path, place)
    if not tracks:
        raise UserError(f"{path}: names no track; write one id a line, or take data.lists.{name}=null for all")
    seen: set[str] = set()
    for track in tracks:
        if track in seen:  # it would count twice in every mean; left out, it would shift the places of query_in_ref
            raise UserError(f"{path}: names '{track}' twice; remove one line")
        seen.add(track)
    return [_row(place, track, path) for track in tracks]


def _row(place: dict[str, int], track: str, path: str | Path) -> int:
    if track not in place:
        raise UserError(f"{path}: names '{track}', which is no track of this set; correct the list")
    return place[track]


def _ids(path: Path, known: Container[str]) -> list[str]:
    """The tracks that a list names, ids of the data or columns of a table."""
    from tonnetz.datasets.lists import read_list

    lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not lines or any(line in known for line in lines):  # whatever marks an id may hold
        return lines
    csv_file = path.suffix.lower() == ".csv"
    return read_list(path)["id"].to_list() if csv_file or any(mark in lines[0] for mark in "{\t") else lines


def _pairs(path: Path, place: dict[str, int], sides: tuple[Tensor, Tensor]) -> list[tuple[int, int]]:
    text = _text(path)
    if text.lstrip().startswith("{"):
        try:
            cells = json.loads(text)["query_in_ref"]
            return [(_at(sides[0], a), _at(sides[1], b)) for a, b in cells]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path}: holds no pairs of places under query_in_ref ({error}); correct it") from None
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    if any(len(row) != 2 for row in rows):
        raise UserError(f"{path}: needs two ids a line, query and reference; quote an id that holds a comma")
    return [(_row(place, a.strip(), path), _row(place, b.strip(), path)) for a, b in rows]


def _at(rows: Tensor, place: object) -> int:
    """The row at a place of a list; a negative one would count from its end."""
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(rows):
        raise ValueError(f"place {place} of a list of {len(rows)}, which count from 0")
    return int(rows[place])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError:
        raise UserError(f"{path}: no such list of tracks") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; save it anew") from None
