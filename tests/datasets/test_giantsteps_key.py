from __future__ import annotations

import hashlib
import shutil
import zipfile
from itertools import pairwise

import pytest

from tonnetz.datasets import giantsteps_key
from tonnetz.datasets.giantsteps_key import KEY, MTG, GiantStepsKey, artist_splits
from tonnetz.errors import UserError
from tonnetz.metrics.key import KEYS
from tonnetz.tracks import check_disjoint, table

SONGS = (  # id, key, confidence, artists
    ("5061", "D# minor", "2", "Anna"),
    ("10981", "-", "0", "Anna"),
    ("61578", "C minor / F# minor", "2", "Anna"),
    ("16484", "A minor", "1", "Anna"),
    ("37779", "A# major", "2", "Ben, Anna"),
    ("58226", "C# major", "2", "Carl"),
    ("5881", "A major", "2", "Carl"),
)


def share(name):
    return int.from_bytes(hashlib.sha1(name.lower().encode()).digest(), "big") % 116


def named(lower, upper):
    """An artist whose share lies in [lower, upper)."""
    return next(name for name in (f"Artist {i}" for i in range(1000)) if lower <= share(name) < upper)


@pytest.fixture
def mtg(tone, tmp_path):
    home = tmp_path / "giantsteps-mtg-key-dataset"
    (home / "annotations/genre").mkdir(parents=True)
    lines = ["ID\tMANUAL KEY\tC", *("\t".join(song[:3]) for song in SONGS)]
    (home / "annotations/annotations.txt").write_text("\n".join(lines) + "\n")
    lines = ["ID\tARTIST\tSONG TITLE", *(f"{song[0]}\t{song[3]}\tx" for song in SONGS)]
    (home / "annotations/beatport_metadata.txt").write_text("\n".join(lines) + "\n")
    (home / "annotations/genre/5061.LOFI.genre").write_text("trance\n")
    for song in SONGS:
        tone(f"giantsteps-mtg-key-dataset/audio/{song[0]}.LOFI.wav")
    return home


@pytest.fixture
def keys(tone, tmp_path):
    home = tmp_path / "giantsteps-key-dataset"
    (home / "annotations/key").mkdir(parents=True)
    for number, key in (("1234749", "Bb major"), ("677299", "F# minor")):
        (home / f"annotations/key/{number}.LOFI.key").write_text(key)
        tone(f"giantsteps-key-dataset/audio/{number}.LOFI.wav")
    return home


def test_rows(mtg, keys, tmp_path):
    corpus = GiantStepsKey(tmp_path)
    frame = table(corpus.tracks())
    assert frame["id"].to_list() == ["0005061", "0037779", "0058226", "0005881", "1234749", "0677299"]
    assert frame["labels"].explode().to_list() == [
        "Eb minor",
        "Bb major",
        "Db major",
        "A major",
        "Bb major",
        "Gb minor",
    ]
    assert frame["tonic"].to_list() == ["Eb", "Bb", "Db", "A", "Bb", "Gb"]
    assert frame["mode"].to_list() == ["minor", "major", "major", "major", "major", "minor"]
    assert frame["split"].to_list()[4:] == ["test", "test"]
    assert set(frame["split"][:4]) <= {"train", "valid"}
    assert frame["genre"].to_list() == ["trance", *[None] * 5]
    assert frame["artist"].to_list() == ["anna", "ben, anna", "carl", "carl", None, None]
    assert not corpus.multilabel
    check_disjoint(frame)
    assert set(frame["labels"].explode()) <= set(KEYS)


def test_artists_share_a_split():
    train, valid = named(0, 100), named(100, 116)
    assert artist_splits([[train], [valid]]) == {train: "train", valid: "valid"}
    assert artist_splits([[train], [train, valid]])[train] == "valid"  # has made a song with one of valid
    other = next(name for name in (f"Other {i}" for i in range(1000)) if share(name) < 100)
    third = next(name for name in (f"Third {i}" for i in range(1000)) if share(name) < 100)
    chain = [[third, other], [other, train], [train, valid]]  # found backwards: a step a pass
    assert artist_splits(chain) == {third: "train", other: "valid", train: "valid", valid: "valid"}
    assert set(artist_splits(chain[::-1]).values()) == {"valid"}


def test_sixteen_of_116_artists_are_valid():
    names = [f"name {i}" for i in range(5000)]
    splits = artist_splits([[name] for name in names])
    assert all((splits[name] == "valid") == (share(name) >= 100) for name in names)
    assert sum(split == "valid" for split in splits.values()) / 5000 == pytest.approx(16 / 116, abs=0.02)


def test_no_artist_is_in_two_splits(mtg, keys, tmp_path):
    rows = ["ID\tARTIST", *(f"{song[0]}\t{name}" for song, name in zip(SONGS, "abcdefg", strict=True))]
    (mtg / "annotations/beatport_metadata.txt").write_text("\n".join(rows))
    frame = table(GiantStepsKey(tmp_path).tracks()).filter(split="train")
    assert all(share(name) < 100 for name in frame["artist"])


def test_one_dataset_alone(mtg, keys, tmp_path):
    assert set(table(GiantStepsKey(mtg).tracks())["split"]) <= {"train", "valid"}
    assert set(table(GiantStepsKey(keys).tracks())["split"]) == {"test"}


def test_missing_audio_is_counted(mtg, keys, tmp_path):
    (mtg / "audio/5061.LOFI.wav").unlink()
    corpus = GiantStepsKey(tmp_path)
    assert len(list(corpus.tracks())) == 5
    assert corpus.coverage["missing"] == ["0005061"]


def test_download_checks_md5(mtg, keys, tmp_path, served, capsys):
    (mtg / "md5").mkdir()
    for song in SONGS:
        path = mtg / f"audio/{song[0]}.LOFI.wav"
        data = path.read_bytes() + song[0].encode()
        (served.folder / f"{song[0]}.LOFI.mp3").write_bytes(data)
        (mtg / f"md5/{song[0]}.LOFI.md5").write_text(hashlib.md5(data).hexdigest() + "\n")
        path.unlink()
    for path in (keys / "audio").iterdir():
        path.rename(served.folder / path.name.replace(".wav", ".mp3"))  # without checksums
    home = tmp_path / "both"
    home.mkdir()
    for path in (mtg, keys):
        path.rename(home / path.name)
    corpus = GiantStepsKey(home, download=True, url=f"{served.url}/")
    steps = []
    corpus.fetch(lambda *step: steps.append(step))
    assert steps[-1] == (6, 6)  # songs without a sure key are not fetched
    assert sorted(served.asked) == sorted(f"/{n}.LOFI.mp3" for n in (5061, 37779, 58226, 5881, 1234749, 677299))
    corpus.fetch()
    assert len(served.asked) == 6
    assert len(list(corpus.tracks())) == 6
    broken = home / mtg.name / "audio/5061.LOFI.mp3"
    broken.unlink()
    (served.folder / broken.name).write_bytes(b"another")
    with pytest.raises(UserError, match=r"5061\.LOFI\.mp3: its checksum is"):
        corpus.fetch()
    assert not broken.exists()
    (served.folder / broken.name).unlink()
    corpus.fetch()
    assert "1 of 1 previews are not to be had, the first: http" in capsys.readouterr().out


def test_mistakes(mtg, keys, tmp_path):
    with pytest.raises(
        UserError, match=r"neither giantsteps-key-dataset .*; clone them there, or data\.corpus\.download=true"
    ):
        GiantStepsKey(tmp_path / "nowhere").tracks()
    (keys / "annotations/key/677299.LOFI.key").write_text("H minor")
    with pytest.raises(UserError, match=r"677299\.LOFI\.key: song 677299: 'H minor': is no key"):
        GiantStepsKey(tmp_path).tracks()
    (keys / "annotations/key/677299.LOFI.key").write_text("F minor")
    metadata = mtg / "annotations/beatport_metadata.txt"
    metadata.write_text("ID\tARTIST\n5061\tAnna\n")
    with pytest.raises(UserError, match=r"beatport_metadata\.txt: no line for song 37779"):
        GiantStepsKey(tmp_path).tracks()
    metadata.unlink()
    with pytest.raises(UserError, match=r"beatport_metadata\.txt: no such table"):
        GiantStepsKey(tmp_path).tracks()


def test_published_clips(mtg, keys, tmp_path):
    """Windows of 30 s, the rest dropped: a preview of 125 s is four clips of one song."""
    import numpy as np
    import soundfile

    from tonnetz.data.prepare import prepare
    from tonnetz.data.segmentation import window_rows

    noise = np.random.default_rng(0).normal(0, 0.1, 125 * 1000)
    soundfile.write(keys / "audio/677299.LOFI.wav", noise, 1000)
    soundfile.write(keys / "audio/1234749.LOFI.wav", noise[: 29 * 1000], 1000)
    frame = prepare(GiantStepsKey(keys), tmp_path / "cache", 1000)
    clips = window_rows(frame, 1000, seconds=30.0, hop=30.0, gate=None, short="drop")
    assert clips["id"].to_list() == ["0677299@0", "0677299@30", "0677299@60", "0677299@90"]
    assert set(clips["group"]) == {"0677299"}
    assert all(later - earlier == 30 * 1000 for earlier, later in pairwise(clips["first"]))


def test_annotations_and_previews_from_nothing(mtg, keys, tmp_path, served, monkeypatch):
    """Archives of the annotations as GitHub packs them, then the previews of each dataset from its own address."""
    for home, name in ((mtg, MTG), (keys, KEY)):
        shutil.move(home / "audio", served.folder / name / "audio")
        for path in (served.folder / name / "audio").iterdir():
            path.rename(path.with_suffix(".mp3"))
        with zipfile.ZipFile(served.folder / name / "master.zip", "w") as archive:
            for path in sorted(path for path in home.rglob("*") if path.is_file()):
                archive.write(path, f"{name}-master/{path.relative_to(home)}")
        shutil.rmtree(home)
    monkeypatch.setattr(giantsteps_key, "ANNOTATIONS", served.url + "/{}")
    monkeypatch.setattr(GiantStepsKey, "home", f"{served.url}/{MTG}/audio")
    monkeypatch.setattr(GiantStepsKey, "backup", f"{served.url}/{KEY}/audio")
    corpus = GiantStepsKey(tmp_path / "new", download=True)
    (served.folder / MTG).rename(served.folder / "away")
    with pytest.raises(UserError, match=r"master\.zip: 404"):
        corpus.fetch()
    (served.folder / "away").rename(served.folder / MTG)
    for _ in range(2):
        corpus.fetch()
    assert len(served.asked) == 3 + 6
    assert len(list(corpus.tracks())) == 6
    assert (tmp_path / "new" / MTG / f"{MTG}-master/audio/5061.LOFI.mp3").is_file()
