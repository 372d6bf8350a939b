from __future__ import annotations

import json

import pytest

from tonnetz.datasets.datacos import DaTacos
from tonnetz.errors import UserError
from tonnetz.tracks import table

FACTS = {"perf_title": "Sang", "perf_artist": "Ana", "work_title": "Song", "release_year": 1999, "instrumental": "Yes"}
BENCHMARK = {"W_1": {"P_10": FACTS, "P_11": {"perf_artist": "Bo"}}, "W_2": {"P_20": {}}}
ANALYSIS = {"W_9": {"P_90": {"release_year": "1950"}, "P_91": {}}}


@pytest.fixture
def home(tone, tmp_path):
    for subset, content in (("benchmark", BENCHMARK), ("coveranalysis", ANALYSIS)):
        (tmp_path / f"da-tacos_{subset}_subset_metadata.json").write_text(json.dumps(content))
    for name in ("mp3/P_10.mp3", "mp3/11.ogg", "mp3/W_9_P_90.wav", "mp3/P_91.wav"):
        tone(name)
    return tmp_path


def test_both_subsets(home, capsys):
    frame = table(DaTacos(home).tracks())
    assert "datacos: 4 of 5 recordings found (80.0 %)" in capsys.readouterr().out
    assert frame["id"].to_list() == ["P_10", "P_11", "P_90", "P_91"]
    assert frame["work"].to_list() == ["W_1", "W_1", "W_9", "W_9"]
    assert frame["split"].to_list() == ["test", "test", None, None]
    assert frame.row(0, named=True) | {"artist": "Ana", "title": "Sang", "year": "1999"} == frame.row(0, named=True)


def test_one_subset(home):
    assert [row["id"] for row in DaTacos(home, subset="coveranalysis").tracks()] == ["P_90", "P_91"]
    file = home / "da-tacos_benchmark_subset_metadata.json"
    assert [row["id"] for row in DaTacos(file, audio="mp3").tracks()] == ["P_10", "P_11"]


def test_mistakes(home, tmp_path):
    with pytest.raises(UserError, match="known are all, benchmark, coveranalysis"):
        DaTacos(home, subset="bench")
    (home / "da-tacos_benchmark_subset_metadata.json").write_text("[1")
    with pytest.raises(UserError, match=r"benchmark_subset_metadata\.json: not the metadata of Da-TACOS"):
        DaTacos(home).tracks()
    with pytest.raises(UserError, match="no da-tacos_benchmark_subset_metadata"):
        DaTacos(tmp_path / "mp3").tracks()
