from __future__ import annotations

import csv
import zipfile

import pytest

from tonnetz.datasets.assets import Asset
from tonnetz.datasets.fma import COLUMNS, Fma
from tonnetz.errors import UserError
from tonnetz.tracks import table

HEAD = [("", ""), ("album", "comments"), *COLUMNS, ("track", "license")]
ROWS = (  # number, split, subset, top genre, genres, title, artist id, artist, album id
    ("2", "training", "medium", "Hip-Hop", "[21, 10]", "Food", "1", "AWOL", "1"),
    ("5", "validation", "small", "Hip-Hop", "[21]", 'This "World"', "1", "AWOL", "1"),
    ("10", "test", "small", "Pop", "[10]", "Free, way", "6", "Kurt\nVile", "6"),
    ("20", "training", "large", "", "[]", "Spiritual", "4", "Nicky Cook", "4"),
)


def write(path, head, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([[a for a, _ in head], [b for _, b in head], ["track_id", *[""] * (len(head) - 1)], *rows])


@pytest.fixture
def home(tone, tmp_path):
    (tmp_path / "fma_metadata").mkdir()
    rows = [[row[0], "0", *row[1:], "CC"] for row in ROWS]
    write(tmp_path / "fma_metadata/tracks.csv", HEAD, rows)
    (tmp_path / "fma_metadata/genres.csv").write_text("genre_id,#tracks,parent,title\n10,9,0,Pop\n21,8,0,Hip-Hop\n")
    for number in ("000002", "000005", "000010", "000020"):
        tone(f"fma_large/000/{number}.wav")
    return tmp_path


def test_rows_of_each_subset(home):
    frame = table(Fma(home).tracks())
    assert frame["id"].to_list() == ["000005", "000010"]
    assert frame["split"].to_list() == ["valid", "test"]
    assert frame["labels"].to_list() == [["Hip-Hop"], ["Pop"]]
    assert frame["artist"].to_list() == ["AWOL (1)", "Kurt\nVile (6)"]
    assert frame["title"].to_list() == ['This "World"', "Free, way"]
    assert frame["path"][0].endswith("fma_large/000/000005.wav")
    assert table(Fma(home, subset="medium").tracks())["id"].to_list() == ["000002", "000005", "000010"]
    large = table(Fma(home, subset="large").tracks())
    assert large["split"].to_list() == ["train", "valid", "test", "train"]
    assert large["labels"][3] is None


def test_all_genres(home):
    corpus = Fma(home, subset="large", label="all")
    assert corpus.multilabel
    assert table(corpus.tracks())["labels"].to_list() == [["Hip-Hop", "Pop"], ["Hip-Hop"], ["Pop"], []]
    assert not Fma(home).multilabel


def test_missing_audio_is_counted(home):
    (home / "fma_large/000/000005.wav").unlink()
    corpus = Fma(home)
    assert len(list(corpus.tracks())) == 1
    assert corpus.coverage["percent"] == 50.0


def test_mistakes(home):
    path = home / "fma_metadata/tracks.csv"
    with pytest.raises(UserError, match="known are small, medium, large, and top, all"):
        Fma(home, subset="full")
    (home / "fma_metadata/genres.csv").write_text("genre_id,title\n10,Pop\n")
    with pytest.raises(UserError, match=r"tracks\.csv line 4: genre '21' is not in genres\.csv"):
        Fma(home, subset="medium", label="all").tracks()
    write(path, HEAD, [["5", "0", "later", "small", *[""] * 7]])
    with pytest.raises(UserError, match=r"tracks\.csv line 4: split 'later' is unknown"):
        Fma(home).tracks()
    write(path, HEAD, [["5", "0"]])
    with pytest.raises(UserError, match=r"tracks\.csv line 4: 2 cells, not 11"):
        Fma(home).tracks()
    write(path, HEAD[:4], [])
    with pytest.raises(UserError, match=r"lines 1 and 2: no column track genre_top"):
        Fma(home).tracks()
    path.unlink()
    with pytest.raises(UserError, match=r"no tracks\.csv in it; unpack fma_metadata\.zip there"):
        Fma(home).tracks()


def test_download(home, tmp_path, served, monkeypatch):
    """The tables and the clips of the subset, as archives that hold a folder of their own."""
    for name in ("fma_metadata", "fma_large"):
        with zipfile.ZipFile(served.folder / f"{name}.zip", "w") as archive:
            for path in sorted((home / name).rglob("*.*")):
                archive.write(path, path.relative_to(home))
    corpus = Fma(tmp_path / "new", subset="large", download=True, url=served.url)
    with pytest.raises(UserError, match=r"fma_metadata\.zip: its checksum is .*, not f0df49ff"):
        corpus.fetch()  # of the published archive
    assert [list(asset.files) for asset in corpus.wanted()] == [["fma_metadata.zip"], ["fma_large.zip"]]
    unchecked = [Asset(dict.fromkeys(asset.files), asset.into) for asset in corpus.wanted()]
    monkeypatch.setattr(Fma, "wanted", lambda self: unchecked)
    for _ in range(2):
        corpus.fetch()
    assert served.asked == ["/fma_metadata.zip", "/fma_metadata.zip", "/fma_large.zip"]
    assert len(list(corpus.tracks())) == 4
