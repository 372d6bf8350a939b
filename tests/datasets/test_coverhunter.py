from __future__ import annotations

import json

import pytest

from tonnetz.datasets.coverhunter import CoverHunter, parse_list
from tonnetz.errors import UserError
from tonnetz.tracks import check_disjoint, table


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def row(name, work, **facts):
    return {"perf": name, "wav": f"wav/{name}.wav", "dur_s": 0.1, "work": work, "version": "v", **facts}


NAMES = ("a0", "a1", "b0", "b1", "sp_0.8-a0", "sp_0.8-b1", 'c "$x` é 0')


@pytest.fixture
def home(tone, tmp_path):
    for name in NAMES:
        tone(f"set/wav/{name}.wav")
    return tmp_path / "set"


FORMS = {
    "json, work": row("a0", "A", work_id=0),
    "json, upstream": {"utt": "a0", "wav": "wav/a0.wav", "dur_ms": 100, "song": "A"},
    "json, early fork": {"rec": "a0", "wav": "wav/a0.wav", "dur_s": "0.1", "song_id": "A"},
    "tabs": "perf:a0\twav:wav/a0.wav\tdur_s:0.1\twork:A\tversion:12:3",
    "tabs, upstream": "utt:a0\twav:wav/a0.wav\tdur_ms:100\tsong:A\t\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_historical_form(home, form):
    text = FORMS[form]
    (home / "dataset.txt").write_text(text if isinstance(text, str) else lines(text))
    (line,) = parse_list(home / "dataset.txt")
    assert (line.id, line.work, line.wav, line.duration) == ("a0", "A", "wav/a0.wav", 0.1)
    frame = table(CoverHunter(home).tracks())
    assert frame["path"].to_list() == [str(home / "wav/a0.wav")]
    assert frame["work"].to_list() == ["A"]
    assert frame["group"].to_list() == ["a0"]
    assert frame["duration"].to_list() == [None]  # a rounded length would cut the end off


def test_facts_are_carried_as_text(home):
    (home / "full.txt").write_text(lines(row("a0", "A", work_id=7, feat="x.npy", feat_len=9, remark=3)))
    frame = table(CoverHunter(home / "full.txt").tracks())
    assert frame.row(0, named=True) | {"work_id": "7", "remark": "3", "version": "v"} == frame.row(0, named=True)
    assert not {"feat", "feat_len", "wav"} & set(frame.columns)


def test_hard_names(home):
    name = 'c "$x` é 0'
    (home / "dataset.txt").write_text(lines(row(name, "Wörk \u2028 1")), encoding="utf-8")
    frame = table(CoverHunter(home).tracks())
    assert frame["path"].to_list() == [str(home / f"wav/{name}.wav")]
    assert frame["work"].to_list() == ["Wörk \u2028 1"]


@pytest.mark.parametrize("wav", ["wav/a0.wav", "set/wav/a0.wav", "/elsewhere/a0.wav"])
def test_where_the_audio_may_be(home, wav):
    (home / "dataset.txt").write_text(lines({**row("a0", "A"), "wav": wav}))
    assert [r["path"] for r in CoverHunter(home).tracks()] == [str(home / "wav/a0.wav")]
    (home / "wav").rename(home.parent / "moved")
    assert [r["path"] for r in CoverHunter(home, audio="../moved").tracks()] == [str(home / "../moved/a0.wav")]


def test_splits_and_copies(home, capsys):
    """Copies of a recording are not spread over splits: they are left out where their recording is listed."""
    (home / "full.txt").write_text("not read")
    (home / "train.txt").write_text(lines(row("a0", "A"), row("sp_0.8-b1", "B"), row("b0", "B")))
    (home / "val.txt").write_text(lines(row("sp_0.8-a0", "A"), row("a1", "A")))
    (home / "test.txt").write_text(lines(row("b1", "B"), row("gone", "B")))
    frame = table(CoverHunter(home).tracks())
    out = capsys.readouterr().out
    assert "left out 2 tempo and noise copies" in out
    assert "coverhunter: 4 of 5 recordings found (80.0 %)" in out
    check_disjoint(frame)
    found = dict(zip(frame["id"], frame["split"], strict=True))
    assert found == {"a0": "train", "b0": "train", "a1": "valid", "b1": "test"}


def test_a_copy_without_its_recording_stands_for_it(home):
    (home / "dataset.txt").write_text(lines(row("sp_0.8-a0", "A"), row("a1", "A")))
    frame = table(CoverHunter(home).tracks())
    assert frame["group"].to_list() == ["a0", "a1"]


BAD = [
    ('{"perf": "a1", \n', "line 2: not a JSON object"),
    ("no colon here\n", "line 2: neither a JSON object nor tab-separated key:value"),
    ('{"wav": "x.wav", "work": "A"}\n', "line 2: has no perf (or utt, rec); it has wav, work"),
    ('{"perf": "a1", "wav": "x.wav"}\n', "line 2: has no work (or song, work_id, song_id); it has perf, wav"),
    (lines({**row("a1", "A"), "dur_s": "long"}), "line 2: dur_s 'long' is not a number"),
    (lines(row("a0", "B")), "line 2: 'a0' is in line 1 already, with another work or file"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_lines_are_named(home, capsys, text, message):
    path = home / "dataset.txt"
    path.write_text(lines(row("a0", "A")) + text + "\n" + lines(row("b0", "B")))
    with pytest.raises(UserError) as caught:
        CoverHunter(home).tracks()
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)
    assert [r["id"] for r in CoverHunter(home, strict=False).tracks()] == ["a0", "b0"]
    out = capsys.readouterr().out
    assert message in out
    assert f"{path}: left out 1 lines" in out


def test_equal_lines_count_once(home):
    (home / "dataset.txt").write_text(lines(row("a0", "A"), row("a0", "A")))
    assert len(list(CoverHunter(home).tracks())) == 1


def test_missing_audio(home):
    (home / "dataset.txt").write_text(lines(row("a0", "A"), row("gone", "A")))
    with pytest.raises(UserError, match="1 of 2 recordings have no audio file, the first: gone"):
        CoverHunter(home, missing="fail").tracks()


def test_no_list(home, tmp_path):
    with pytest.raises(UserError, match=r"no train\.txt, full\.txt or dataset\.txt in it"):
        CoverHunter(home).tracks()
    with pytest.raises(UserError, match=r"other\.txt: no such list"):
        CoverHunter(home, file="other.txt").tracks()
    (home / "dataset.txt").write_text("\n")
    with pytest.raises(UserError, match="lists no recordings"):
        CoverHunter(home).tracks()
    (home / "dataset.txt").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match="not text in UTF-8"):
        CoverHunter(home).tracks()
