"""What readers of folders and lists share: unique ids, names of splits, CSV rows with line numbers."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError

# Other names of the splits, as people write them. `eval` is settled by `split_names`.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}

FACTS = (
    "id",
    "split",
    "group",
    "work",
    "artist",
    "fold",
    "offset",
    "duration",
)  # columns with a meaning of their own
# Columns that a list may not bring along: they are settled elsewhere.
RESERVED = frozenset(
    {
        *("labels", "unknown", "notes", "path", "audio", "header", "first", "samples", "peak", "level"),
        *("sample_rate", "corpus", "number", "stamp"),
    }
)


def split_names(names: Sequence[str]) -> dict[str, str] | None:
    """Return name: train | valid | test when all names are names of splits, else None.

    ``eval`` and ``evaluation`` mean valid beside a test split and test otherwise.
    """
    lower = {name: name.lower() for name in names}
    has_test = any(SPLIT_NAMES.get(word) == "test" for word in lower.values())
    known = {**SPLIT_NAMES, **dict.fromkeys(("eval", "evaluation"), "valid" if has_test else "test")}
    return {name: known[word] for name, word in lower.items()} if known.keys() >= set(lower.values()) else None


def track_ids(paths: Sequence[PurePath]) -> list[str]:
    """Return an id for each relative path: without its extension, unless two paths differ in that alone."""
    short = [path.with_suffix("").as_posix() for path in paths]
    times = Counter(short)
    return [name if times[name] == 1 else path.as_posix() for name, path in zip(short, paths, strict=True)]


def audio_by_id(corpus: Corpus) -> dict[str, Path]:
    """All audio files of a corpus's folder by id. Raises UserError when there are none."""
    files = corpus.audio_files()
    if not files:
        raise UserError(f"{corpus.root}: no audio files (wav, flac, mp3, ogg, m4a, ...) under it; check data.root")
    return dict(zip(track_ids([path.relative_to(corpus.root) for path in files]), files, strict=True))


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns and (line, cells) of a CSV file; its first line settles what separates.

    Raises UserError when it is missing, not text, empty, or has a row with too many or too few cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=head.count), strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except OSError:
        raise UserError(f"{path}: no such CSV file") from None
    except UnicodeDecodeError:  # as spreadsheet programs save it unless they are told otherwise
        raise UserError(f"{path}: not a CSV file in UTF-8; save it anew as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error}); correct it, or save it anew as CSV") from None
    if not rows:
        raise UserError(f"{path}: the file is empty; it needs a first line that names the columns")
    (_, columns), *body = rows
    for name in columns:
        if not name or columns.count(name) > 1:
            raise UserError(
                f"{path} line 1: column '{name}' is nameless or there twice; give every column its own name"
            )
    for line, cells in body:
        if len(cells) != len(columns):
            raise UserError(f"{path} line {line}: {len(cells)} cells, but line 1 names {len(columns)}; quote commas")
    return columns, [(line, dict(zip(columns, cells, strict=True))) for line, cells in body]


def find_table(root: Path, name: str, remedy: str) -> Path:
    """The file of that name in `root` or below, the least deep one. Raises UserError with a remedy when none is."""
    found = sorted(root.rglob(name), key=lambda path: (len(path.parts), path))
    if not found:
        raise UserError(f"{root}: no {name} in it; {remedy}")
    return found[0]


def stream_csv(path: Path, columns: Sequence[str], separator: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, cells) of a large table, without spaces around, of the named columns alone.

    Raises UserError when the file is missing or not text, or has a line without one of them.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            head = [cell.strip() for cell in next(reader, [])]
            for name in columns:
                if name not in head:
                    shown = ", ".join(head[:20]) + (", ..." if len(head) > 20 else "")
                    raise UserError(f"{path} line 1: no column {name} (but {shown or 'nothing'}); restore the file")
            places = {name: head.index(name) for name in columns}
            last = max(places.values(), default=0)
            for row in reader:
                if not row:
                    continue
                if len(row) <= last:
                    raise UserError(f"{path} line {reader.line_num}: {len(row)} cells, not {len(head)}; restore it")
                yield reader.line_num, {name: row[place].strip() for name, place in places.items()}
    except OSError:
        raise UserError(f"{path}: no such table; it belongs to the corpus") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table in UTF-8 ({error}); restore it") from None


def pick_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first column that has one of the names, in any case."""
    return next((column for column in columns if column.lower() in names), None)


def typed_cells(cells: dict[str, str], place: str) -> dict[str, str | float | int | None]:
    """Give the cells of a row their types: empty is None, offset and duration are seconds, fold an integer.

    Known columns are written in lower case, reserved ones are left out. `place` names file and line in the
    UserError that a wrong cell raises.
    """
    named = {name.lower() if name.lower() in FACTS else name: cell for name, cell in cells.items()}
    return {name: _typed(name, cell, place) for name, cell in named.items() if name not in RESERVED}


def _typed(name: str, cell: str, place: str) -> str | float | int | None:
    if not cell:
        return None
    if name == "split":
        known = split_names([cell])
        if known is None:
            raise UserError(f"{place}: split '{cell}' is unknown; write train, valid or test, or leave it empty")
        return known[cell]
    kinds: dict[str, type[int] | type[float]] = {"fold": int, "offset": float, "duration": float}
    if name not in kinds:
        return cell
    try:
        value = kinds[name](cell)
    except ValueError:
        raise UserError(f"{place}: {name} '{cell}' is not a number") from None
    if not 0 <= value < float("inf"):
        raise UserError(f"{place}: {name} {cell} must be a number from 0 up")
    return value
