from __future__ import annotations

import pytest

from tonnetz.datasets.tinysol import TABLE, TinySOL
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import table

COLUMNS = (
    "Path,Fold,Family,Instrument (abbr.),Instrument (in full),Technique (abbr.),Technique (in full),"
    "Pitch,Pitch ID,Dynamics,Dynamics ID,Instance ID,String ID (if applicable),Needed digital retuning"
)
NOTES = (
    "Brass/Bass_Tuba/ordinario/BTb-ord-A#1-ff-N-N.wav,3,Brass,BTb,Bass Tuba,ord,ordinario,A#1,34,ff,4,0,,False",
    "Strings/Viola/ordinario/Va-ord-C4-pp-2c-R100u.wav,0,Strings,Va,Viola,ord,ordinario,C4,60,pp,0,1,2,True",
    "Winds/Clarinet_Bb/ordinario/ClBb-ord-D5-mf-N-N.wav,4,Winds,ClBb,Clarinet in B-flat,ord,ordinario,D5,74,mf,2,0,,No",
)
NAMES = [note.split(",")[0] for note in NOTES]


@pytest.fixture
def home(tone, tmp_path):
    for name in NAMES:
        tone(f"TinySOL/{name}")
    (tmp_path / TABLE).write_text("\n".join([COLUMNS, *NOTES]) + "\n")
    return tmp_path


def test_rows(home, capsys):
    corpus = TinySOL(home)
    frame = table(corpus.tracks())
    assert "tinysol: 3 of 3 recordings found (100.0 %)" in capsys.readouterr().out
    assert frame["id"].to_list() == [name.removesuffix(".wav") for name in NAMES]
    assert frame["path"].to_list() == [str(home / "TinySOL" / name) for name in NAMES]
    assert frame["labels"].to_list() == [["Bass Tuba"], ["Viola"], ["Clarinet in B-flat"]]
    assert frame["fold"].to_list() == [3, 0, 4]
    assert frame["midi"].to_list() == [34, 60, 74]
    columns = ["family", "technique", "pitch", "dynamics", "instance", "string"]
    assert frame.select(columns).row(1) == ("Strings", "ordinario", "C4", "pp", "1", "2")
    assert frame["string"].to_list() == [None, "2", None]
    tree = Taxonomy.load("hornbostel_sachs")
    nodes = [tree.resolve(label, "tinysol") for [label] in frame["labels"]]
    assert nodes == ["tuba", "viola", "clarinet"]


def test_older_column_names(home):
    old = (
        "Path,Fold,Family,Instrument,Instrument Name,Technique,Technique Name,Pitch,Pitch ID,Dynamics,Dynamics ID,a,b,c"
    )
    (home / TABLE).write_text("\n".join([old, *NOTES]) + "\n")
    assert table(TinySOL(home).tracks())["labels"][0].to_list() == ["Bass Tuba"]


def test_missing_audio(home, capsys):
    (home / "TinySOL" / NAMES[1]).unlink()
    corpus = TinySOL(home)
    assert len(list(corpus.tracks())) == 2
    assert corpus.coverage["missing"] == [NAMES[1].removesuffix(".wav")]
    assert capsys.readouterr().out.count("2 of 3 recordings found (66.7 %); the first that is missing: Strings/") == 1
    list(corpus.tracks())
    assert not capsys.readouterr().out  # said once
    with pytest.raises(UserError, match="1 of 3 recordings have no audio file"):
        TinySOL(home, missing="fail").tracks()
    assert TinySOL(home, missing="fail").key == corpus.key  # the same audio is prepared


def test_mistakes(home, tmp_path):
    with pytest.raises(UserError, match="known are skip, fail"):
        TinySOL(home, missing="maybe")
    (home / TABLE).write_text(COLUMNS + "\n" + NOTES[0].replace(",3,", ",three,") + "\n")
    with pytest.raises(UserError, match=r"metadata\.csv line 2: fold 'three' is not a number"):
        TinySOL(home).tracks()
    (home / TABLE).write_text("Path,Family\nx,y\n")
    with pytest.raises(UserError, match=r"metadata\.csv: no column fold"):
        TinySOL(home).tracks()
    (home / TABLE).write_text(COLUMNS + "\n" + NOTES[0].replace("BTb-", "Other-") + "\n")
    with pytest.raises(UserError, match=r"1 of 1 recordings have no audio file.*check data\.root"):
        TinySOL(home).tracks()
    (home / TABLE).unlink()
    with pytest.raises(UserError, match=r"no TinySOL_metadata\.csv in it"):
        TinySOL(home).tracks()
