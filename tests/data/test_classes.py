"""Splits by class: a class is in one split, whatever corpora bring it along."""

import json

import polars as pl
import pytest

from tonnetz.data.classes import read_parts, split_classes, units
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy

TREE = Taxonomy.load("hornbostel_sachs")
SIZES = {"train": 0.6, "valid": 0.2, "test": 0.2}
NAMES = ["violin", "cello", "oboe", "flute", "trumpet", "harp", "banjo", "marimba", "snare_drum", "clarinet"]


def table(rows):
    """Rows (class or classes, given split) as a track table."""
    labels = [[row[0]] if isinstance(row[0], str) else row[0] for row in rows]
    paths = [f"{i}.wav" for i in range(len(rows))]
    kinds = {"path": pl.String, "labels": pl.List(pl.String), "given": pl.String}
    return pl.DataFrame({"path": paths, "labels": labels, "given": [row[1] for row in rows]}, schema=kinds)


def test_every_class_is_in_one_split_with_all_of_its_tracks():
    frame, splits, _ = split_classes(table([(name, None) for name in NAMES] * 3), TREE, SIZES)
    assert set(splits) == set(NAMES)
    assert {s: list(splits.values()).count(s) for s in SIZES} == {"train": 6, "valid": 2, "test": 2}
    assert frame["split"].to_list() == [splits[name] for name in NAMES] * 3


def test_a_corpus_for_training_never_teaches_what_is_tested():
    fixed = {"test": ["violin", "oboe"], "valid": ["harp"]}
    rows = [(name, None) for name in NAMES] + [("violin", "train"), ("flute", "train"), ("tuba", "train")]
    frame, splits, report = split_classes(table(rows), TREE, {"train": 1.0, "valid": 0.0, "test": 0.0}, fixed=fixed)
    assert splits["violin"] == splits["oboe"] == "test"
    assert frame["split"].to_list()[-3:] == [None, "train", "train"]
    assert splits["tuba"] == "train"
    assert any("1 tracks left out" in line and "violin" in line for line in report)


def test_classes_of_given_splits_alone_stay_there_and_the_tested_one_wins():
    rows = [("violin", "train"), ("oboe", "train"), ("oboe", "test"), ("harp", "test")]
    frame, splits, _ = split_classes(table(rows), TREE, SIZES)
    assert splits == {"violin": "train", "oboe": "test", "harp": "test"}
    assert frame["split"].to_list() == ["train", None, "test", "test"]


def test_mixtures_and_what_is_no_instrument_are_left_out():
    rows = [(name, None) for name in NAMES] + [(["violin", "harp"], None), ([], None), ("main_system", None)]
    frame, splits, report = split_classes(table(rows), TREE, SIZES)
    assert frame["split"].to_list()[-3:] == [None] * 3
    assert "main_system" not in splits
    assert "without exactly one instrument" in report[-1]


def test_a_checkpoint_keeps_its_partition_and_tests_what_it_never_saw():
    known = {"violin": "train", "oboe": "valid", "harp": "test"}
    rows = table([(name, None) for name in ("violin", "oboe", "harp", "tuba")])
    _, splits, _ = split_classes(rows, TREE, SIZES, known=known)
    assert splits == {**known, "tuba": "test"}


def test_the_test_may_have_recordings_of_training_classes_too():
    rows = table([(name, None) for name in NAMES] * 10)
    frame, splits, _ = split_classes(rows.with_columns(group=pl.lit(None, pl.String)), TREE, SIZES, base=0.3)
    taught = [name for name in NAMES if splits[name] == "train"]
    lent = frame.filter((pl.col("split") == "test") & pl.col("class").is_in(taught))
    assert lent["class"].value_counts()["count"].to_list() == [3] * len(taught)
    assert frame.filter(pl.col("split") == "train").height == 7 * len(taught)
    with pytest.raises(UserError, match=r"data.base=1.5"):
        split_classes(rows, TREE, SIZES, base=1.5)


def test_units_are_groups_or_files_or_artists():
    artists = ["x", None, "x", None]
    frame = pl.DataFrame({"path": ["a", "a", "b", "c"], "group": [None, None, "g", "g"], "artist": artists})
    assert units(frame, "clip") is None
    one, two, three, four = units(frame, "track")
    assert one == two != three == four
    one, two, three, four = units(frame, "artist")
    assert one == three
    assert len({one, two, four}) == 3


def test_a_partition_is_read_from_its_file(tmp_path):
    path = tmp_path / "partition.json"
    path.write_text(json.dumps({"train": ["violin"], "test": ["oboe"]}))
    assert read_parts(str(path)) == {"train": ["violin"], "test": ["oboe"]}
    assert read_parts(None) is None
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match="no partition of classes"):
        read_parts(str(path))
    with pytest.raises(UserError, match="no such file"):
        read_parts(str(tmp_path / "none.json"))


def test_no_song_has_stems_in_two_splits_where_they_are_kept_apart():
    fixed = {"test": ["violin"], "valid": ["harp"]}
    songs = [
        ("violin", "a"),
        ("oboe", "a"),
        ("harp", "a"),
        ("oboe", "b"),
        ("harp", "b"),
        ("oboe", "c"),
        ("flute", None),
    ]
    rows = table([(name, None) for name, _ in songs]).with_columns(group=pl.Series([song for _, song in songs]))
    sizes = {"train": 1.0, "valid": 0.0, "test": 0.0}
    frame, _, report = split_classes(rows, TREE, sizes, fixed=fixed, apart="group")
    assert frame["split"].to_list() == ["test", None, None, None, "valid", "train", "train"]
    assert "their group: 2 of train, 1 of valid" in report[-1]
    mixed, _, _ = split_classes(rows, TREE, sizes, fixed=fixed)
    assert mixed["split"].to_list() == ["test", "train", "valid", "train", "valid", "train", "train"]
    with pytest.raises(UserError, match=r"data\.apart=artst"):
        split_classes(rows, TREE, sizes, apart="artst")


def test_every_split_gets_as_many_classes_as_it_must():
    _, splits, _ = split_classes(table([(name, None) for name in NAMES]), TREE, SIZES, minimum=3)
    assert min(list(splits.values()).count(split) for split in SIZES) == 3
