from __future__ import annotations

import pytest

from tonnetz.datasets.folder import Folder
from tonnetz.errors import UserError
from tonnetz.tracks import table


def test_class_is_the_folder_under_the_root(tone, tmp_path):
    for name in (
        "oboe/a.wav",
        "oboe/deep/er/b.flac",
        "Cor anglais/c.ogg",
        ".hidden/d.wav",
        "oboe/notes.wav.bak/.e.wav",
    ):
        tone(name)
    (tmp_path / "oboe/readme.txt").write_text("no audio")
    frame = table(Folder(tmp_path).tracks()).sort("id")
    assert frame["id"].to_list() == ["Cor anglais/c", "oboe/a", "oboe/deep/er/b"]
    assert frame["labels"].to_list() == [["Cor anglais"], ["oboe"], ["oboe"]]
    assert frame["path"].to_list()[1] == str(tmp_path / "oboe/a.wav")
    assert frame["split"].to_list() == [None] * 3


def test_ids_keep_the_extension_only_where_they_would_clash(tone, tmp_path):
    for name in ("x/a.wav", "x/a.flac", "x/b.wav"):
        tone(name)
    assert sorted(row["id"] for row in Folder(tmp_path).tracks()) == ["x/a.flac", "x/a.wav", "x/b"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), ["train", "valid", "test"]),
        (("Training", "validation", "testing"), ["train", "valid", "test"]),
        (("train", "eval", "test"), ["train", "valid", "test"]),
        (("train", "eval"), [None, "test"]),  # validation is carved out of training
        (("train", "valid"), [None, "valid"]),
        (("train",), [None]),
    ],
)
def test_official_splits(tone, tmp_path, folders, expected):
    for name in folders:
        tone(f"{name}/oboe/a.wav")
    rows = {row["id"]: row for row in Folder(tmp_path).tracks()}
    assert [rows[f"{name}/oboe/a"]["split"] for name in folders] == expected
    assert all(row["labels"] == ["oboe"] for row in rows.values())


def test_a_class_named_test_is_a_class_when_others_are_no_splits(tone, tmp_path):
    for name in ("test/a.wav", "train/b.wav", "oboe/c.wav"):
        tone(name)
    assert {(row["labels"][0], row["split"]) for row in Folder(tmp_path).tracks()} == {
        ("test", None),
        ("train", None),
        ("oboe", None),
    }


def test_unlabelled(tone, tmp_path):
    for name in ("a.wav", "x/b.wav"):
        tone(name)
    frame = table(Folder(tmp_path, labelled=False).tracks())
    assert frame["labels"].to_list() == [None, None]
    with pytest.raises(UserError, match=r"a\.wav: lies in no class folder; .*labelled=false$"):
        list(Folder(tmp_path).tracks())


def test_file_right_under_a_split_has_no_class(tone, tmp_path):
    for name in ("train/a.wav", "test/x/b.wav"):
        tone(name)
    with pytest.raises(UserError, match=r"train/a\.wav: lies in no class folder"):
        list(Folder(tmp_path).tracks())
    assert [r["split"] for r in Folder(tmp_path, labelled=False).tracks()] == ["test", None]


def test_empty_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        list(Folder(tmp_path).tracks())
    assert str(caught.value).startswith(f"{tmp_path}: no audio files (wav, flac, ")
    assert str(caught.value).count("under it") == 1


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        Folder(tmp_path / "none").fetch()


def test_metadata(tone, tmp_path):
    for name in ("x/a.wav", "x/b.wav", "y/a.wav"):
        tone(name)
    (tmp_path / "facts.csv").write_text("filename;Split;work;mood\nb.wav;val;W1;calm\nx/a.wav;;W2;\n")
    rows = {row["id"]: row for row in Folder(tmp_path, metadata="facts.csv").tracks()}
    assert (rows["x/b"]["split"], rows["x/b"]["work"], rows["x/b"]["mood"]) == ("valid", "W1", "calm")
    assert (rows["x/a"]["split"], rows["x/a"]["work"]) == (None, "W2")
    assert "work" not in rows["y/a"]
    assert table(rows.values()).filter(id="y/a")["work"].to_list() == [None]


@pytest.mark.parametrize("level", ["class", "work"])
def test_a_row_whose_file_is_not_there_is_refused(tone, tmp_path, level):
    for name in ("x/a.wav", "x/b.wav", "y/c_right.wav"):
        tone(name)
    sheet = tmp_path / "works.csv"
    sheet.write_text("file,work,split\na.wav,X,train\nc_rihgt.wav,Y,test\ny/d.wav,Y,train\n")
    with pytest.raises(UserError) as caught:
        list(Folder(tmp_path, level=level, metadata="works.csv").tracks())
    assert str(caught.value) == (
        f"{sheet} line 3: no such audio file: {tmp_path}/c_rihgt.wav; near ones: y/c_right.wav; "
        "correct the row, or remove it (2 such rows in all)"
    )
    sheet.write_text("file,work,split\na.wav,X,train\nc_right.wav,Y,test\n")
    rows = {row["id"]: row for row in Folder(tmp_path, level=level, metadata="works.csv").tracks()}
    assert [rows[name]["split"] for name in ("x/a", "x/b", "y/c_right")] == ["train", None, "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,work\na.wav,W\n", ": no column file"),
        ("file,work\na.wav,W\n", " line 2: 'a.wav' is the name of 2 files"),
        ("file,work\nb.wav,W\nx/b.wav,W\n", " line 3: 'x/b.wav' has a row already"),
        ("file,split\nb.wav,later\n", " line 2: split 'later' is unknown"),
        ("file,fold\nb.wav,one\n", " line 2: fold 'one' is not a number"),
        ("file,work\nq.wav,W\n", ": names no audio file under"),
        ("file,work\nb.wav\n", " line 2: 1 cells, but line 1 names 2"),
        ("file,work,work\n", " line 1: column 'work' is nameless or there twice"),
        ("", ": the file is empty"),
    ],
)
def test_bad_metadata(tone, tmp_path, text, message):
    for name in ("x/a.wav", "x/b.wav", "y/a.wav"):
        tone(name)
    path = tmp_path / "facts.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(Folder(tmp_path, metadata="facts.csv").tracks())
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_missing_metadata(tone, tmp_path):
    tone("x/a.wav")
    with pytest.raises(UserError, match=r"none\.csv: no such CSV file"):
        list(Folder(tmp_path, metadata="none.csv").tracks())


def test_a_sub_folder_is_a_work(tone, tmp_path):
    for name in ("Kyrie/1950.wav", "Kyrie/deep/1960.ogg", "Gloria/a.mp3"):
        tone(name)
    frame = table(Folder(tmp_path, level="work").tracks()).sort("id")
    assert frame["work"].to_list() == ["Gloria", "Kyrie", "Kyrie"]
    assert frame["group"].to_list() == frame["id"].to_list() == ["Gloria/a", "Kyrie/1950", "Kyrie/deep/1960"]
    assert frame["labels"].to_list() == [None] * 3
    with pytest.raises(UserError, match="known are class, work"):
        Folder(tmp_path, level="wrok")


def test_works_by_folder_and_spreadsheet(tone, tmp_path):
    for name in ("Kyrie/1950.wav", "loose.wav", "Kyrie/odd.wav"):
        tone(name)
    with pytest.raises(UserError, match=r"loose\.wav: lies in no folder of a work; .*metadata=FILE\.csv$"):
        list(Folder(tmp_path, level="work").tracks())
    (tmp_path / "works.csv").write_text("file,work,singer\nloose.wav,Sanctus,Ana\nodd.wav,Agnus,\n")
    rows = {row["id"]: row for row in Folder(tmp_path, level="work", metadata="works.csv").tracks()}
    assert {name: row["work"] for name, row in rows.items()} == {
        "Kyrie/1950": "Kyrie",
        "loose": "Sanctus",
        "Kyrie/odd": "Agnus",
    }
    assert rows["loose"]["singer"] == "Ana"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,wrok\na.wav,X\n", "{root}/works.csv line 1: no column work (it has file, wrok), and {root}/a.wav lies"),
        ("file,Work\na.wav,\n", "{root}/a.wav: lies in no folder of a work; put it into one, or write its work into {"),
    ],
)
def test_a_spreadsheet_that_names_no_work_is_said_to(tone, tmp_path, text, message):
    tone("a.wav")
    (tmp_path / "works.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        list(Folder(tmp_path, level="work", metadata="works.csv").tracks())
    assert str(caught.value).startswith(message.removesuffix("{").format(root=tmp_path))
