from __future__ import annotations

import json
import os

import pytest

from tonnetz.datasets.asap_covers import AsapCovers
from tonnetz.errors import UserError
from tonnetz.tracks import table


@pytest.fixture
def home(tone, tmp_path):
    """Twelve works of two performances, the last two works are the test; one file is lost."""
    lines = []
    for work in range(12):
        for take in range(2):
            name = f"w{work}_{take}"
            if name != "w3_1":
                tone(f"audio/{name}.ogg")
            facts = {"work": f"Bach/{work}", "composer": "Bach", "split": "train" if work < 10 else "test"}
            facts |= {"key_shift": -3, "tempo": 0.953, "program": 88, "duration": 0.1}
            lines.append(json.dumps({"id": name, "path": f"audio/{name}.ogg", **facts}))
    (tmp_path / "tracks.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_rows_and_columns(home, capsys):
    corpus = AsapCovers(home)
    frame = table(corpus.tracks())
    assert "asap_covers: 23 of 24 recordings found (95.8 %)" in capsys.readouterr().out
    assert corpus.coverage["missing"] == ["w3_1"]
    row = frame.row(0, named=True)
    assert (row["id"], row["group"], row["work"], row["artist"]) == ("w0_0", "w0_0", "Bach/0", "Bach")
    assert (row["key_shift"], row["tempo"], row["program"]) == (-3, 0.953, 88)
    assert row["path"] == str(home / "audio/w0_0.ogg")
    assert frame["labels"].null_count() == frame.height


@pytest.mark.parametrize(("fraction", "works"), [(0.15, 2), (0.5, 5), (0.0, 0)])
def test_validation_is_whole_training_works(home, fraction, works):
    frame = table(AsapCovers(home, valid_works=fraction).tracks())
    splits = {split: set(rows["work"]) for (split,), rows in frame.group_by("split")}
    assert splits["test"] == {"Bach/10", "Bach/11"}
    assert len(splits.get("valid", ())) == works
    assert len(splits["train"]) == 10 - works
    again = table(AsapCovers(home, valid_works=fraction).tracks())
    assert again.equals(frame)


def test_the_seed_draws_other_works_but_not_other_audio(home):
    held = {
        frozenset(table(AsapCovers(home, seed=s).tracks()).filter(split="valid")["work"].to_list()) for s in range(9)
    }
    assert len(held) > 3
    assert AsapCovers(home, seed=3, valid_works=0.2).key == AsapCovers(home).key


def test_mistakes(home):
    with pytest.raises(UserError, match=r"valid_works=1: must be in \[0, 1\)"):
        AsapCovers(home, valid_works=1)
    with pytest.raises(UserError, match=r"no audio file, the first: w3_1"):
        AsapCovers(home, missing="fail").tracks()
    (home / "tracks.jsonl").write_text('{"id": "a", "path": "a.ogg", "split": "train"}\n')
    with pytest.raises(UserError, match=r"tracks\.jsonl: row 1 has no work"):
        AsapCovers(home).tracks()
    (home / "tracks.jsonl").unlink()
    with pytest.raises(UserError, match=r"tracks\.jsonl: no such track table"):
        AsapCovers(home).tracks()


@pytest.mark.real
def test_the_real_table():
    corpus = AsapCovers(os.environ["TONNETZ_REAL_DATA"] + "/asap_covers")
    frame = table(corpus.tracks())
    works = {split: rows["work"].n_unique() for (split,), rows in frame.group_by("split")}
    assert works == {"train": 68, "valid": 12, "test": 25}
    assert corpus.coverage["percent"] == 100.0
