from __future__ import annotations

import pytest

from tonnetz.datasets.medley_solos_db import TABLE, MedleySolosDB
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import check_disjoint, table

CLIPS = (
    "test,clarinet,0,000,0e4371ac-1c6a-51ab-fdb7-f8abd5fbf1a3",
    "test,clarinet,0,000,33383119-fd64-59c1-f596-d1a23e8a0eff",
    "training,distorted electric guitar,1,139,163fd2b1-8e98-515a-f501-4742cc6d066f",
    "validation,female singer,2,200,a8bfed6b-3005-5059-f46d-4f4c5e672850",
)
CLASSES = (
    *("clarinet", "distorted electric guitar", "female singer", "flute", "piano", "tenor saxophone"),
    *("trumpet", "violin"),
)


@pytest.fixture
def home(tone, tmp_path):
    for clip in CLIPS:
        subset, _, number, _, uuid = clip.split(",")
        tone(f"audio/Medley-solos-DB_{subset}-{number}_{uuid}.wav")
    (tmp_path / TABLE).write_text("\n".join(["subset,instrument,instrument_id,song_id,uuid4", *CLIPS]) + "\n")
    return tmp_path


def test_rows(home):
    frame = table(MedleySolosDB(home).tracks())
    assert frame["split"].to_list() == ["test", "test", "train", "valid"]
    assert frame["labels"].to_list()[1:3] == [["clarinet"], ["distorted electric guitar"]]
    assert frame["group"].to_list() == frame["track"].to_list() == ["song 000", "song 000", "song 139", "song 200"]
    assert frame["id"][3] == "validation-2_a8bfed6b-3005-5059-f46d-4f4c5e672850"
    assert frame["path"][3].endswith("audio/Medley-solos-DB_validation-2_a8bfed6b-3005-5059-f46d-4f4c5e672850.wav")
    check_disjoint(frame)


def test_all_labels_are_leaves():
    tree = Taxonomy.load("hornbostel_sachs")
    assert all(tree.resolve(name, "medley_solos_db") in tree.leaves() for name in CLASSES)


def test_missing_clip(home):
    next(home.rglob("*test-0_0e43*.wav")).unlink()
    corpus = MedleySolosDB(home)
    assert len(list(corpus.tracks())) == 3
    assert corpus.coverage["percent"] == 75.0


def test_mistakes(home, tmp_path):
    (home / TABLE).write_text("subset,instrument,instrument_id,song_id,uuid4\nlast,flute,3,1,x\n")
    with pytest.raises(UserError, match=r"metadata\.csv line 2: subset 'last' is unknown"):
        MedleySolosDB(home).tracks()
    (home / TABLE).write_text("subset,instrument\ntest,flute\n")
    with pytest.raises(UserError, match="no column instrument_id"):
        MedleySolosDB(home).tracks()
    (home / TABLE).unlink()
    with pytest.raises(UserError, match=r"no Medley-solos-DB_metadata\.csv in it"):
        MedleySolosDB(home).tracks()
