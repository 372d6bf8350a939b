from __future__ import annotations

import json

import pytest

from tonnetz.datasets.nsynth import NSynth
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import check_disjoint, split_tracks, table

FAMILIES = ["bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal"]
NOTES = {
    "train": ["guitar_acoustic_014-060-100", "guitar_acoustic_014-061-127", "bass_synthetic_033-022-050"],
    "valid": ["keyboard_electronic_001-069-075", "reed_acoustic_018-070-025"],
    "test": ["keyboard_electronic_001-071-075"],
}


def facts(key):
    instrument, pitch, velocity = key.split("-")
    family, source, _ = instrument.rsplit("_", 2)
    strings = {"instrument_family_str": family, "instrument_source_str": source, "instrument_str": instrument}
    return {"note_str": key, **strings, "pitch": int(pitch), "velocity": int(velocity), "sample_rate": 16000}


@pytest.fixture
def home(tone, tmp_path):
    for split, keys in NOTES.items():
        for key in keys:
            tone(f"nsynth-{split}/audio/{key}.wav")
        (tmp_path / f"nsynth-{split}/examples.json").write_text(json.dumps({key: facts(key) for key in keys}))
    return tmp_path


def test_rows(home):
    frame = table(NSynth(home).tracks())
    assert frame["id"].to_list() == [key for keys in NOTES.values() for key in keys]
    assert frame["split"].to_list() == ["train"] * 3 + ["valid"] * 2 + ["test"]
    assert frame["labels"].to_list()[:3] == [["guitar"], ["guitar"], ["bass"]]
    assert frame.select("instrument", "source", "pitch", "velocity").row(1) == (
        "guitar_acoustic_014",
        "acoustic",
        61,
        127,
    )
    assert frame["group"].to_list()[2:4] == ["bass_synthetic_033", "valid/keyboard_electronic_001"]
    check_disjoint(frame)  # although valid and test share an instrument


def test_finer_labels(home):
    frame = table(NSynth(home, label="instrument").tracks())
    assert frame["labels"][0].to_list() == ["guitar_acoustic_014"]


def test_families_resolve_to_classes_of_their_own():
    tree = Taxonomy.load("hornbostel_sachs")
    assert len({tree.resolve(name, "nsynth") for name in FAMILIES}) == 11


def test_training_folder_alone_is_open(home):
    assert table(NSynth(home / "nsynth-train").tracks())["split"].to_list() == [None] * 3
    for name in ("valid", "test"):
        (home / f"nsynth-{name}/examples.json").unlink()
    frame = split_tracks(table(NSynth(home).tracks()), 0.3, 0.3, 0)
    assert frame.filter(frame["group"] == "guitar_acoustic_014")["split"].n_unique() == 1


def test_one_folder_of_evaluation_keeps_its_split(home):
    assert set(table(NSynth(home / "nsynth-test").tracks())["split"]) == {"test"}
    (home / "nsynth-valid/examples.json").unlink()
    assert table(NSynth(home).tracks())["split"].to_list() == [None] * 3 + ["test"]


def test_missing_note(home):
    (home / "nsynth-train/audio" / f"{NOTES['train'][0]}.wav").unlink()
    corpus = NSynth(home)
    assert len(list(corpus.tracks())) == 5
    assert corpus.coverage["missing"] == [NOTES["train"][0]]


def test_mistakes(home, tmp_path):
    with pytest.raises(UserError, match="known are family, instrument"):
        NSynth(home, label="pitch")
    (home / "nsynth-test/examples.json").write_text('{"a": {"pitch": 1}}')
    with pytest.raises(UserError, match=r"nsynth-test/examples\.json: note a has no instrument_family_str"):
        NSynth(home).tracks()
    (home / "nsynth-test/examples.json").write_text("[1")
    with pytest.raises(UserError, match=r"nsynth-test/examples\.json: not the notes of NSynth"):
        NSynth(home).tracks()
    with pytest.raises(UserError, match=r"no examples\.json in nsynth-train, nsynth-valid, nsynth-test"):
        NSynth(home / "nsynth-train/audio").tracks()
