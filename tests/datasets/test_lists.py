from __future__ import annotations

import pytest

from tonnetz.datasets.lists import read_list
from tonnetz.errors import UserError
from tonnetz.tracks import table, write_table


def test_track_table(tone, tmp_path):
    tone("audio/a.wav")
    write_table(table([{"id": n, "path": f"audio/{n}.wav", "work": "W"} for n in "ab"]), tmp_path / "tracks.jsonl")
    frame = read_list(tmp_path / "tracks.jsonl")
    assert frame["path"].to_list() == [str(tmp_path / "audio/a.wav"), "audio/b.wav"]
    assert frame["work"].to_list() == ["W", "W"]


def test_coverhunter_list(tone, tmp_path):
    tone("a.wav")
    (tmp_path / "full.txt").write_text('{"perf": "sp_0.9-a", "wav": "a.wav", "dur_ms": 1500, "song": "W"}\n')
    row = read_list(tmp_path / "full.txt").row(0, named=True)
    assert (row["id"], row["group"], row["work"], row["duration"]) == ("sp_0.9-a", "a", "W", 1.5)
    assert row["path"] == str(tmp_path / "a.wav")


def test_spreadsheet(tone, tmp_path):
    tone("a.wav")
    (tmp_path / "list.csv").write_text("file,work\na.wav,W\n")
    assert read_list(tmp_path / "list.csv")["work"].to_list() == ["W"]


def test_other_columns_of_a_spreadsheet_are_facts(tone, tmp_path):
    tone("a.wav")
    (tmp_path / "list.csv").write_text("file,work,place\na.wav,W,Visby 1972\n")
    assert read_list(tmp_path / "list.csv")["place"].to_list() == ["Visby 1972"]


def test_audio_of_a_spreadsheet_need_not_be_there(tone, tmp_path):
    tone("a.wav")
    (tmp_path / "list.csv").write_text("file,work\na.wav,W\nx/gone.wav,V\n")
    frame = read_list(tmp_path / "list.csv")
    assert frame.select("id", "work").rows() == [("a", "W"), ("x/gone", "V")]
    (tmp_path / "list.csv").write_text("file,work\n,W\n")
    with pytest.raises(UserError, match=r"list\.csv line 2"):
        read_list(tmp_path / "list.csv")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file; give a"):
        read_list(tmp_path / "none")
