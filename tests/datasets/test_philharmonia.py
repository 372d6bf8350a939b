from __future__ import annotations

import os
from pathlib import Path

import librosa
import pytest

from tonnetz.datasets.philharmonia import Philharmonia, midi_number, parse_name
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import table

FILES = (
    "cello/cello_Ds4_05_mezzo-forte_arco-normal.mp3",
    "cor anglais/english-horn_A3_phrase_cresc-decresc_normal.mp3",
    "percussion/bass-drum__025_forte_struck-singly.mp3",
    "percussion/Chinese cymbal/Chinese-cymbal__1_crescendo_roll.mp3",
    "banjo/take 3.mp3",
)


@pytest.fixture
def root(tone, tmp_path):
    for name in FILES:
        tone(name)
    return tmp_path


def test_names_become_columns(root):
    frame = table(Philharmonia(root).tracks()).sort("id")
    columns = ["instrument", "pitch", "midi", "length", "dynamic", "articulation"]
    rows = dict(zip(frame["id"], frame.select(columns).iter_rows(), strict=True))
    names = [name.removesuffix(".mp3") for name in FILES]
    assert rows[names[0]] == ("cello", "Ds4", 63, "05", "mezzo-forte", "arco-normal")
    assert rows[names[1]] == ("english-horn", "A3", 57, "phrase", "cresc-decresc", "normal")
    assert rows[names[2]] == ("bass-drum", None, None, "025", "forte", "struck-singly")
    assert rows[names[4]] == ("take 3", None, None, None, None, None)


@pytest.mark.parametrize(
    ("split", "labels"),
    [
        (False, {"banjo", "cello", "cor anglais", "percussion"}),
        (True, {"banjo", "cello", "cor anglais", "bass-drum", "Chinese cymbal"}),
    ],
)
def test_labels_are_folders_and_resolve(root, split, labels):
    rows = list(Philharmonia(root, split_percussion=split).tracks())
    assert {label for row in rows for label in row["labels"]} == labels
    tree = Taxonomy.load("hornbostel_sachs")
    assert len({tree.resolve(label, "philharmonia") for label in labels}) == len(labels)


def test_midi_numbers_against_librosa():
    for octave in range(-1, 9):
        for name in ["C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B"]:
            assert midi_number(f"{name}{octave}") == librosa.note_to_midi(f"{name.replace('s', '#')}{octave}")
    assert midi_number("H4") is midi_number("") is midi_number("A") is None


def test_name_with_another_number_of_parts():
    assert parse_name("a_b")["pitch"] is None
    assert set(parse_name("a_b")) == set(parse_name("a_A4_c_d_e"))


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no audio files"):
        list(Philharmonia(tmp_path).tracks())


@pytest.mark.real
def test_real_samples():
    home = os.environ.get("TONNETZ_REAL_DATA")
    if not home:
        pytest.skip("set TONNETZ_REAL_DATA to a folder that holds philharmonia/")
    frame = table(Philharmonia(Path(home) / "philharmonia").tracks())
    tree = Taxonomy.load("hornbostel_sachs")
    nodes = {tree.resolve(label, "philharmonia") for labels in frame["labels"] for label in labels}
    assert frame.height == frame["id"].n_unique() == 880
    assert len(nodes) == 16
    pitched = frame.filter(frame["labels"].list.first() != "percussion")
    assert pitched.height == pitched["midi"].is_not_null().sum() == 840
    assert frame["articulation"].null_count() == 0
