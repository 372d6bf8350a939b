from __future__ import annotations

import pytest

from tonnetz.datasets.shs100k import SHS100K
from tonnetz.errors import UserError
from tonnetz.tracks import check_disjoint, table

LIST = """0\t0\tSay "I\tArt" ist\thttps://www.youtube.com/watch?v=AAAAAAAAAAA\t1
0\t1\tSay\tB\thttps://youtu.be/BBBBBBBBBB-\t1
1\t0\tOther\tC\thttps://www.youtube.com/watch?v=CCCCCCCCCCC&t=3\t0
1\t1\tOther\tD\thttps://www.youtube.com/watch?v=DDDDDDDDDDD\t1
2\t0\tThird\tE\thttps://www.youtube.com/watch?v=EEEEEEEEEEE\t1
"""


@pytest.fixture
def old(tone, tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/list").write_text(LIST)
    for name in ("audio/0_0.mp3", "audio/BBBBBBBBBB-.ogg", "audio/x/1_1.wav", "audio/2_0.wav"):
        tone(name)
    return tmp_path


def test_old_lists(old, capsys):
    (old / "meta/SHS100K-TRAIN").write_text("0\t0\n0_1\n")
    (old / "meta/SHS100K-TEST").write_text("1 0\n1,1\n\n")
    frame = table(SHS100K(old).tracks())
    assert "shs100k: 3 of 4 recordings found (75.0 %)" in capsys.readouterr().out  # set 2 is in no list
    assert frame["id"].to_list() == ["0_0", "0_1", "1_1"]
    assert frame["work"].to_list() == ["0", "0", "1"]
    assert frame["split"].to_list() == ["train", "train", "test"]
    assert frame["group"].to_list() == ["AAAAAAAAAAA", "BBBBBBBBBB-", "DDDDDDDDDDD"]
    assert frame["path"].to_list()[1].endswith("audio/BBBBBBBBBB-.ogg")
    assert (frame["title"][0], frame["artist"][0], frame["status"][0]) == ('Say "I', 'Art" ist', "1")


def test_without_id_lists_all_is_open(old):
    rows = list(SHS100K(old, audio="audio").tracks())
    assert [row["split"] for row in rows] == [None] * 4


def test_a_recording_in_two_splits_stays_in_the_later(old):
    (old / "meta/SHS100K-TRAIN").write_text("0 0\n0 1\n1 1\n")
    (old / "meta/SHS100K-VAL").write_text("0 1\n")
    frame = table(SHS100K(old).tracks())
    check_disjoint(frame)
    assert dict(zip(frame["id"], frame["split"], strict=True)) == {"0_0": "train", "0_1": "valid", "1_1": "train"}
    assert table(SHS100K(old, split="test").tracks()).height == 3


def test_one_video_of_two_works_is_one_recording(old, capsys):
    (old / "meta/list").write_text(LIST.replace("D" * 11, "A" * 11))
    (old / "meta/SHS100K-TRAIN").write_text("0 0\n0 1\n")
    (old / "meta/SHS100K-TEST").write_text("1 1\n")
    frame = table(SHS100K(old).tracks())
    check_disjoint(frame)
    assert frame["id"].to_list() == ["0_1", "1_1"]
    assert "left out 1 rows of recordings that a later split has too" in capsys.readouterr().out


def test_new_tables(tone, tmp_path):
    (tmp_path / "train.csv").write_text('11,7,"Isn\'t It a Pity","Mel ""T"" Tormé, Jr.",AAAAAAAAAAA\n12,7,Pity,B,x\n')
    (tmp_path / "validate.csv").write_text("performance,work,title,artist,video\n13,8,C,D,BBBBBBBBBBB\n")
    (tmp_path / "test.csv").write_text("14,9,E,F,CCCCCCCCCCC\n")
    for name in ("AAAAAAAAAAA.mp3", "deep/12.wav", "BBBBBBBBBBB.ogg", "9_14.flac"):
        tone(name)
    frame = table(SHS100K(tmp_path).tracks())
    assert frame["id"].to_list() == ["11", "12", "13", "14"]
    assert frame["work"].to_list() == ["7", "7", "8", "9"]
    assert frame["split"].to_list() == ["train", "train", "valid", "test"]
    assert frame["artist"][0] == 'Mel "T" Tormé, Jr.'


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("meta/list", "0\t0\tx\n", "list line 1: 3 cells"),
        ("meta/list", LIST.replace("1\t1\tOther", "0\t0\tOther"), "id '0_0' is listed twice"),
        ("meta/SHS100K-VAL", "0 1\nnothing\n", "SHS100K-VAL line 2: 'nothing' is not a set id"),
    ],
)
def test_bad_lists(old, file, text, message):
    (old / file).write_text(text)
    with pytest.raises(UserError) as caught:
        SHS100K(old).tracks()
    assert message in str(caught.value)


def test_bad_tables(tmp_path):
    with pytest.raises(UserError, match="neither a file 'list' nor one of train"):
        SHS100K(tmp_path).tracks()
    (tmp_path / "test.csv").write_text("1,2,a,b,c\n1,2\n")
    with pytest.raises(UserError, match=r"test\.csv line 2: 2 cells"):
        SHS100K(tmp_path).tracks()
