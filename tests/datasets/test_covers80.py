from __future__ import annotations

import pytest

from tonnetz.data.prepare import prepare
from tonnetz.datasets.covers80 import Covers80
from tonnetz.errors import UserError
from tonnetz.tracks import table

HERE = ("Abracadabra/steve_miller_band+Live+09-Abracadabra", "Abracadabra/sugar_ray+14_59+06-Abracadabra", "Aï/x+y+1")


@pytest.fixture
def home(tone, tmp_path):
    """Three recordings, one of them in no list, and a listed one that is not there."""
    for name in HERE:
        tone(f"coversongs/covers32k/{name}.mp3")
    home = tmp_path / "coversongs" / "covers32k"
    (home / "list1.list").write_text(f"{HERE[0]}\nCaroline_No/beach_boys+Pet_Sounds+13-Caroline_No\n")
    (home / "list2.list").write_text(f"{HERE[1]}.mp3\r\n")
    return home


@pytest.mark.parametrize("up", [0, 1, 2])
def test_works_lists_and_coverage(home, tmp_path, capsys, up):
    corpus = Covers80([home, home.parent, tmp_path][up] if up < 2 else home.parent)
    frame = table(corpus.tracks())
    assert capsys.readouterr().out == "covers80: 3 of 4 recordings found (75.0 %)\n"
    assert frame["id"].to_list() == list(HERE)
    assert frame["work"].to_list() == ["Abracadabra", "Abracadabra", "Aï"]
    assert frame["group"].to_list() == list(HERE)
    assert frame["artist"].to_list() == ["steve_miller_band", "sugar_ray", "x"]
    assert frame["list"].to_list() == ["A", "B", None]
    assert frame["labels"].to_list() == frame["split"].to_list() == [None] * 3
    assert corpus.coverage["missing"] == ["Caroline_No/beach_boys+Pet_Sounds+13-Caroline_No"]
    assert (corpus.coverage["works"], corpus.coverage["works_listed"]) == (2, 3)
    key = corpus.key
    list(corpus.tracks())
    assert capsys.readouterr().out == ""  # said once
    assert corpus.key == key == Covers80(corpus.root, missing="fail").key


def test_audio_elsewhere(home, tmp_path):
    (home / HERE[0]).parent.rename(tmp_path / "wav")
    rows = {row["id"]: row for row in Covers80(home, audio=str(tmp_path / "wav")).tracks()}
    assert rows[HERE[0]]["path"] == str(tmp_path / "wav" / "steve_miller_band+Live+09-Abracadabra.mp3")


def test_missing(home, tmp_path):
    with pytest.raises(
        UserError, match=r"1 of 4 recordings have no audio file, the first: Caroline_No/.*missing=skip$"
    ):
        Covers80(home, missing="fail").tracks()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/list1.list").write_text("a/b\n")
    with pytest.raises(UserError, match=r"1 of 1 recordings have no audio file.*data\.corpus\.audio=FOLDER$"):
        Covers80(tmp_path / "empty").tracks()
    with pytest.raises(UserError, match="known are skip, fail"):
        Covers80(home, missing="skipp")
    with pytest.raises(UserError, match="no such folder"):
        Covers80(home, audio="nowhere").tracks()


def test_prepared(home, tmp_path):
    frame = prepare(Covers80(home, split="test"), tmp_path / "cache", 4000)
    assert frame.height == 3
    assert (frame["samples"] > 300).all()
