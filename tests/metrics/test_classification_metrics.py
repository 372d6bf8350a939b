"""Metrics against scikit-learn and plain loops: ties, missing classes, partial labels, windows."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.metrics import classification as m

CASES = ["plain", "ties", "missing", "partial", "everything", "single"]


def case(name: str, rows: int = 60, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities and targets; "everything" has ties, missing classes and unknown cells at once."""
    g = torch.Generator().manual_seed(seed)
    rows = 1 if name == "single" else rows
    prob = torch.rand(rows, classes, generator=g)
    target = (torch.rand(rows, classes, generator=g) < 0.2 + 0.5 * prob).float()
    if name in ("ties", "everything"):
        prob = (prob * 5).round() / 5
    if name in ("missing", "everything"):
        target[:, 0], target[:, 1] = 0, 1  # no positive, no negative
        prob[:, 0] = 0.1  # nor decided
    if name in ("partial", "everything"):
        target[torch.rand(rows, classes, generator=g) < 0.4] = torch.nan
        target[:, 2] = torch.nan  # nothing known of a class
        target[3:6] = torch.nan  # nor of rows
    return prob, target


def columns(prob: Tensor, target: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Known cells of each class: (scores, labels)."""
    pairs = []
    for k in range(prob.shape[1]):
        known = ~target[:, k].isnan()
        pairs.append((prob[known, k].double().numpy(), target[known, k].int().numpy()))
    return pairs


def close(ours: Tensor, theirs: list[float] | np.ndarray | float) -> None:
    expected = torch.as_tensor(np.asarray(theirs), dtype=torch.float64)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_and_auc_equal_sklearn(name: str, seed: int) -> None:
    prob, target = case(name, seed=seed)
    ap, auc = [], []
    for scores, labels in columns(prob, target):
        both = len(set(labels)) == 2
        ap.append(sk.average_precision_score(labels, scores) if both else math.nan)
        auc.append(sk.roc_auc_score(labels, scores) if both else math.nan)
    close(m.average_precision(prob, target), ap)
    close(m.roc_auc(prob, target), auc)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_f1_precision_recall_equal_sklearn(name: str, seed: int) -> None:
    prob, target = case(name, seed=seed)
    thresholds = torch.linspace(0.2, 0.7, 6)
    decision = m.decide(prob, thresholds)
    pairs = columns(prob, target)
    for ours, theirs in ((m.f1, sk.f1_score), (m.precision, sk.precision_score), (m.recall, sk.recall_score)):
        expected = [
            theirs(labels, scores >= thresholds[k].double().item(), zero_division=0) if len(labels) else math.nan
            for k, (scores, labels) in enumerate(pairs)
        ]
        close(ours(decision, target), expected)
    known = ~target.isnan()
    close(m.micro_f1(decision, target), sk.f1_score(target[known], decision[known], zero_division=0))
    close(m.hamming(decision, target), 1 - sk.hamming_loss(target[known], decision[known]))


@pytest.mark.parametrize("name", ["plain", "ties", "missing"])
def test_complete_labels_equal_sklearn_multilabel(name: str) -> None:
    prob, target = case(name)
    numbers, classes = m.score(prob, target, 0.4)
    y, d = target.int().numpy(), (prob >= 0.4).numpy()
    assert numbers["macro_f1"] == pytest.approx(sk.f1_score(y, d, average="macro", zero_division=0), abs=1e-12)
    assert numbers["micro_f1"] == pytest.approx(sk.f1_score(y, d, average="micro", zero_division=0), abs=1e-12)
    assert numbers["macro_recall"] == pytest.approx(sk.recall_score(y, d, average="macro", zero_division=0))
    assert numbers["macro_precision"] == pytest.approx(sk.precision_score(y, d, average="macro", zero_division=0))
    assert numbers["accuracy"] == pytest.approx(sk.accuracy_score(y, d))
    assert numbers["hamming_distance"] == pytest.approx(sk.hamming_loss(y, d)) == 1 - numbers["hamming"]
    assert numbers["lrap"] == pytest.approx(sk.label_ranking_average_precision_score(y, prob.double().numpy()))
    assert torch.equal(m.confusion(prob, target, 0.4), torch.from_numpy(sk.multilabel_confusion_matrix(y, d)))
    assert classes["support"].tolist() == y.sum(0).tolist()
    if name == "missing":
        usable = y[:, 2:], prob[:, 2:].double().numpy()
        assert numbers["map"] == pytest.approx(sk.average_precision_score(*usable, average="macro"))
        assert numbers["roc_auc"] == pytest.approx(sk.roc_auc_score(*usable, average="macro"))


def test_macro_f1_counts_every_class_with_a_known_cell() -> None:
    prob, target = case("everything")
    decision = m.decide(prob, 0.4)
    kept = [k for k in range(6) if k != 2]
    expected = np.mean([
        sk.f1_score(labels, scores >= 0.4, zero_division=0)
        for k, (scores, labels) in enumerate(columns(prob, target)) if k in kept
    ])  # fmt: skip
    close(m.macro_f1(decision, target), expected)
    assert m.f1(decision, target)[0] == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_lrap_and_subset_accuracy_equal_sklearn_row_by_row(name: str, seed: int) -> None:
    prob, target = case(name, seed=seed)
    target[0] = torch.where(target[0].isnan(), torch.nan, 1.0)  # only positives
    target[-1] = torch.where(target[-1].isnan(), torch.nan, 0.0)  # only negatives
    ranking, exact = [], []
    for p, y in zip(prob, target, strict=True):
        known = ~y.isnan()
        if not known.any():
            continue
        pair = y[known].int()[None].numpy(), p[known].double()[None].numpy()
        positives = int(pair[0].sum())
        trivial = positives in (0, pair[0].size)  # scikit-learn refuses a single label, whose precision is 1
        ranking.append(1.0 if trivial else sk.label_ranking_average_precision_score(*pair))
        exact.append(np.array_equal(pair[0], pair[1] >= 0.5))
    close(m.lrap(prob, target), np.mean(ranking))
    close(m.accuracy(m.decide(prob, 0.5), target), np.mean(exact))


@pytest.mark.parametrize("ties", [False, True])
def test_multiclass_equals_sklearn(ties: bool) -> None:
    g = torch.Generator().manual_seed(1)
    prob = torch.rand(80, 5, generator=g).softmax(1)
    prob = (prob * 20).round() / 20 if ties else prob
    label = torch.randint(4, (80,), generator=g)  # class 4 never occurs
    target = torch.nn.functional.one_hot(label, 5).float()
    truth, guess = label.numpy(), prob.argmax(1).numpy()
    numbers, classes = m.score(prob, target, multilabel=False)
    options = {"labels": range(5), "zero_division": 0}
    assert numbers["macro_f1"] == pytest.approx(sk.f1_score(truth, guess, average="macro", **options))
    assert numbers["micro_f1"] == numbers["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))
    close(classes["f1"], sk.f1_score(truth, guess, average=None, **options))
    close(classes["precision"], sk.precision_score(truth, guess, average=None, **options))
    close(classes["recall"], sk.recall_score(truth, guess, average=None, **options))
    matrix = m.confusion(prob, target, multilabel=False)
    assert torch.equal(matrix, torch.from_numpy(sk.confusion_matrix(truth, guess, labels=range(5))))
    # rows that name no class, or two, say nothing; one known positive settles a row
    odd = torch.tensor([[torch.nan] * 5, [0.0] * 5, [1.0, 1, 0, 0, 0]])
    partial = torch.cat([torch.where(target > 0, 1.0, torch.nan), odd])
    again, _ = m.score(torch.cat([prob, prob[:3]]), partial, multilabel=False)
    assert again == pytest.approx(numbers)
    assert torch.equal(m.confusion(torch.cat([prob, prob[:3]]), partial, multilabel=False), matrix)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_best_thresholds_equal_brute_force(name: str, seed: int) -> None:
    prob, target = case(name, seed=seed)
    thresholds = m.best_thresholds(prob, target)
    ours = m.f1(m.decide(prob, thresholds), target)
    for k, (scores, labels) in enumerate(columns(prob, target)):
        if not labels.sum():
            assert thresholds[k] == 0.5
            continue
        best = max(sk.f1_score(labels, scores >= t) for t in np.unique(scores))
        assert ours[k].item() == pytest.approx(best)
        distinct = np.append(np.unique(scores)[::-1], 0.0)
        gaps = (distinct[:-1] + distinct[1:]) / 2
        assert np.abs(gaps - thresholds[k].item()).min() < 1e-7  # halfway between neighbours


def test_best_thresholds_at_the_edges() -> None:
    one = torch.tensor(0.5)
    prob = torch.stack([one, torch.nextafter(one, torch.tensor(1.0))])[:, None]  # neighbours in float32
    target = torch.tensor([[0.0], [1.0]])
    assert m.f1(m.decide(prob, m.best_thresholds(prob, target)), target).item() == 1
    zeros = torch.zeros(3, 1)
    assert m.decide(zeros, m.best_thresholds(zeros, torch.ones(3, 1))).all()
    assert m.best_thresholds(torch.zeros(0, 2), torch.zeros(0, 2)).tolist() == [0.5, 0.5]


def test_unknown_cells_do_not_matter_and_nothing_is_nan_without_cause() -> None:
    prob, target = case("everything")
    other = torch.where(target.isnan(), torch.rand(60, 6, generator=torch.Generator().manual_seed(9)), prob)
    assert m.score(other, target)[0] == m.score(prob, target)[0]
    assert torch.equal(m.best_thresholds(other, target), m.best_thresholds(prob, target))
    assert not any(map(math.isnan, m.score(prob, target)[0].values()))


@pytest.mark.parametrize("multilabel", [True, False])
def test_no_rows_or_no_known_cells_give_nan(multilabel: bool) -> None:
    for rows in (0, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers, classes = m.score(torch.rand(rows, 4), torch.full((rows, 4), torch.nan), multilabel=multilabel)
        assert all(map(math.isnan, numbers.values()))
        assert classes["support"].tolist() == [0] * 4


def test_nan_predictions_are_a_user_error() -> None:
    with pytest.raises(UserError, match="NaN"):
        m.score(torch.full((2, 2), torch.nan), torch.ones(2, 2))


def joined(window: list[list[float]], how: str, k: int) -> list[float]:
    """One row's windows joined class by class, in plain Python."""
    out = []
    for p in zip(*window, strict=True):
        best = sorted(p, reverse=True)[:k]
        out.append({
            "mean": sum(p) / len(p),
            "max": max(p),
            "noisy_or": 1 - math.prod(1 - x for x in p),
            "top_k": sum(best) / len(best),
            "linear_softmax": sum(x * x for x in p) / sum(p) if sum(p) else 0.0,
        }[how])  # fmt: skip
    return out


@pytest.mark.parametrize("how", m.METHODS)
@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_aggregate_equals_a_loop(how: str, k: int, ties: bool) -> None:
    g = torch.Generator().manual_seed(2)
    row = torch.randint(9, (50,), generator=g)
    row[row == 4] = 5  # a row without windows
    values = torch.rand(50, 4, generator=g, dtype=torch.float64)
    values = (values * 3).round() / 3 if ties else values  # also exact 0 and 1
    values[row == 0, 1] = 0
    ours = m.aggregate(values, row, 10, how, k)
    assert ours.shape == (10, 4)
    for i in range(10):
        window = values[row == i].tolist()
        close(ours[i], joined(window, how, k) if window else [math.nan] * 4)
    shuffled = torch.randperm(50, generator=g)
    torch.testing.assert_close(m.aggregate(values[shuffled], row[shuffled], 10, how, k), ours, equal_nan=True)


@pytest.mark.parametrize("how", m.METHODS)
def test_aggregate_without_windows_is_nan(how: str) -> None:
    assert m.aggregate(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2, how).isnan().all()


def test_aggregate_refuses_unknown_ways() -> None:
    with pytest.raises(UserError, match="did you mean 'max'"):
        m.aggregate(torch.ones(1, 1), torch.zeros(1, dtype=torch.long), 1, "maxx")
    with pytest.raises(UserError, match="top_k"):
        m.aggregate(torch.ones(1, 1), torch.zeros(1, dtype=torch.long), 1, "top_k", k=0)


def test_per_row_joins_windows_of_sparse_row_numbers() -> None:
    prob = torch.tensor([[0.2], [0.4], [0.9]])
    target = torch.tensor([[1.0], [1.0], [torch.nan]])
    values, labels, rows = m.per_row(prob, target, torch.tensor([70, 70, 5]))
    assert rows.tolist() == [5, 70]
    torch.testing.assert_close(values, torch.tensor([[0.9], [0.3]]))
    torch.testing.assert_close(labels, torch.tensor([[torch.nan], [1.0]]), equal_nan=True)
