"""Track tables: round trips, splits that keep groups together, label matrices."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonnetz import tracks
from tonnetz.errors import UserError
from tonnetz.tracks import (
    DataSpec,
    check_disjoint,
    corpus_marks,
    label_matrix,
    read_table,
    seen_works,
    split_tracks,
    table,
    write_table,
)


def rows(count: int, seed: int = 0, classes: int = 5, per_group: int = 4) -> list[dict]:
    """Tracks in groups; rare and common classes, one to three labels."""
    random = np.random.default_rng(seed)
    weights = np.arange(1, classes + 1) ** 2.0
    result = []
    for i in range(count):
        chosen = random.choice(classes, 1 + i % 3, replace=False, p=weights / weights.sum())
        labels = [f"c{c}" for c in chosen]
        result.append({"id": f"t{i}", "path": f"/x/{i}.wav", "labels": labels, "group": f"g{i // per_group}"})
    return result


def test_round_trip(tmp_path):
    given = [
        {
            "id": "a",
            "path": "a.wav",
            "labels": ["x"],
            "notes": [[0.0, 1.0, 60.0, 64.0]],
            "fold": 3,
            "pitch": "A4",
        },
        {
            "id": "b",
            "path": "b.wav",
            "labels": [],
            "unknown": ["x"],
            "offset": 1.5,
            "duration": 2.0,
            "split": "test",
        },
        {"id": "c", "path": "c.wav"},
    ]
    frame = table(given)
    write_table(frame, tmp_path / "deep" / "tracks.jsonl")
    again = read_table(tmp_path / "deep" / "tracks.jsonl")
    assert again.equals(frame)
    assert again.schema == frame.schema
    assert list(again.columns)[: len(tracks.SCHEMA)] == list(tracks.SCHEMA)
    assert again["pitch"].to_list() == ["A4", None, None]
    assert again["offset"].to_list() == [0.0, 1.5, 0.0]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tracks.jsonl"]


def test_read_a_table_with_few_columns(tmp_path):
    path = tmp_path / "tracks.jsonl"
    path.write_text('{"id": "a", "path": "a.ogg", "duration": 90, "work": "w"}\n{"id": "b", "path": "b.ogg"}\n')
    frame = read_table(path)
    assert frame["duration"].to_list() == [90.0, None]
    assert frame.schema["labels"] == pl.List(pl.String)
    assert frame["split"].to_list() == [None, None]


@pytest.mark.parametrize("text", ["", "id,path\na,b\n", "[1, 2]\n", '{"id": "a"', '{"id": "a", "labels": 3.5}\n'])
def test_bad_table_is_one_line(tmp_path, text):
    path = tmp_path / "tracks.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: not a JSON Lines track table")
    assert "\n" not in str(caught.value)


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="no such track table; run job=prepare first"):
        read_table(tmp_path / "none.jsonl")


def test_empty_table():
    frame = table([])
    assert frame.shape == (0, len(tracks.SCHEMA))
    assert split_tracks(frame, 0.1, 0.1, 0).height == 0


def test_concat_fills_columns_that_only_some_have():
    frame = tracks.concat(
        [table([{"id": "a", "path": "a", "pitch": "A4"}]), table([{"id": "b", "path": "b", "bpm": 3}])]
    )
    assert frame["pitch"].to_list() == ["A4", None]
    assert frame["bpm"].to_list() == [None, 3]


def test_two_hundred_thousand_rows(tmp_path):
    frame = pl.concat([table(rows(1000))] * 200).with_columns(id=pl.int_range(200_000).cast(pl.String))
    write_table(frame, tmp_path / "t.jsonl")
    assert read_table(tmp_path / "t.jsonl").equals(frame)


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_groups_together_and_fractions(seed):
    frame = split_tracks(table(rows(600, seed)), 0.2, 0.1, seed)
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    check_disjoint(frame)
    shares = {name: (frame["split"] == name).mean() for name in tracks.SPLITS}
    assert shares == pytest.approx({"train": 0.7, "valid": 0.2, "test": 0.1}, abs=0.03)
    assert "key" not in frame.columns
    assert frame["id"].to_list() == [f"t{i}" for i in range(600)]  # in the order given


@pytest.mark.parametrize("seed", range(5))
def test_split_is_stratified(seed):
    frame = split_tracks(table(rows(600, seed, per_group=1)), 0.2, 0.2, seed)
    spread = (
        frame.explode("labels")
        .group_by("labels")
        .agg(total=pl.len(), valid=(pl.col("split") == "valid").sum(), test=(pl.col("split") == "test").sum())
    )
    for part in ("valid", "test"):
        assert ((spread[part] - 0.2 * spread["total"]).abs() <= 0.02 * spread["total"] + 2).all()


def test_split_depends_on_the_seed_alone():
    frame = table(rows(200))
    first = split_tracks(frame, 0.2, 0.2, 1)
    assert first.equals(split_tracks(frame, 0.2, 0.2, 1))
    assert not first.equals(split_tracks(frame, 0.2, 0.2, 2))
    mixed = frame.sample(fraction=1, shuffle=True, seed=3)  # the order of the rows does not matter
    assert split_tracks(mixed, 0.2, 0.2, 1).sort("id").equals(first.sort("id"))


def test_given_splits_are_kept_and_lent_to_the_group():
    given = table(rows(200))
    given = given.with_columns(split=pl.when(pl.col("id").is_in(["t0", "t50"])).then(pl.lit("test")))
    frame = split_tracks(given, 0.25, 0.1, 0)
    tests = set(frame.filter(split="test")["id"])
    assert tests == {f"t{i}" for i in (0, 1, 2, 3, 48, 49, 50, 51)}  # the two groups, and nothing drawn
    assert (frame["split"] == "valid").sum() == pytest.approx(0.25 * 192, abs=4)


def test_split_without_labels():
    frame = split_tracks(table({"id": str(i), "path": str(i)} for i in range(100)), 0.2, 0.1, 0)
    assert sorted(frame["split"].value_counts()["count"]) == [10, 20, 70]


def test_split_of_unequal_groups_without_labels():
    frame = table({"id": f"{g}/{i}", "path": f"{g}/{i}", "group": str(g)} for g in range(60) for i in range(1 + g % 7))
    frame = split_tracks(frame, 0.2, 0.2, 0)
    assert (frame["split"] == "valid").mean() == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("valid", "test"), [(-0.1, 0.1), (0.5, 0.5), (1.0, 0.0), (float("nan"), 0.1)])
def test_impossible_fractions(valid, test):
    with pytest.raises(UserError, match="fractions must be in"):
        split_tracks(table(rows(4)), valid, test, 0)


@pytest.mark.parametrize("column", ["path", "group"])
def test_check_disjoint_refuses(column):
    pair = [{"id": s, "path": s, "group": s, "split": s} for s in ("train", "test")]
    check_disjoint(table(pair))
    for row in pair:
        row[column] = "same"
    with pytest.raises(UserError, match=rf"^same: this {column} is in the splits test and train \(1 in all\)"):
        check_disjoint(table(pair))


def test_excerpts_of_one_file_may_share_a_split():
    check_disjoint(table([{"id": str(i), "path": "a", "offset": float(i), "split": "train"} for i in range(3)]))


def test_label_matrix_against_a_double_loop():
    random = np.random.default_rng(0)
    given = rows(50)
    given[3]["labels"] = None
    given[4]["labels"] = []
    for row in given[5:]:
        row["unknown"] = [f"c{c}" for c in random.choice(5, 2, replace=False) if f"c{c}" not in row["labels"]]
    classes = ["c4", "c0", "c2", "c1", "c3"]
    expected = np.zeros((50, 5), np.float32)
    for i, row in enumerate(given):
        for j, name in enumerate(classes):
            if row["labels"] is None or name in (row.get("unknown") or ()):
                expected[i, j] = np.nan
            elif name in row["labels"]:
                expected[i, j] = 1
    matrix = label_matrix(table(given), classes)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


def test_label_matrix_refuses_a_foreign_label_but_not_a_foreign_unknown():
    frame = table([{"id": "a", "path": "a.wav", "labels": ["violn"], "unknown": []}])
    with pytest.raises(UserError, match=r"^a\.wav: label 'violn' is not a class .* did you mean 'violin'\?$"):
        label_matrix(frame, ["violin", "cello"])
    frame = table([{"id": "a", "path": "a.wav", "labels": ["cello"], "unknown": ["oboe"]}])
    assert label_matrix(frame, ["violin", "cello"]).tolist() == [[0.0, 1.0]]


def test_label_matrix_without_labels_or_classes():
    frame = table([{"id": "a", "path": "a"}, {"id": "b", "path": "b"}])
    assert np.isnan(label_matrix(frame, ["x"])).all()
    assert label_matrix(frame, []).shape == (2, 0)


def test_fingerprint_sees_what_matters():
    frame = table(rows(20))
    same = frame.sample(fraction=1, shuffle=True, seed=0).with_columns(path=pl.lit("/elsewhere"))
    assert tracks.fingerprint(frame) == tracks.fingerprint(same)
    assert len(tracks.fingerprint(frame)) == 16
    for change in (
        {"split": pl.lit("train")},
        {"labels": pl.lit([["z"]]).list.first()},
        {"offset": pl.lit(1.0)},
    ):
        assert tracks.fingerprint(frame.with_columns(**change)) != tracks.fingerprint(frame)


def test_spec_round_trip():
    spec = DataSpec(("a", "b"), True, (3, 4), (5, 6), ("x", ""), "hornbostel_sachs", {"train": 9})
    values = spec.to_dict()
    assert values["classes"] == ["a", "b"]
    assert DataSpec.from_dict(values) == spec


def works(corpus, *names, second=1.0):
    return table(
        {
            "id": f"{work}/{i}",
            "path": f"{corpus}/{work}/{i}.wav",
            "work": work,
            "corpus": corpus,
            "duration": second + i,
        }
        for i, work in enumerate(names)
    )


def test_a_work_is_seen_when_it_is_of_the_same_corpus():
    train, other = works("one", "a", "b", None), works("two", "a", "c", second=3.0)
    spec = DataSpec(groups=("a", "b"), corpora=corpus_marks(train))
    assert seen_works(train, corpus_marks(train), spec).tolist() == [True, True, False]
    assert seen_works(other, corpus_marks(other), spec).tolist() == [False, False]  # another work a
    moved = train.with_columns(corpus=pl.lit("elsewhere")).sample(fraction=1.0, shuffle=True, seed=1)
    assert seen_works(moved, corpus_marks(moved), spec).sum() == 2  # the same recordings in another folder
    grown = pl.concat([train, works("one", "d")])  # and in the same folder more of them
    assert seen_works(grown, corpus_marks(grown), spec).tolist() == [True, True, False, False]
    assert seen_works(train, corpus_marks(train), DataSpec(groups=("b",))).tolist() == [False, True, False]


def test_works_of_several_corpora_are_seen_by_corpus_and_name():
    both = pl.concat([works("one", "a", "b"), works("two", "a", "c", second=3.0)])
    both = both.with_columns(work=pl.concat_str("corpus", "work", separator="/"))
    spec = DataSpec(groups=("one/a", "two/c"), corpora=corpus_marks(both))
    assert seen_works(both, corpus_marks(both), spec).tolist() == [True, False, False, True]
    for alone, expected in (
        (works("one", "a", "b"), [True, False]),
        (works("two", "a", "c", second=3.0), [False, True]),
    ):
        assert seen_works(alone, corpus_marks(alone), spec).tolist() == expected
        moved = alone.with_columns(corpus=pl.lit("elsewhere"))
        assert seen_works(moved, corpus_marks(moved), spec).tolist() == expected
