"""Splits of the probing corpora against rules written down a second time, and against the published label files.

The first part always runs, on made-up lists. The second needs the label files themselves, no audio: set
TONNETZ_LABELS to a folder with magnatagatune/, giantsteps/ and emomusic/, laid out as docs/contrastive.md says.
"""

from __future__ import annotations

import collections
import csv
import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pytest

from tonnetz.datasets.emomusic import RATINGS, SONGS, Emomusic
from tonnetz.datasets.giantsteps_key import GiantStepsKey
from tonnetz.datasets.gtzan import Gtzan
from tonnetz.datasets.magnatagatune import TAGS, MagnaTagATune

LABELS = os.environ.get("TONNETZ_LABELS")
needs_labels = pytest.mark.skipif(not LABELS, reason="set TONNETZ_LABELS to a folder of the published label files")
KEYS = ("C major", "F# minor", "A minor", "D# minor", "A# major")


def sizes(rows):
    counts = collections.Counter(row["split"] for row in rows)
    return counts["train"], counts["valid"], counts["test"]


def sides(rows, column, splits=("train", "valid")):
    """The splits that each value of a column is in."""
    found = collections.defaultdict(set)
    for row in rows:
        if row["split"] in splits and row[column]:
            found[row[column]].add(row["split"])
    return found


# --- the rules a second time, as plain as can be


def naive_giantsteps(songs):
    """Split of the songs (id, key, confidence, artists) that have one sure key."""
    names = {name for _, _, _, artists in songs for name in artists}
    train = {name for name in names if int(hashlib.sha1(name.lower().encode("utf-8")).hexdigest(), 16) % 116 < 100}
    valid = names - train
    for _ in range(2):
        for _, _, _, artists in songs:
            if valid & set(artists):
                valid |= set(artists)
    chosen = [song for song in songs if song[2] == 2 and "/" not in song[1]]
    return {f"{song[0]:07d}": "valid" if song[3][0] in valid else "train" for song in chosen}


def naive_emomusic(songs):
    """Split of the songs (id, artist, is evaluation)."""
    found = {}
    for number, artist, evaluation in songs:
        letters = [c for c in artist.lower() if c in "abcdefghijklmnopqrstuvwxyz \t"]
        name = " ".join("".join(letters).split())
        share = int.from_bytes(hashlib.sha1(name.encode("ascii")).digest(), "big") % 10
        found[f"{number:04d}"] = "test" if evaluation else "train" if share < 8 else "valid"
    return found


def giantsteps(folder, songs):
    home = folder / "giantsteps-mtg-key-dataset" / "annotations"
    home.mkdir(parents=True)
    lines = ["ID\tMANUAL KEY\tC", *(f"{n}\t{key}\t{sure}" for n, key, sure, _ in songs)]
    (home / "annotations.txt").write_text("\n".join(lines))
    lines = ["ID\tARTIST\tSONG TITLE", *(f"{n}\t{', '.join(artists)}\tx" for n, _, _, artists in songs)]
    (home / "beatport_metadata.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("seed", range(3))
def test_giantsteps_splits_equal_a_second_implementation(tmp_path, seed):
    g = random.Random(seed)
    names = [f"{g.choice(['DJ', 'Émile', 'the', 'MC'])} {g.randrange(10**6)}" for _ in range(400)]
    songs = [
        (
            5061 + 7 * i,
            g.choice([*KEYS, "C minor / F# minor"]),
            g.choice([0, 1, 2, 2, 2]),
            g.sample(names, g.choice([1, 1, 1, 2, 3])),
        )
        for i in range(1000)
    ]
    giantsteps(tmp_path, songs)
    rows = list(GiantStepsKey(tmp_path).listed())
    assert {row["id"]: row["split"] for row in rows} == naive_giantsteps(songs)
    assert all(sizes(rows)[:2])
    assert all(len(found) == 1 for found in sides(rows, "artist").values())


@pytest.mark.parametrize("seed", range(3))
def test_emomusic_splits_equal_a_second_implementation(tmp_path, seed):
    g = random.Random(seed)
    letters = "abc dé ñ-1\t'&Z"
    artists = ["".join(g.choices(letters, k=g.randrange(1, 12))) for _ in range(300)]
    songs = [(2 + i, g.choice(artists), g.random() < 0.17) for i in range(744)]
    with (tmp_path / SONGS).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["song_id", "Artist", "Song title", "Genre", "Mediaeval 2013 set"])
        table.writerows([n, artist, "x", "y", "evaluation" if e else "development"] for n, artist, e in songs)
    with (tmp_path / RATINGS).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["song_id", "mean_arousal", "mean_valence"])
        table.writerows([n, 1 + g.random(), 1 + g.random()] for n, _, _ in songs)
    rows = list(Emomusic(tmp_path).listed())
    assert {row["id"]: row["split"] for row in rows} == naive_emomusic(songs)
    assert all(len(found) == 1 for found in sides(rows, "artist").values())


def test_gtzan_splits_share_no_clip():
    """The published lists come with torchaudio; nothing of them is made up."""
    rows = list(Gtzan(".").listed())
    assert sizes(rows) == (443, 197, 290)
    assert all(len(found) == 1 for found in sides(rows, "id", ("train", "valid", "test")).values())


# --- the published files


def published(name):
    folder = Path(str(LABELS)) / name
    assert folder.is_dir(), f"{folder}: TONNETZ_LABELS lacks it"
    return folder


@needs_labels
def test_published_magnatagatune():
    rows = list(MagnaTagATune(published("magnatagatune")).listed())
    assert sizes(rows) == (18_706, 1_825, 5_329)
    assert sizes(list(MagnaTagATune(published("magnatagatune"), protocol="clean").listed())) == (15_247, 1_529, 4_332)
    every = sides(rows, "group", ("train", "valid", "test"))
    assert len(every) == 5_405  # recordings
    assert all(len(found) == 1 for found in every.values())
    assert len({row["artist"] for row in rows}) == 230
    counts = collections.Counter(tag for row in rows for tag in row["labels"])
    assert set(counts) == set(TAGS)
    assert min(counts.values()) >= 490


@needs_labels
def test_published_giantsteps():
    rows = list(GiantStepsKey(published("giantsteps")).listed())
    assert sizes(rows) == (923, 236, 604)
    assert all(len(found) == 1 for found in sides(rows, "artist").values())
    keys = collections.Counter(row["labels"][0] for row in rows)
    modes, tonics = (collections.Counter(row[column] for row in rows) for column in ("mode", "tonic"))
    assert (keys["F minor"], keys["B major"], modes["minor"], modes["major"]) == (176, 27, 1_293, 470)
    assert (tonics["F"], tonics["Db"]) == (214, 140)


@needs_labels
def test_published_emomusic():
    rows = list(Emomusic(published("emomusic")).listed())
    assert sizes(rows) == (504, 115, 125)
    assert all(len(found) == 1 for found in sides(rows, "artist").values())
    values = np.array([[row["arousal"], row["valence"]] for row in rows])
    expected = ([-2.277, -2.689], [2.629, 2.492], [0.022, 0.026], [0.992, 0.992])
    for measure, wanted in zip((np.min, np.max, np.mean, np.std), expected, strict=True):
        np.testing.assert_allclose(measure(values, 0), wanted, atol=6e-4)
