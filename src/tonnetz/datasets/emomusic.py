"""Emomusic (Soleymani et al. 2013): 744 excerpts of 45 s whose arousal and valence listeners rated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tonnetz.datasets.assets import Asset, DownloadableList
from tonnetz.datasets.files import find_table, stream_csv
from tonnetz.errors import UserError

SONGS, RATINGS = "songs_info.csv", "static_annotations.csv"
TARGETS = ("arousal", "valence")
TRAIN, VALID = 8, 2  # shares of artists


class Emomusic(DownloadableList):
    """``songs_info.csv``, ``static_annotations.csv`` and the excerpts NUMBER.mp3, each in any sub-folder; no labels.

    Columns arousal and valence are mean ratings, less their mean over the development set and divided by its
    deviation; mean_arousal and mean_valence are the ratings themselves (1 to 9). Besides there are artist, title
    and genre. The evaluation set of MediaEval 2013 is the split test (125); artists of the development set share a
    split: 504 train, 115 valid.

    Args:
        root: the folder.
        download: fetch the two archives when they are not there yet.
        url: address of the folder that holds clips_45sec.tar.gz and annotations.tar.gz; null = `home`.
        missing: ``skip`` or ``fail``, for songs without a file.
        split: put every song into this split.
    """

    name = "emomusic"
    home = "http://cvml.unige.ch/databases/emoMusic"
    assets = (
        Asset(
            {"annotations.tar.gz": "e0cb0b06e1b0ce7f04b1572fc410937699b7fad9dae67ddaa745f06cda4b0b33"},
            into="annotations",
        ),
        Asset(
            {"clips_45sec.tar.gz": "3994a5d5fefc27f9540d1a69cd7f1294c68e6cb311ce49765021e2e9c7a1057b"},
            into="clips_45seconds",
        ),
    )

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a song. Raises UserError for a missing table, or a song without ratings."""
        place = find_table(self.root, SONGS, "unpack annotations.tar.gz there (it holds artists and the split)")
        ratings = find_table(self.root, RATINGS, "unpack annotations.tar.gz there (it holds the ratings)")
        rated = _ratings(ratings)
        columns = ("song_id", "Artist", "Song title", "Genre", "Mediaeval 2013 set")
        rows = []
        for line, cells in stream_csv(place, columns):
            number = cells["song_id"]
            if number not in rated:
                raise UserError(f"{place} line {line}: song {number} has no ratings in {ratings.name}; restore it")
            test = cells["Mediaeval 2013 set"] == "evaluation"
            rows.append(
                {
                    "id": number.zfill(4),
                    "audio": number,
                    "labels": None,
                    "split": "test" if test else artist_split(cells["Artist"]),
                    "artist": cells["Artist"] or None,
                    "title": cells["Song title"] or None,
                    "genre": cells["Genre"] or None,
                    **{f"mean_{name}": value for name, value in zip(TARGETS, rated[number], strict=True)},
                }
            )
        values = np.array([[row[f"mean_{name}"] for name in TARGETS] for row in rows])  # (N, 2)
        development = values[[row["split"] != "test" for row in rows]]
        if not len(development):
            raise UserError(f"{place}: has no song of the development set; restore it")
        scaled = (values - development.mean(0)) / development.std(0).clip(min=1e-9)
        for row, pair in zip(rows, scaled.tolist(), strict=True):
            yield {**row, **dict(zip(TARGETS, pair, strict=True))}


def _ratings(path: Path) -> dict[str, list[float]]:
    """Mean arousal and valence by song."""
    found = {}
    for line, cells in stream_csv(path, ("song_id", *(f"mean_{name}" for name in TARGETS))):
        try:
            found[cells["song_id"]] = [float(cells[f"mean_{name}"]) for name in TARGETS]
        except ValueError as error:
            raise UserError(f"{path} line {line}: a rating is no number ({error}); restore it") from None
    return found


def artist_split(artist: str) -> str:
    """Split (train | valid) of an artist of the development set: SHA-1 of the name modulo 10, below 8 is train.

    Of the name in lower case the letters of ASCII count, and single spaces between words.
    """
    letters = "".join(c for c in artist.lower() if c.isascii() and (c.isalpha() or c.isspace()))
    name = " ".join(letters.split())
    return "train" if int(hashlib.sha1(name.encode()).hexdigest(), 16) % (TRAIN + VALID) < TRAIN else "valid"
