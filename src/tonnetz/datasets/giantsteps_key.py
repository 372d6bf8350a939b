"""GiantSteps keys: 604 EDM previews to test on (Knees et al. 2015), 1,486 of the MTG to train on (Faraldo 2017)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tonnetz.datasets.assets import Absent, Asset, DownloadableList, download, fetch
from tonnetz.datasets.base import Progress
from tonnetz.datasets.files import stream_csv
from tonnetz.errors import UserError
from tonnetz.metrics.key import KEYS, parse_key

TRAIN, VALID = 100, 16  # of the 116 shares of artists
KEY, MTG = "giantsteps-key-dataset", "giantsteps-mtg-key-dataset"
ANNOTATIONS = "https://github.com/GiantSteps/{}/archive/refs/heads"


class GiantStepsKey(DownloadableList):
    """The unpacked ``giantsteps-key-dataset`` and ``giantsteps-mtg-key-dataset``, or one, with their previews.

    Labels are 24 keys, C to B major and C to B minor, with flats; columns tonic and mode, group (the song), artist,
    and genre. The key dataset is the split test. Of the MTG dataset, songs of which the annotator was not sure
    (C other than 2) or that have several keys are left out, and the split goes by artist: 923 train, 236 valid.
    The published clips of 30 s are ``data.windows={seconds: 30, hop: 30, gate: null, short: drop}``.

    Args:
        root: the folder that holds them.
        download: fetch the annotations of both, where they are not laid elsewhere, and previews that are not there yet,
            which are checked against the folder md5.
        url: address of the folder that holds ID.LOFI.mp3; null = `home` for the MTG dataset, `backup` for the other.
        missing: ``skip`` or ``fail``, for songs without a file.
        split: put every song into this split.
    """

    name = "giantsteps_key"
    home = "https://www.cp.jku.at/datasets/giantsteps/mtg_key_backup"
    backup = "https://www.cp.jku.at/datasets/giantsteps/backup"

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a missing folder, or download what it lacks. Raises UserError."""
        if not self.download:
            super().fetch(progress)
            return
        own = [self.root / name for name in (KEY, MTG)]  # anything elsewhere was laid there by hand, and is enough
        if all(any(home.is_relative_to(place) for place in own) for home in self._homes()):
            for name in (KEY, MTG):
                fetch(ANNOTATIONS.format(name), [Asset({"master.zip": None}, into=name)], self.root)
        here = {path.name for path in self.audio_files()}
        todo = [row for row in self._songs() if f"{row['audio']}.mp3" not in here]
        lost: dict[str, str] = {}
        for done, row in enumerate(todo, 1):
            base = self.url or (self.backup if row["split"] == "test" else self.home)
            digits = row["home"] / "md5" / f"{row['audio']}.md5"
            checksum = digits.read_text().split()[0] if digits.is_file() else None
            name = f"{row['audio']}.mp3"
            try:
                download(f"{base.rstrip('/')}/{name}", row["home"] / "audio" / name, checksum)
            except Absent as error:  # of this one alone
                lost[name] = str(error)
            if progress:
                progress(done, len(todo))
        if lost:
            first = next(iter(lost.values()))
            print(f"{self.name}: {len(lost)} of {len(todo)} previews are not to be had, the first: {first}")

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a song. Raises UserError when neither dataset is there, or an annotation is no key."""
        for row in self._songs():
            del row["home"]
            yield row

    def _songs(self) -> Iterator[dict[str, Any]]:
        homes = self._homes()
        mtg = [home for home in homes if (home / "annotations/annotations.txt").is_file()]
        test = [home for home in homes if home not in mtg]
        if not homes:
            raise UserError(
                f"{self.root}: neither {KEY} (annotations/key/*.key) nor {MTG} (annotations/annotations.txt) in it; "
                "clone them there, or data.corpus.download=true"
            )
        for home in mtg[:1]:
            yield from _mtg(home)
        for home in test[:1]:
            for path in sorted((home / "annotations/key").glob("*.key")):
                yield {**_song(home, path.name.split(".")[0], path.read_text().strip(), str(path)), "split": "test"}

    def _homes(self) -> list[Path]:
        """The folders that hold a dataset: the root, or some up to two below it (an archive has one of its own)."""
        folders = [self.root, *sorted(self.root.glob("*")), *sorted(self.root.glob("*/*"))]
        return [
            home
            for home in folders
            if (home / "annotations/annotations.txt").is_file() or any((home / "annotations/key").glob("*.key"))
        ]


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
