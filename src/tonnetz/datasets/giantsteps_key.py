"""GiantSteps keys: 604 EDM previews to test on (Knees et al. 2015), 1,486 of the MTG to train on (Faraldo 2017)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tonnetz.datasets.assets import Downloadable, download
from tonnetz.datasets.base import Progress
from tonnetz.datasets.files import stream_csv
from tonnetz.errors import UserError
from tonnetz.metrics.key import KEYS, parse_key

TRAIN, VALID = 100, 16  # of the 116 shares of artists


class GiantStepsKey(Downloadable):
    """The unpacked ``giantsteps-key-dataset`` and ``giantsteps-mtg-key-dataset``, or one, with their previews.

    Labels are 24 keys, C to B major and C to B minor, with flats; columns tonic and mode, group (the song), artist,
    and genre. The key dataset is the split test. Of the MTG dataset, songs of which the annotator was not sure
    (C other than 2) or that have several keys are left out, and the split goes by artist: 923 train, 236 valid.
    The published clips of 30 s are ``data.windows={seconds: 30, hop: 30, gate: null, short: drop}``.

    Args:
        root: the folder that holds them.
        download: fetch previews that are not there yet, and check them against the folder md5.
        url: address of the folder that holds ID.LOFI.mp3.
        missing: ``skip`` or ``fail``, for songs without a file.
        split: put every song into this split.
    """

    name = "giantsteps_key"

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a missing folder, or download the previews that it lacks. Raises UserError."""
        if self.download:
            homes = {row["id"]: row["home"] for row in self._songs()}
            here = {path.name for path in self.audio_files()} if self.root.is_dir() else set()
            todo = [number for number in homes if f"{int(number)}.LOFI.mp3" not in here]
            for done, number in enumerate(todo, 1):
                name = f"{int(number)}.LOFI"
                digits = homes[number] / "md5" / f"{name}.md5"
                checksum = digits.read_text().split()[0] if digits.is_file() else None
                download(f"{str(self.url).rstrip('/')}/{name}.mp3", homes[number] / "audio" / f"{name}.mp3", checksum)
                if progress:
                    progress(done, len(todo))
        else:
            super().fetch(progress)

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a song. Raises UserError when neither dataset is there, or an annotation is no key."""
        for row in self._songs():
            del row["home"]
            yield row

    def _songs(self) -> Iterator[dict[str, Any]]:
        homes = [self.root, *sorted(path for path in self.root.glob("*") if path.is_dir())]
        mtg = [home for home in homes if (home / "annotations/annotations.txt").is_file()]
        test = [home for home in homes if home not in mtg and any((home / "annotations/key").glob("*.key"))]
        if not mtg and not test:
            raise UserError(
                f"{self.root}: neither giantsteps-key-dataset (annotations/key/*.key) nor giantsteps-mtg-key-dataset "
                "(annotations/annotations.txt) in it; clone them there"
            )
        for home in mtg[:1]:
            yield from _mtg(home)
        for home in test[:1]:
            for path in sorted((home / "annotations/key").glob("*.key")):
                yield {**_song(home, path.name.split(".")[0], path.read_text().strip(), str(path)), "split": "test"}


def _mtg(home: Path) -> Iterator[dict[str, Any]]:
    """Songs of the MTG dataset that have one sure key, with the split of their artists."""
    table, facts = home / "annotations/annotations.txt", home / "annotations/beatport_metadata.txt"
    artists = {cells["ID"]: cells["ARTIST"] for _, cells in stream_csv(facts, ("ID", "ARTIST"), "\t")}
    names = {number: [name.strip() for name in text.split(",")] for number, text in artists.items()}
    splits = artist_splits(names.values())
    for line, cells in stream_csv(table, ("ID", "MANUAL KEY", "C"), "\t"):
        number, key = cells["ID"], cells["MANUAL KEY"]
        if cells["C"] != "2" or "/" in key:
            continue
        if number not in names:
            raise UserError(f"{facts}: no line for song {number}, whose artist says its split; restore the file")
        song = _song(home, number, key, f"{table} line {line}")
        yield {**song, "split": splits[names[number][0]], "artist": artists[number].lower()}


def artist_splits(songs: Iterable[Sequence[str]]) -> Mapping[str, str]:
    """Split (train | valid) of every artist, from the artists of each song.

    SHA-1 of the name in lower case, modulo 116: below 100 is train. Then whoever made a song with an artist of valid
    goes there too, in two passes over the songs in their order.
    """
    songs = list(songs)
    splits: dict[str, str] = {}
    for name in (name for song in songs for name in song):
        share = int(hashlib.sha1(name.lower().encode()).hexdigest(), 16) % (TRAIN + VALID)
        splits[name] = "train" if share < TRAIN else "valid"
    for _ in range(2):
        for song in songs:
            if any(splits[name] == "valid" for name in song):
                splits.update(dict.fromkeys(song, "valid"))
    return splits


def _song(home: Path, number: str, key: str, place: str) -> dict[str, Any]:
    try:
        name = KEYS[parse_key(key)]
        uid = f"{int(number):07d}"
    except (UserError, ValueError) as error:
        raise UserError(f"{place}: song {number}: {error}; restore the annotation") from None
    tonic, mode = name.split()
    genre = home / "annotations/genre" / f"{number}.LOFI.genre"
    return {
        "id": uid,
        "home": home,
        "audio": f"{number}.LOFI",
        "labels": [name],
        "tonic": tonic,
        "mode": mode,
        "group": uid,
        "artist": None,
        "genre": genre.read_text().strip() or None if genre.is_file() else None,
    }
