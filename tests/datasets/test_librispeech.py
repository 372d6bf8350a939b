from __future__ import annotations

import tarfile

import pytest

from tonnetz.datasets import librispeech
from tonnetz.datasets.assets import digest
from tonnetz.datasets.librispeech import LibriSpeech
from tonnetz.errors import UserError
from tonnetz.tracks import check_disjoint, split_tracks, table

FILES = (
    "train-clean-100/19/198",
    "train-clean-100/19/227",
    "train-clean-100/26/495",
    "dev-clean/84/121123",
    "test-clean/61/70968",
)


@pytest.fixture
def home(tone, tmp_path):
    for place in FILES:
        _, speaker, chapter = place.split("/")
        for number in range(2):
            tone(f"LibriSpeech/{place}/{speaker}-{chapter}-{number:04d}.flac")
    return tmp_path


@pytest.fixture
def speakers(home):
    lines = [
        "; ID |SEX| SUBSET |MINUTES| NAME",
        *(f"{n:<5}| {s} | x | 25.1 | A | B" for n, s in ((19, "F"), (26, "M"), (84, "F"), (61, "M"))),
    ]
    (home / "LibriSpeech/SPEAKERS.TXT").write_text("\n".join(lines) + "\n")


def test_rows(home):
    frame = table(LibriSpeech(home).tracks()).sort("id")
    assert frame.height == 10
    rows = {row["id"]: row for row in frame.iter_rows(named=True)}
    row = rows["19-227-0001"]
    assert (row["artist"], row["group"], row["split"], row["part"]) == ("19", "19-227", "train", "train-clean-100")
    assert (rows["84-121123-0000"]["split"], rows["61-70968-0000"]["split"]) == ("valid", "test")
    assert row["labels"] is None
    assert row["path"].endswith("LibriSpeech/train-clean-100/19/227/19-227-0001.flac")
    check_disjoint(frame)
    assert table(LibriSpeech(home / "LibriSpeech/train-clean-100").tracks()).height == 6


def test_parts(home):
    frame = table(LibriSpeech(home, parts=["train-clean-100", "test-clean"]).tracks())
    assert set(frame["split"]) == {"train", "test"}
    with pytest.raises(UserError, match=r"data\.corpus\.parts=\['train-other-500'\]: .* has none of them"):
        LibriSpeech(home, parts=["train-other-500"]).tracks()


def test_speakers_are_told_apart_within_a_part(home):
    frame = table(LibriSpeech(home, label="speaker", parts=["train-clean-100"]).tracks())
    assert frame["labels"].explode().to_list() == ["19"] * 4 + ["26"] * 2
    assert frame["split"].null_count() == 6
    divided = split_tracks(frame, 0.3, 0.0, 0)
    check_disjoint(divided)
    assert set(divided["split"]) == {"train", "valid"}


def test_sex(home, speakers):
    frame = table(LibriSpeech(home, label="sex").tracks())
    assert dict(zip(frame["artist"], frame["labels"].list.first(), strict=True)) == {
        "19": "F",
        "26": "M",
        "84": "F",
        "61": "M",
    }
    assert set(frame["split"]) == {"train", "valid", "test"}


def test_mistakes(home, tone):
    with pytest.raises(UserError, match="known are speaker, sex, null"):
        LibriSpeech(home, label="age")
    with pytest.raises(UserError, match=r"SPEAKERS\.TXT, which says the sex of speaker"):
        LibriSpeech(home, label="sex").tracks()
    tone("LibriSpeech/train-clean-100/19/198/20-198-0000.flac")
    with pytest.raises(UserError, match=r"20-198-0000\.flac: is no train-\*, dev-\* or test-\*/SPEAKER/CHAPTER"):
        LibriSpeech(home).tracks()
    with pytest.raises(UserError, match="no audio files"):
        LibriSpeech(home / "nowhere").tracks()


def test_download(home, tmp_path, served, monkeypatch):
    """Only parts that are named, and not there yet, wherever they lie."""
    for part in ("dev-clean", "test-clean"):
        with tarfile.open(served.folder / f"{part}.tar.gz", "w:gz") as archive:
            archive.add(home / "LibriSpeech" / part, f"LibriSpeech/{part}")
    new, parts = tmp_path / "new", ["dev-clean", "test-clean"]
    (new / "LibriSpeech").mkdir(parents=True)
    (home / "LibriSpeech/test-clean").rename(new / "LibriSpeech/test-clean")
    corpus = LibriSpeech(new, parts=parts, download=True, url=served.url)
    with pytest.raises(UserError, match=r"dev-clean\.tar\.gz: its checksum is .*, not 76f87d09"):
        corpus.fetch()  # of the published archive
    monkeypatch.setitem(librispeech.ARCHIVES, "dev-clean", digest(served.folder / "dev-clean.tar.gz", 64 * "0"))
    for _ in range(2):
        corpus.fetch()
    assert served.asked == ["/dev-clean.tar.gz"] * 2
    assert {row["part"] for row in corpus.tracks()} == set(parts)
    with pytest.raises(UserError, match=r"data\.corpus\.parts: say which to fetch, of dev-clean"):
        LibriSpeech(new, download=True).fetch()
    with pytest.raises(UserError, match=r"no part 'dev-clear' of LibriSpeech; did you mean 'dev-clean'"):
        LibriSpeech(new, parts=["dev-clear"], download=True).fetch()
