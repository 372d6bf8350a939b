"""The Million Song Dataset (Bertin-Mahieux et al. 2011) with its 50 tags of Last.fm, as Pons and Serra list it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.covers import read_lines
from tonnetz.datasets.files import find_table
from tonnetz.datasets.listed import Listed
from tonnetz.errors import UserError

LISTS = {"train": "train_gt_msd.tsv", "valid": "val_gt_msd.tsv", "test": "test_gt_msd.tsv"}
NAMES, INDEX, SONGS = "output_labels_msd.txt", "index_msd.tsv", "unique_tracks.txt"
REMEDY = "put the lists of musicnn-training (data/index/msd) there"


class Msd(Listed):
    """The lists ``train_gt_msd.tsv``, ``val_gt_msd.tsv``, ``test_gt_msd.tsv`` and ``output_labels_msd.txt``, and audio.

    A line of a list is a track's id, a tab and 0 or 1 for each tag. The lists are the splits: 201,680, 11,774 and
    28,435 tracks. Files are named by the track's id (TRAAAAK128F9318786.mp3) in any sub-folder, or as
    ``index_msd.tsv`` says when it is there: id, tab, path from the root or any file's name.
    With ``unique_tracks.txt`` of the dataset there are the columns artist, title and group (the song).

    Args:
        root: the folder.
        missing: ``skip`` or ``fail``, for tracks without a file.
        split: put every track into this split.
    """

    name = "msd"
    multilabel = True

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a track. Raises UserError, naming file and line, for a list that is missing or damaged."""
        tags = read_tags(find_table(self.root, NAMES, REMEDY))
        places, songs = self._places(), self._songs()
        seen: dict[str, str] = {}
        for split, file in LISTS.items():
            path = find_table(self.root, file, REMEDY)
            for line, text in enumerate(read_lines(path), 1):
                track, _, vector = text.partition("\t")
                if not track:
                    continue
                if seen.setdefault(track, split) != split:
                    raise UserError(f"{path} line {line}: {track} is in the list of {seen[track]} already; remove one")
                labels = [tag for tag, value in zip(tags, _vector(vector, len(tags), path, line), strict=True) if value]
                audio = places.get(track, track)
                yield {"id": track, "audio": audio, "labels": labels, "split": split, **songs.get(track, {})}

    def _places(self) -> dict[str, Path | str]:
        """The file of a track, or its name, where an index is there."""
        found: dict[str, Path | str] = {}
        for path in sorted(self.root.rglob(INDEX))[:1]:
            for text in read_lines(path):
                track, _, place = text.strip().partition("\t")
                if place:
                    inside = self.root / place
                    found[track] = inside if inside.is_file() else inside.stem
        return found

    def _songs(self) -> dict[str, dict[str, Any]]:
        """Song, artist and title of a track, where the dataset's list is there: four cells between <SEP>."""
        found = {}
        for path in sorted(self.root.rglob(SONGS))[:1]:
            for line, text in enumerate(read_lines(path), 1):
                cells = text.split("<SEP>")
                if len(cells) != 4:
                    raise UserError(f"{path} line {line}: {len(cells)} cells, not track, song, artist, title")
                track, song, artist, title = cells
                found[track] = {"group": song, "artist": artist or None, "title": title or None}
        return found


def read_tags(path: Path) -> list[str]:
    """Names of the tags in their order: the list of texts in a file such as ``MSD_LABELS = ['rock', 'pop', ...]``.

    Nothing is evaluated. Raises UserError when there is no such list.
    """
    text = "\n".join(line for line in read_lines(path) if not line.startswith("#"))
    try:
        names = ast.literal_eval(text[text.index("[") :].strip())
    except (ValueError, SyntaxError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: holds no list of tags ['rock', 'pop', ...]; restore it")
    return names


def _vector(text: str, count: int, path: Path, line: int) -> list[float]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or len(values) != count or not set(values) <= {0, 1}:
        raise UserError(f"{path} line {line}: not an id, a tab and a list of {count} numbers 0 or 1; restore it")
    return values
