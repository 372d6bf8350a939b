"""Invariants of the splits over random tables of works."""

import numpy as np
import polars as pl
import pytest

from tonnetz.errors import UserError
from tonnetz.splits import kfold, kfold_works, split_works
from tonnetz.tracks import check_disjoint, table

SEEDS = range(12)


def random_table(seed, copies=True):
    """Works of 1 to 9 recordings; some recordings in two rows (a copy, or a second excerpt of the file)."""
    random = np.random.default_rng(seed)
    rows = []
    for work in range(random.integers(5, 40)):
        for version in range(random.integers(1, 10)):
            name = f"w{work}-v{version}"
            row = {"id": name, "path": f"{name}.wav", "work": f"w{work}", "group": name}
            rows.append(row)
            if copies and random.random() < 0.2:
                rows.append({**row, "id": f"sp_0.8-{name}", "path": f"sp_0.8-{name}.wav"})
            if copies and random.random() < 0.1:
                rows.append({**row, "id": f"{name}@9", "offset": 9.0, "group": None})
    return table(rows)


def counts(frame):
    """{work: {split: number of recordings}} by a plain loop."""
    found = {}
    for row in frame.iter_rows(named=True):
        name = row["id"].removeprefix("sp_0.8-").removesuffix("@9")
        found.setdefault(row["work"], {}).setdefault(row["split"], set()).add(name)
    return {work: {split: len(names) for split, names in splits.items()} for work, splits in found.items()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fractions", [(0.0, 0.0, 0.15, 0.15), (0.1, 0.1, 0.02, 0.04), (0.3, 0.2, 0.0, 0.0)])
def test_split_by_recording_and_by_work(seed, fractions):
    valid, test, valid_unseen, test_unseen = fractions
    frame = random_table(seed)
    done = split_works(frame, *fractions, seed=seed)
    assert done.drop("split").equals(frame.drop("split"))
    assert done["split"].null_count() == 0
    check_disjoint(done)  # neither files nor recordings straddle
    found = counts(done)
    fit = [work for work, splits in found.items() if sum(splits.values()) >= 2]
    for name, fraction, part in (("valid", valid_unseen, valid), ("test", test_unseen, test)):
        whole = [work for work in fit if set(found[work]) == {name}]
        least = 2 if len(fit) >= 6 else 1
        assert len(whole) == (max(least, int(fraction * len(fit) + 1e-9)) if fraction else 0)
        for work, splits in found.items():
            size = sum(splits.values())
            if work not in whole and name in splits:  # a seen work
                assert splits["train"] >= 2
                assert 1 <= splits[name] <= max(1, int(part * size + 1e-9))
    for splits in found.values():
        size = sum(splits.values())
        if size == 1:
            assert set(splits) == {"train"}  # it has no pair to find
        elif "train" in splits:
            assert (set(splits) > {"train"}) == (size > 2 and valid + test > 0)
            if size >= 4 and valid and test:
                assert set(splits) == {"train", "valid", "test"}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seed_alone_decides(seed):
    frame = random_table(seed)
    first = split_works(frame, 0.2, 0.2, 0.1, 0.1, seed=seed)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed + 1)
    again = split_works(shuffled, 0.2, 0.2, 0.1, 0.1, seed=seed)
    assert dict(zip(first["id"], first["split"], strict=True)) == dict(zip(again["id"], again["split"], strict=True))
    other = split_works(frame, 0.2, 0.2, 0.1, 0.1, seed=seed + 100)
    assert not first.equals(other)


def test_given_splits_are_kept_lent_and_not_filled_up():
    frame = random_table(3).with_row_index("n")
    official = pl.when(pl.col("work") == "w1").then(pl.lit("test"))
    frame = frame.with_columns(split=official.cast(pl.String)).drop("n")
    done = split_works(frame, 0.2, 0.2, 0.2, 0.2, seed=0)
    assert set(done.filter(split="test")["work"]) == {"w1"}
    assert "valid" in set(done["split"])
    half = random_table(4)
    first = half.with_columns(split=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("valid")).cast(pl.String))
    first = first.vstack(first.head(1).with_columns(split=pl.lit(None, pl.String), id=pl.lit("copy")))
    done = split_works(first, 0.2, 0.2, 0.2, 0.2, seed=0)
    assert done.filter(id="copy")["split"].to_list() == ["valid"]
    check_disjoint(done)


def test_a_work_with_an_official_training_recording_is_not_unseen():
    rows = [{"id": f"{w}{v}", "path": f"{w}{v}", "work": w, "split": None} for w in "abcd" for v in range(4)]
    rows[0]["split"] = "train"
    for seed in SEEDS:
        done = split_works(table(rows), 0.0, 0.0, 0.3, 0.6, seed=seed)
        assert set(done.filter(work="a")["split"]) == {"train"}
        assert set(done.filter(pl.col("split") == "test")["work"].value_counts()["count"]) == {4}


def test_works_that_share_a_recording_are_one():
    rows = [{"id": f"{w}{v}", "path": f"{w}{v}.wav", "work": w, "group": f"{w}{v}"} for w in "abcdef" for v in range(3)]
    rows.append({"id": "medley", "path": "a0.wav", "work": "b", "group": None})
    for seed in SEEDS:
        done = split_works(table(rows), 0.0, 0.0, 0.2, 0.2, seed=seed)
        check_disjoint(done)
        assert done.filter(pl.col("work").is_in(["a", "b"]))["split"].n_unique() == 1


@pytest.mark.parametrize(
    ("works", "expected"), [(1, {"train"}), (2, {"train", "test"}), (3, {"train", "valid", "test"})]
)
def test_few_works(works, expected):
    rows = [{"id": f"{w}{v}", "path": f"{w}{v}", "work": f"{w}"} for w in range(works) for v in range(2)]
    done = split_works(table(rows))
    assert set(done["split"]) == expected
    assert done.group_by("work").agg(pl.col("split").n_unique())["split"].max() == 1


def few(works, versions=2):
    """A table of so many works, w0, w1, ..."""
    names = [f"w{work}" for work in range(works)]
    return table([{"id": f"{w}v{v}", "path": f"{w}v{v}", "work": w} for w in names for v in range(versions)])


@pytest.mark.parametrize(("works", "expected"), [(5, 1), (6, 2), (13, 2), (14, 2), (20, 3)])
def test_a_split_of_a_small_collection_has_works_to_confuse(works, expected):
    for seed in SEEDS:
        done = split_works(few(works), seed=seed)
        for split in ("valid", "test"):
            assert done.filter(split=split)["work"].n_unique() == expected
        assert done.filter(split="train")["work"].n_unique() == works - 2 * expected
    kept = split_works(few(works), valid_unseen=0.0)
    assert set(kept["split"]) == {"train", "test"}


def test_a_second_work_is_not_taken_from_a_training_that_has_two():
    done = split_works(few(6), test_unseen=0.5, valid_unseen=0.17)
    found = {split: done.filter(split=split)["work"].n_unique() for split in ("train", "valid", "test")}
    assert found == {"train": 2, "valid": 1, "test": 3}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("valid", "test"), [(0.15, 0.15), (0.1, 0.3), (0.02, 0.15), (0.15, 0.02), (0.0, 0.4)])
def test_a_second_work_moves_no_other(seed, valid, test, monkeypatch):
    frame = few(np.random.default_rng(seed).integers(6, 40), 4)
    done = split_works(frame, 0.2, 0.2, valid, test, seed)
    monkeypatch.setattr("tonnetz.splits.LEAST", 1)  # as it was before
    before = split_works(frame, 0.2, 0.2, valid, test, seed)
    whole = {}
    for split in ("valid", "test"):
        whole[split], now = ({w for w, s in counts(f).items() if set(s) == {split}} for f in (before, done))
        assert whole[split] <= now
        assert len(whole[split]) == len(now) or len(whole[split]) == 1
    if all(len(works) != 1 for works in whole.values()):
        assert done.equals(before)


def test_tracks_without_a_work_train():
    done = split_works(table([{"id": f"{i}", "path": f"{i}"} for i in range(9)]), 0.2, 0.2)
    assert set(done["split"]) == {"train"}


def test_equal_ids_of_two_corpora_are_two_recordings():
    rows = [{"id": f"{v}", "path": f"{c}/{w}/{v}", "work": f"{c}{w}"} for c in "xy" for w in range(4) for v in range(2)]
    done = split_works(table(rows), test_unseen=0.3, valid_unseen=0.2)
    assert done.group_by("work").agg(pl.col("split").n_unique())["split"].max() == 1
    assert done.filter(split="test")["work"].n_unique() == 2


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0), (0, 1), (0, 0, 0.6, 0.4)])
def test_impossible_fractions(fractions):
    with pytest.raises(UserError, match="fractions must be in"):
        split_works(random_table(0), *fractions)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [2, 5])
def test_kfold_has_two_recordings_of_a_work_in_a_fold_or_none(seed, k):
    frame = random_table(seed).with_columns(fold=pl.lit(0))
    folds = kfold(frame, k, seed)
    assert folds.name == "fold"
    frame = frame.with_columns(folds)
    assert frame.group_by("path").agg(pl.col("fold").n_unique())["fold"].max() == 1
    recordings = frame.filter(~pl.col("id").str.starts_with("sp_") & ~pl.col("id").str.ends_with("@9"))
    sizes = recordings["fold"].value_counts()["count"]
    assert len(sizes) == k
    assert sizes.max() - sizes.min() <= 3
    for rows in recordings.partition_by("work"):
        each = [count for i in range(k) if (count := int((rows["fold"] == i).sum()))]
        assert max(each) - min(each) <= 1
        assert len(each) == min(k, max(1, len(rows) // 2))
        assert min(each) >= min(2, len(rows))
    copies = dict(zip(frame["id"], frame["fold"], strict=True))
    assert all(copies[name] == fold for name, fold in copies.items() if name.startswith("sp_") for name in [name[7:]])
    assert kfold(frame, k, seed).equals(folds)


@pytest.mark.parametrize("seed", SEEDS)
def test_kfold_of_works_is_disjoint_and_even(seed):
    frame = random_table(seed, copies=False)
    frame = frame.with_columns(kfold_works(frame, 3, seed))
    assert frame.group_by("work").agg(pl.col("fold").n_unique())["fold"].max() == 1
    sizes = frame["fold"].value_counts()["count"]
    assert len(sizes) == 3
    assert sizes.max() - sizes.min() <= frame["work"].value_counts()["count"].max()


def test_no_fold_is_empty():
    pairs = table([{"id": f"{w}{v}", "path": f"{w}{v}", "work": str(w)} for w in range(4) for v in range(2)])
    assert sorted(kfold(pairs, 4).unique()) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="5 folds of 4 parts of works, of two recordings each: choose from 2 up to"):
        kfold(pairs, 5)


def test_impossible_folds():
    frame = random_table(0)
    for k in (1, 0, 10**6):
        with pytest.raises(UserError, match="choose from 2 up to the number"):
            kfold(frame, k)
        with pytest.raises(UserError, match="choose from 2 up to the number of works"):
            kfold_works(frame, k)
