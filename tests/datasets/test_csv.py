from __future__ import annotations

import pytest

from tonnetz.datasets.table import Csv
from tonnetz.errors import UserError
from tonnetz.tracks import label_matrix, table


@pytest.fixture
def make(tone, tmp_path):
    def write(text: str, **options) -> Csv:
        for name in ("a.wav", "sub/b.flac", "c.ogg"):
            tone(name)
        (tmp_path / "list.csv").write_bytes(text.encode())
        return Csv(tmp_path / "list.csv", **options)

    return write


def test_label_column(make, tmp_path):
    corpus = make("file,label,work,year\r\na.wav,oboe,W1,1901\r\nsub/b.flac, flute ; oboe|oboe,,\r\nc.ogg,,,\r\n")
    corpus.fetch()
    frame = table(corpus.tracks())
    assert frame["id"].to_list() == ["a", "sub/b", "c"]
    assert frame["labels"].to_list() == [["oboe"], ["flute", "oboe"], None]
    assert frame["work"].to_list() == ["W1", None, None]
    assert frame["year"].to_list() == ["1901", None, None]
    assert frame["path"].to_list()[1] == str(tmp_path / "sub/b.flac")
    assert corpus.multilabel


def test_class_columns_in_any_order_with_unknown_cells(make):
    corpus = make("\ufeffvoi,file,cel,split\n1,a.wav,,train\n0.0,sub/b.flac,1.0,val\nnan,c.ogg,NaN,\n")
    frame = table(corpus.tracks())
    matrix = label_matrix(frame, ["cel", "voi"])
    assert str(matrix.tolist()) == "[[nan, 1.0], [1.0, 0.0], [nan, nan]]"
    assert frame["split"].to_list() == ["train", "valid", None]
    assert corpus.multilabel


def test_single_labels_in_class_columns_are_not_multilabel(make):
    corpus = make("file,cel,voi\na.wav,1,0\nc.ogg,0,1\n")
    assert not corpus.multilabel
    assert [row["labels"] for row in corpus.tracks()] == [["cel"], ["voi"]]


def test_classes_leave_other_columns_alone(make):
    corpus = make("file,cel,voi,mood\na.wav,1,0,calm\n", classes=["voi", "cel"])
    assert next(corpus.tracks())["labels"] == ["cel"]
    assert next(corpus.tracks())["mood"] == "calm"
    with pytest.raises(UserError, match=r"data.corpus.classes: .* no column 'cell'; did you mean 'cel'\?"):
        list(make("file,cel\na.wav,1\n", classes=["cell"]).tracks())


def test_unlabelled(make):
    frame = table(make("path\na.wav\nc.ogg\n").tracks())
    assert frame["labels"].to_list() == [None, None]


def test_excerpts_of_a_file(make):
    corpus = make("file,label,offset,duration,fold\na.wav,x,0,0.5,1\na.wav,y,0.5,,2\n")
    frame = table(corpus.tracks())
    assert frame["id"].to_list() == ["a", "a@0.5"]
    assert frame["offset"].to_list() == [0.0, 0.5]
    assert frame["duration"].to_list() == [0.5, None]
    assert frame["fold"].to_list() == [1, 2]


def test_root_may_be_the_folder(make, tmp_path):
    make("file\na.wav\n")
    corpus = Csv(tmp_path, file="list.csv")
    corpus.fetch()
    assert [row["id"] for row in corpus.tracks()] == ["a"]
    with pytest.raises(UserError, match=r": a folder; give the CSV file"):
        Csv(tmp_path).fetch()
    with pytest.raises(UserError, match=r"none\.csv: no such CSV file"):
        Csv(tmp_path / "none.csv").fetch()


def test_absolute_paths_and_tabs(make, tmp_path):
    corpus = make(f"id\tfile\nfirst\t{tmp_path / 'a.wav'}\n")
    assert next(corpus.tracks())["id"] == "first"
    assert next(corpus.tracks())["path"] == str(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,cel\na.wav,1\n", " line 1: no column file"),
        ("file,cel\na.wav,0.5\n", " line 2: column 'cel' holds '0.5'"),
        ("file,cel\na.wav,1\nc.ogg,2\n", " line 3: column 'cel' holds '2'"),
        ("file,cel\na.wav,1\na.wav,1\n", " line 3: a.wav is in line 2 already"),
        ("file,cel\na.wav,1\n./a.wav,1\n", " line 3: a.wav is in line 2 already"),
        ("file,cel\na.wav,1\nmissing.wav,1\n", " line 3: no such audio file: "),
        ("file,cel\n,1\n", " line 2: no such audio file: "),
        ("file,label,id\na.wav,x,1\nc.ogg,x,1\n", " line 3: id '1' is in line 2 already"),
        ("file,label,offset\na.wav,x,soon\n", " line 2: offset 'soon' is not a number"),
        ("file,label,offset\na.wav,x,-1\n", " line 2: offset -1 must be a number from 0 up"),
        ("file,label,offset\na.wav,x,nan\n", " line 2: offset nan must be a number from 0 up"),
        ("file,label,split\na.wav,x,late\n", " line 2: split 'late' is unknown"),
        ("file,label\na.wav,x,y\n", " line 2: 3 cells, but line 1 names 2"),
        ("file,cel\n", ": lists no audio files"),
        ("", ": the file is empty"),
    ],
)
def test_bad_list_names_file_and_line(make, text, message):
    corpus = make(text)
    with pytest.raises(UserError) as caught:
        list(corpus.tracks())
    assert str(caught.value).startswith(f"{corpus.path}{message}")
    assert "\n" not in str(caught.value)


def test_binary_file_is_no_list(make, tmp_path):
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        list(Csv(tmp_path / "a.wav").tracks() if make("file\n") else ())


def test_a_list_in_another_encoding_is_told_how_to_be_saved(make, tmp_path):
    corpus = make("file\n")
    corpus.path.write_bytes("file,work\na.wav,Präludium\n".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        list(corpus.tracks())
    assert str(caught.value) == f"{corpus.path}: not a CSV file in UTF-8; save it anew as 'CSV UTF-8'"
