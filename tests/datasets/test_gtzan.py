from __future__ import annotations

import tarfile
from collections import Counter

import pytest

from tonnetz.datasets.assets import Asset, digest
from tonnetz.datasets.gtzan import GENRES, Gtzan
from tonnetz.errors import UserError
from tonnetz.tracks import split_tracks, table


@pytest.fixture
def home(tone, tmp_path):
    """Some clips that the lists have, one that they leave out as a repetition (pop.00015 is pop.00022)."""
    names = ("blues.00029", "jazz.00001", "pop.00015", "pop.00022", "rock.00038")
    for name in names:
        tone(f"genres/{name.split('.')[0]}/{name}.au")
    return tmp_path


def test_fault_filtered_lists_have_the_published_sizes(home):
    rows = list(Gtzan(home).listed())
    counts = Counter(row["split"] for row in rows)
    assert (counts["train"], counts["valid"], counts["test"]) == (443, 197, 290)
    assert len({row["id"] for row in rows}) == 930
    assert {row["labels"][0] for row in rows} == set(GENRES)
    most = Counter(row["labels"][0] for row in rows if row["split"] == "test").most_common(1)[0][1]
    assert most / 290 == pytest.approx(0.110, abs=5e-4)  # what guessing one genre scores


def test_rows(home):
    corpus = Gtzan(home)
    frame = table(corpus.tracks())
    assert frame["id"][0] == "blues.00029"
    assert frame["path"][0].endswith("genres/blues/blues.00029.au")
    assert frame["labels"][0].to_list() == ["blues"]
    assert frame["split"].null_count() == 0
    assert corpus.coverage["listed"] == 930


def test_all_clips_are_open_without_lists(home):
    frame = table(Gtzan(home, lists=None).tracks())
    assert frame["id"].to_list() == ["blues.00029", "jazz.00001", "pop.00015", "pop.00022", "rock.00038"]
    assert frame["split"].null_count() == 5
    assert split_tracks(frame, 0.2, 0.2, 0)["split"].null_count() == 0


def test_own_lists(home, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train_filtered.txt").write_text("blues/blues.00029.wav\njazz.00001\n\n")
    (lists / "valid_filtered.txt").write_text("pop.00022.au\n")
    (lists / "test_filtered.txt").write_text("rock/rock.00038.wav\nrock/rock.00039.wav")
    corpus = Gtzan(home, lists=str(lists))
    frame = table(corpus.tracks())
    assert dict(zip(frame["id"], frame["split"], strict=True)) == {
        "blues.00029": "train",
        "jazz.00001": "train",
        "pop.00022": "valid",
        "rock.00038": "test",
    }
    assert corpus.coverage["missing"] == ["rock.00039"]
    (lists / "test_filtered.txt").write_text("rock.00038\njazz.00001\n")
    with pytest.raises(UserError, match=r"test_filtered\.txt line 2: jazz\.00001 is in the list of train already"):
        corpus.tracks()
    (lists / "test_filtered.txt").write_text("polka.00001\n")
    with pytest.raises(UserError, match=r"lists: 'polka\.00001' is not named GENRE\.NNNNN"):
        corpus.tracks()
    (lists / "test_filtered.txt").unlink()
    with pytest.raises(UserError, match=r"lists: 0 files test\*\.txt in it; it needs one"):
        corpus.tracks()


def test_mistakes(home, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no audio files under it; unpack genres\.tar\.gz"):
        Gtzan(tmp_path / "empty", lists=None).tracks()
    with pytest.raises(UserError, match="930 of 930 recordings have no audio file"):
        Gtzan(tmp_path / "empty").tracks()


def test_download(tone, tmp_path, served, monkeypatch):
    """The archive comes from a server on this machine, with the checksum of what it holds."""
    with tarfile.open(served.folder / "genres.tar.gz", "w:gz") as archive:
        archive.add(tone("blues.00029.wav"), "genres/blues/blues.00029.wav")
    corpus = Gtzan(tmp_path / "root", download=True, url=served.url)
    with pytest.raises(UserError, match=r"genres\.tar\.gz: its checksum is .*, not 24347e02"):
        corpus.fetch()  # of the published archive
    checksum = digest(served.folder / "genres.tar.gz", 64 * "0")
    monkeypatch.setattr(Gtzan, "assets", (Asset({"genres.tar.gz": checksum}, into="genres"),))
    monkeypatch.setattr(Gtzan, "home", served.url)
    corpus = Gtzan(tmp_path / "root", download=True)
    corpus.fetch()
    assert table(corpus.tracks())["id"].to_list() == ["blues.00029"]
    with pytest.raises(UserError, match="no such file or folder"):
        Gtzan(tmp_path / "nowhere").fetch()
