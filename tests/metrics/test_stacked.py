"""Metrics of many predictors at once against scikit-learn and mir_eval, one predictor and class at a time."""

import mir_eval
import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from tonnetz.errors import UserError
from tonnetz.metrics import stacked
from tonnetz.metrics.key import KEYS, key_score, key_table, parse_key

ROUGH = [None, 2.0, 0.4]  # scores times this, rounded: ever more ties


def scores(rough, classes=6, items=301, predictors=5):
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(classes, items, generator=g) < torch.linspace(0.02, 0.7, classes)[:, None]).float()
    score = torch.randn(predictors, classes, items, generator=g) + target * torch.rand(predictors, 1, 1, generator=g)
    return score if rough is None else (score * rough).round(), target


@pytest.mark.parametrize("rough", ROUGH)
@pytest.mark.parametrize(("ours", "theirs"), [("roc_auc", sk.roc_auc_score), ("average_precision", None)])
def test_ranking_equals_sklearn_with_ties(rough, ours, theirs):
    theirs = theirs or sk.average_precision_score
    score, target = scores(rough)
    found = getattr(stacked, ours)(score, target)
    for c in range(len(score)):
        for k in range(len(target)):
            assert found[c, k].item() == pytest.approx(theirs(target[k].numpy(), score[c, k].numpy()), abs=1e-9)


@pytest.mark.parametrize("ours", ["roc_auc", "average_precision"])
def test_unknown_cells_do_not_count(ours):
    score, target = scores(1.0)
    target[1, ::3] = torch.nan
    whole = getattr(stacked, ours)(score, target)
    known = ~target[1].isnan()
    alone = getattr(stacked, ours)(score[:, 1:2, known], target[1:2, known])
    torch.testing.assert_close(whole[:, 1], alone[:, 0])


@pytest.mark.parametrize("ours", ["roc_auc", "average_precision"])
def test_a_class_of_one_kind_is_undefined_and_the_others_are_not(ours):
    score, target = scores(None)
    target[0], target[1] = 0.0, 1.0
    found = getattr(stacked, ours)(score, target)
    assert found[:, :2].isnan().all()
    assert found[:, 2:].isfinite().all()


def test_extreme_scores_keep_their_order():
    score = torch.tensor([[[-torch.inf, -3e38, -1e-45, -0.0, 0.0, 1e-45, 3e38, torch.inf]]])
    target = torch.tensor([[0.0, 0, 0, 0, 1, 1, 1, 1]])
    assert stacked.roc_auc(score, target).item() == pytest.approx(1 - 0.5 / 16)  # -0 and 0 are equal
    assert stacked.roc_auc(-score, target).item() == pytest.approx(0.5 / 16)


def test_numpy_and_torch_sort_alike():
    score, target = scores(0.7)
    rows = score.flatten(0, 1), (target > 0.5).repeat(5, 1), torch.rand(30, 301) < 0.8
    ours, other = stacked._wins_torch(*rows), stacked._wins_numpy(*(r.numpy() for r in rows))
    np.testing.assert_array_equal(ours[0], other[0])
    np.testing.assert_array_equal(ours[1], other[1])


def test_targets_of_their_own(monkeypatch):
    score, target = scores(1.0)
    own = torch.stack([target.roll(i, -1) for i in range(5)])
    monkeypatch.setattr(stacked, "BLOCK", 700)  # many blocks
    for name in ("roc_auc", "average_precision"):
        found = getattr(stacked, name)(score, own)
        for c in range(5):
            torch.testing.assert_close(found[c], getattr(stacked, name)(score[c : c + 1], own[c])[0])


def test_decisions_equal_sklearn():
    g = torch.Generator().manual_seed(1)
    score, target = torch.randn(4, 7, 200, generator=g), torch.randint(7, (200,), generator=g)
    score[:, 3] -= 9  # a class that is never chosen
    for c, (accuracy, f1) in enumerate(
        zip(stacked.accuracy(score, target), stacked.macro_f1(score, target), strict=True)
    ):
        chosen = score[c].argmax(0)
        assert accuracy.item() == pytest.approx(sk.accuracy_score(target, chosen))
        assert f1.item() == pytest.approx(sk.f1_score(target, chosen, average="macro"))
    target[:50] = -1
    assert stacked.accuracy(score, target)[0].item() == pytest.approx(
        sk.accuracy_score(target[50:], score[0].argmax(0)[50:])
    )


def test_r2_equals_sklearn():
    g = torch.Generator().manual_seed(2)
    target = torch.randn(2, 80, generator=g) * 3 + 5
    score = target + torch.randn(3, 2, 80, generator=g)
    for c in range(3):
        expected = sk.r2_score(target.T, score[c].T, multioutput="raw_values")
        np.testing.assert_allclose(stacked.r2(score, target)[c], expected, atol=1e-6)


def test_the_key_table_equals_mir_eval():
    names = [name.replace("Db", "C#").replace("Gb", "F#") for name in KEYS]
    expected = [[mir_eval.key.weighted_score(truth, guess) for guess in names] for truth in names]
    np.testing.assert_array_equal(key_table(), expected)
    values, counts = key_table().unique(return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0.0: 480, 0.2: 24, 0.3: 24, 0.5: 24, 1.0: 24}


def test_the_symmetric_table_scores_both_fifths():
    table, plain = key_table(True), key_table()
    assert ((table == 0.5).sum(1) == 2).all()
    assert (table - plain).nonzero().shape[0] == 24
    torch.testing.assert_close(table, table.T)


def test_key_score_is_the_mean_of_the_table():
    g = torch.Generator().manual_seed(3)
    score, target = torch.randn(3, 24, 50, generator=g), torch.randint(24, (50,), generator=g)
    names = [name.replace("Db", "C#").replace("Gb", "F#") for name in KEYS]
    for c, found in enumerate(key_score(score, target)):
        pairs = zip(target.tolist(), score[c].argmax(0).tolist(), strict=True)
        expected = np.mean([mir_eval.key.weighted_score(names[a], names[b]) for a, b in pairs])
        assert found.item() == pytest.approx(expected)


def test_names_of_keys():
    assert [parse_key(name) for name in KEYS] == list(range(24))
    assert [parse_key(name) for name in ("F# minor", "Gb:min", "gbm", "Cb", "B# major")] == [18, 18, 18, 11, 0]
    for wrong in ("H major", "C dorian", "", "4"):
        with pytest.raises(UserError, match="is no key"):
            parse_key(wrong)
