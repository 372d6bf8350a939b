"""Folds of the data module: every track validates once, the test split is never touched, classes stay the same."""

import polars as pl
import pytest

from tests.data.test_module import data
from tonnetz.errors import UserError
from tonnetz.splits import fold_tracks
from tonnetz.tracks import table


def split_of(module):
    return dict(zip(*module.table.select("id", "split"), strict=True))


@pytest.mark.parametrize("by", ["recordings", "works"])
def test_every_track_validates_once(corpus, tmp_path, by):
    plain = split_of(data(corpus, tmp_path))
    pool = {name for name, split in plain.items() if split != "test"}
    validated = []
    for fold in range(4):
        module = data(corpus, tmp_path, folds=4, fold=fold, fold_by=by)
        found = split_of(module)
        assert {name for name, split in found.items() if split == "test"} == set(plain) - pool
        mine = [name for name, split in found.items() if split == "valid"]
        assert len(mine) in (len(pool) // 4, len(pool) // 4 + 1)
        assert module.everything["id"].to_list() == list(plain)  # stored features keep their rows
        assert module.spec.classes == ("buzz", "noise", "sine")
        validated += mine
    assert sorted(validated) == sorted(pool)


def test_everything_trains(corpus, tmp_path):
    module = data(corpus, tmp_path, fold="all")
    assert not module.validates
    assert module.split("train").height + module.split("test").height == 30


def works():
    """Five works of four versions and one of one; the last two works are in the test split."""
    rows = [{"id": f"{w}{v}", "path": f"{w}{v}.wav", "work": w, "labels": []} for w in "abcde" for v in range(4)]
    rows.append({"id": "f0", "path": "f0.wav", "work": "f", "labels": []})
    frame = table(rows).with_columns(split=pl.lit("train"))
    return frame.with_columns(
        split=pl.when(pl.col("work").is_in(["e", "f"])).then(pl.lit("test")).otherwise(pl.lit("train"))
    )


def test_folds_of_works_and_of_recordings():
    for fold in range(2):
        whole = fold_tracks(works(), 2, fold, "works")
        spread = whole.group_by("work").agg(pl.col("split").n_unique())
        assert (spread["split"] == 1).all()
        mixed = fold_tracks(works(), 2, fold, "recordings").filter(pl.col("split") == "valid")
        assert sorted(mixed["work"].value_counts().rows()) == [(w, 2) for w in "abcd"]
        assert mixed["fold"].unique().to_list() == [fold]


def test_folds_of_the_table():
    frame = works().with_columns(fold=pl.Series([i % 3 for i in range(21)]))
    found = fold_tracks(frame, 3, 1, "table")
    expected = frame.filter((pl.col("fold") == 1) & (pl.col("split") == "train"))["id"].to_list()
    assert found.filter(pl.col("split") == "valid")["id"].to_list() == expected
    with pytest.raises(UserError, match="column fold"):
        fold_tracks(works(), 3, 1, "table")


@pytest.mark.parametrize(
    ("folds", "fold", "by"), [(3, 3, "works"), (None, 0, "works"), (3, "some", "works"), (3, 0, "x")]
)
def test_impossible_folds_are_refused(folds, fold, by):
    with pytest.raises(UserError, match=r"data\.fold="):
        fold_tracks(works(), folds, fold, by)


def test_groups_of_all_folds_are_the_same(corpus, tmp_path):
    groups = set()
    for fold in (0, 1, "all"):
        module = data(corpus, tmp_path, folds=2, fold=fold, plan={"group": "id", "items": 1})
        groups.add(module.spec.groups)
        batch = next(iter(module.train_dataloader()))
        assert (batch["group"] >= 0).all()
    assert len(groups) == 1
