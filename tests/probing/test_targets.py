"""Targets from labels and columns, the constant predictor, fractions of the training tracks."""

import numpy as np
import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.metrics.key import KEYS, key_table
from tonnetz.probing import Goal
from tonnetz.probing.targets import constant, fraction_of, targets
from tonnetz.tracks import table


def frames(**columns):
    """Three splits of four tracks; a column is given as twelve values."""
    columns = {"labels": [["a"], ["b"], ["a"], ["b"]] * 3} | columns
    rows = [{"id": f"{i}", "path": f"{i}.wav", **{k: v[i] for k, v in columns.items()}} for i in range(12)]
    whole = table(rows)
    return {split: whole[4 * i : 4 * i + 4] for i, split in enumerate(("train", "valid", "test"))}


def test_one_label_a_track_is_classes():
    labels = [["b"], ["a"], None, ["c"]] * 3
    goal, values = targets(frames(labels=labels), "labels")
    assert (goal.kind, goal.names, goal.monitor) == ("classes", ("a", "b", "c"), "accuracy")
    assert values["test"].tolist() == [1, 0, -1, 2]


def test_several_labels_or_unknown_ones_are_multilabel():
    labels = [["b", "a"], [], None, ["c"]] * 3
    goal, values = targets(frames(labels=labels), "labels")
    assert (goal.kind, goal.names, goal.monitor) == ("multilabel", ("a", "b", "c"), "roc_auc")
    assert values["train"][:, :2].T.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert values["train"][:, 2].isnan().all()
    unknown, _ = targets(frames(unknown=[["a"], None, None, None] * 3), "labels")
    assert unknown.kind == "multilabel"


def test_columns_are_classes_numbers_or_keys():
    whole = frames(
        shift=[10, 9, 10, None] * 3, tempo=[60.5, 90.0, None, 120.0] * 3, key=["C# minor", "Dbm", "A", None] * 3
    )
    goal, values = targets(whole, "shift")
    assert (goal.kind, goal.names) == ("classes", ("9", "10"))  # numbers in their order
    assert values["valid"].tolist() == [1, 0, 1, -1]
    goal, values = targets(whole, ["tempo", "shift"])
    assert (goal.kind, goal.monitor) == ("number", "r2")
    np.testing.assert_allclose(np.nanmean(values["train"], 1), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(values["train"], 1), 1, atol=1e-6)
    assert values["train"][0, 2].isnan()
    goal, values = targets(whole, "key", kind="key")
    assert goal.names == KEYS
    assert values["test"].tolist() == [13, 13, 9, -1]
    assert targets(whole, "key", kind="key", metric="accuracy")[0].monitor == "accuracy"


@pytest.mark.parametrize(
    ("columns", "target", "words", "message"),
    [
        ({}, "lables", {}, "did you mean 'labels'"),
        ({"word": ["x", "y"] * 6}, "word", {"kind": "number"}, "no numbers"),
        ({"word": ["x", "y"] * 6}, "word", {"kind": "key"}, "is no key"),
        ({"word": ["x", "y"] * 6}, "word", {"kind": "multilabel"}, "only labels can be several"),
        ({"word": ["x"] * 11 + ["y"]}, "word", {}, "class 'y' has no training track"),
        ({"word": ["x"] * 12}, "word", {}, "is the only class"),
        ({"value": [1.0] * 12}, "value", {}, "the same for all training tracks"),
        ({}, "labels", {"kind": "class"}, "did you mean 'classes'"),
        ({}, "labels", {"metric": "auc"}, "classes has accuracy, macro_f1"),
    ],
)
def test_mistakes_are_named(columns, target, words, message):
    with pytest.raises(UserError, match=message):
        targets(frames(**columns), target, **words)


def test_numbers_become_classes_of_equal_size():
    numbers = [1.0, 4.0, 2.0, 3.0, 0.0, 1.5, 2.4, None, 2.5, 2.6, 9.0, 3.0]
    goal, values = targets(frames(number=numbers), "number", bins=2)
    assert (goal.kind, goal.names) == ("classes", ("..2.5", "2.5.."))  # 2.5 is the median of training
    assert values["train"].tolist() == [0, 1, 0, 1]
    assert values["valid"].tolist() == [0, 0, 0, -1]
    assert values["test"].tolist() == [1, 1, 1, 1]
    with pytest.raises(UserError, match="too few different values"):
        targets(frames(number=[1.0] * 12), "number", bins=2)
    with pytest.raises(UserError, match=r"job\.kind=number"):
        targets(frames(number=numbers), "number", kind="number", bins=2)
    with pytest.raises(UserError, match="one column of numbers"):
        targets(frames(number=numbers), ["number", "number"], bins=2)


def test_classes_that_training_lacks_can_be_left_out(capsys):
    whole = frames(word=["x", "y", "x", "y", "x", "z", "y", "y", "w", "y", "z", None])
    goal, values = targets(whole, "word", unseen="drop")
    assert goal.names == ("x", "y")
    assert values["valid"].tolist() == [0, -1, 1, 1]
    assert values["test"].tolist() == [-1, 1, -1, -1]
    assert "2 of 4 test tracks left out, word: w, z" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"job\.unseen=skip"):
        targets(whole, "word", unseen="skip")


def test_the_constant_predictor_says_what_pays():
    goal = Goal("classes", ("a", "b", "c"))
    train = torch.tensor([2, 2, 1, -1, -1, -1, -1])
    assert constant(goal, train, 4).argmax(0).tolist() == [2] * 4
    key = Goal("key", KEYS)
    truth = torch.tensor([0] * 3 + [5] * 2 + [21] * 2)  # C, F, A minor: no key pays as C major or A minor do
    best = int(constant(key, truth, 1).argmax())
    paid = key_table()[truth].sum(0)
    assert paid[best] == paid.max()
    labels = Goal("multilabel", ("a", "b"))
    share = constant(labels, torch.tensor([[1.0, 0, 0, torch.nan], [1, 1, 0, 0]]), 2)
    torch.testing.assert_close(share, torch.tensor([[1 / 3, 1 / 3], [0.5, 0.5]]))
    assert labels.metrics(share, torch.tensor([[1.0, 0], [0, 1]]))["roc_auc"] == 0.5


def test_always_c_minor_over_all_keys():
    goal = Goal("key", KEYS)
    score = torch.zeros(24, 24)
    score[12] = 1  # C minor for every true key
    found = goal.metrics(score, torch.arange(24))
    assert found["key_score"] == pytest.approx((1 + 0.5 + 0.3 + 0.2) / 24)
    assert found["key_score_symmetric"] == pytest.approx((1 + 0.5 + 0.5 + 0.3 + 0.2) / 24)


def test_fractions_keep_every_class():
    target = torch.tensor([0] * 90 + [1] * 10 + [-1] * 20)
    assert fraction_of(target, 1.0, 0).tolist() == list(range(100))
    for fraction, counts in ((0.1, [9, 1]), (0.01, [1, 1]), (0.5, [45, 5])):
        kept = fraction_of(target, fraction, 0)
        assert target[kept].bincount().tolist() == counts
        assert torch.equal(kept, fraction_of(target, fraction, 0))
    assert not torch.equal(fraction_of(target, 0.1, 0), fraction_of(target, 0.1, 1))
    several = torch.zeros(3, 100)
    several[:, 50:] = torch.nan
    assert len(fraction_of(several, 0.1, 0)) == 5
    with pytest.raises(UserError, match="above 0"):
        fraction_of(target, 0.0, 0)


def test_classes_without_both_answers_are_named():
    goal = Goal("multilabel", ("a", "b", "c"))
    target = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, torch.nan, 1]])
    assert goal.undefined(target) == ["b", "c"]
