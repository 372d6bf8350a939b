"""FMA, the Free Music Archive (Defferrard et al. 2017): 106,574 tracks with genres and an official split."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tonnetz.datasets.assets import Asset, DownloadableList
from tonnetz.datasets.files import find_table, split_names, stream_csv
from tonnetz.errors import UserError

TABLE, GENRES = "tracks.csv", "genres.csv"
SUBSETS = {  # each holds the ones before; SHA-1 of its archive
    "small": "ade154f733639d52e35e32f5593efe5be76c6d70",
    "medium": "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    "large": "497109f4dd721066b5ce5e5f250ec604dc78939e",
}
LABELS = ("top", "all")
COLUMNS = (
    *(("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "genres_all"), ("track", "title")),
    *(("artist", "id"), ("artist", "name"), ("album", "id")),
)
REMEDY = "unpack fma_metadata.zip there"


class Fma(DownloadableList):
    """``tracks.csv`` of fma_metadata and the clips of fma_small, fma_medium, fma_large or fma_full, in any sub-folder.

    The official split. Columns artist, album and title.

    Args:
        root: the folder.
        subset: ``small`` (8 genres, balanced), ``medium`` (16 genres) or ``large``: tracks of it, and of smaller ones.
        label: ``top``: the one genre, unlabelled where there is none; ``all``: all of them, by genres.csv.
        download: fetch fma_metadata (342 MiB) and clips of the subset (7, 22 or 93 GiB) that are not there yet.
        url: address of the folder that holds fma_metadata.zip and fma_small.zip, ...; null = `home`.
        missing: ``skip`` or ``fail``, for tracks without a file.
        split: put every track into this split.
    """

    name = "fma"
    home = "https://os.unil.cloud.switch.ch/fma"

    def __init__(
        self,
        root: str | Path,
        *,
        subset: str = "small",
        label: str = "top",
        download: bool = False,
        url: str | None = None,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, download=download, url=url, missing=missing, split=split)
        if subset not in SUBSETS or label not in LABELS:
            known = f"known are {', '.join(SUBSETS)}, and {', '.join(LABELS)}"
            raise UserError(f"data.corpus.subset={subset} data.corpus.label={label}: {known}")
        self.subset, self.label = subset, label

    def wanted(self) -> Sequence[Asset]:
        """The tables, and the clips of the subset."""
        metadata = Asset({"fma_metadata.zip": "f0df49ffe5f2a6008d7dc83c6915b31835dfe733"}, into="fma_metadata")
        clips = f"fma_{self.subset}"
        return metadata, Asset({f"{clips}.zip": SUBSETS[self.subset]}, into=clips)

    @property
    def multilabel(self) -> bool:  # type: ignore[override]
        """Whether a track has all of its genres."""
        return self.label == "all"

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a track of the subset. Raises UserError for a missing table, or one that is not that of FMA."""
        path = find_table(self.root, TABLE, REMEDY)
        titles = self._titles() if self.multilabel else {}
        subsets = list(SUBSETS)[: list(SUBSETS).index(self.subset) + 1]
        for line, number, cells in _read(path):
            if cells["set", "subset"] not in subsets:
                continue
            splits = split_names([cells["set", "split"]])
            if splits is None:
                raise UserError(f"{path} line {line}: split '{cells['set', 'split']}' is unknown; restore it")
            top = cells["track", "genre_top"]
            labels = [top] if top else None
            if self.multilabel:
                labels = self._genres(cells["track", "genres_all"], titles, f"{path} line {line}")
            yield {
                "id": number.zfill(6),
                "audio": number.zfill(6),
                "labels": labels,
                "split": splits[cells["set", "split"]],
                "artist": f"{cells['artist', 'name']} ({cells['artist', 'id']})",
                "album": cells["album", "id"] or None,
                "title": cells["track", "title"] or None,
            }

    def _titles(self) -> dict[str, str]:
        """Name of a genre by its number."""
        path = find_table(self.root, GENRES, REMEDY)
        return {cells["genre_id"]: cells["title"] for _, cells in stream_csv(path, ("genre_id", "title"))}

    def _genres(self, cell: str, titles: dict[str, str], place: str) -> list[str]:
        """Names of the genres in a cell such as ``[21, 12]``."""
        numbers = cell.strip("[]").replace(",", " ").split()
        for number in numbers:
            if number not in titles:
                raise UserError(f"{place}: genre '{number}' is not in {GENRES}; restore both")
        return [titles[number] for number in numbers]


def _read(path: Path) -> Iterator[tuple[int, str, dict[tuple[str, str], str]]]:
    """Yield line, track number and cells of a table whose columns two lines name: group, and column in it."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            head = list(zip(next(reader, []), next(reader, []), strict=False))
            for column in COLUMNS:
                if column not in head:
                    raise UserError(f"{path} lines 1 and 2: no column {' '.join(column)}; restore the file")
            places = {column: head.index(column) for column in COLUMNS}
            for row in reader:
                if not row or not row[0].isdigit():  # the third line names the index
                    continue
                if len(row) != len(head):
                    raise UserError(f"{path} line {reader.line_num}: {len(row)} cells, not {len(head)}; restore it")
                yield reader.line_num, row[0], {column: row[place].strip() for column, place in places.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table in UTF-8 ({error}); restore it") from None
