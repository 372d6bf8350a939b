"""Metrics of a tree of classes against naive loops, scikit-learn and hand-made numbers."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from tonnetz.metrics import hierarchy

# classes 0 ... 5; middle nodes 6 (0 1), 7 (2), 8 (3 4), 9 (5); tops 10 (0 1 2), 11 (3 4 5)
LEVELS = torch.tensor([[0, 6, 10], [1, 6, 10], [2, 7, 10], [3, 8, 11], [4, 8, 11], [5, 9, 11]])
LINES = torch.zeros(6, 12, dtype=torch.bool).scatter(1, LEVELS, True)


def answers() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    target = torch.randint(6, (4, 30), generator=g)
    prediction = torch.where(torch.rand(4, 30, generator=g) < 0.5, target, torch.randint(6, (4, 30), generator=g))
    prediction[3] = target[3]  # an episode without a mistake
    target[1, 5:9] = -1
    return prediction, target


def height(a: int, b: int) -> int:
    return next((level for level in range(3) if LEVELS[a, level] == LEVELS[b, level]), 3)


def test_accuracy_severity_and_paths_equal_a_loop() -> None:
    prediction, target = answers()
    table = hierarchy.heights(LEVELS)
    assert table.tolist() == [[height(a, b) for b in range(6)] for a in range(6)]
    accuracy = hierarchy.level_accuracy(prediction, target, LEVELS)
    severity = hierarchy.severity(prediction, target, table)
    precision, recall, f1 = hierarchy.path_scores(prediction, target, LINES)
    for e in range(4):
        pairs = [(p, t) for p, t in zip(prediction[e].tolist(), target[e].tolist(), strict=True) if t >= 0]
        far = [height(p, t) for p, t in pairs]
        for level in range(3):
            assert accuracy[e, level].item() == pytest.approx(sum(h <= level for h in far) / len(far))
        wrong = [h for h in far if h]
        assert severity.mistakes[e] == len(wrong)
        assert severity.all[e].item() == pytest.approx(sum(far) / len(far))
        if wrong:
            assert severity.mistake[e].item() == pytest.approx(sum(wrong) / len(wrong))
        expected = sum(1 - h / 3 for h in far) / len(far)  # all three are one number on an even tree
        for value in (precision, recall, f1):
            assert value[e].item() == pytest.approx(expected)
    assert severity.mistake[3].isnan()
    assert severity.mistakes[3] == 0


def test_pooled_f1_equals_sklearn() -> None:
    prediction, target = answers()
    prediction[prediction == 2] = 0
    target[target == 2] = 0  # a class that never occurs does not count
    f1 = hierarchy.level_f1(prediction, target, LEVELS)
    kept = target >= 0
    for level in range(3):
        y, p = LEVELS[target[kept], level], LEVELS[prediction[kept], level]
        assert f1.macro[level].item() == pytest.approx(f1_score(y, p, average="macro"))
        assert f1.micro[level].item() == pytest.approx(f1_score(y, p, average="micro"))
    classes = hierarchy.class_f1(prediction, target, 6)
    assert classes[2].isnan()
    expected = f1_score(target[kept], prediction[kept], average=None, labels=[0, 1, 3, 4, 5])
    assert classes[[0, 1, 3, 4, 5]].tolist() == pytest.approx(expected.tolist())


def test_consistency_counts_agreement() -> None:
    prediction = torch.tensor([[0, 3, 5, 2]])
    ancestor = LEVELS[prediction].clone()
    ancestor[0, 0, 1] = 8
    ancestor[0, :2, 2] = torch.tensor([11, 10])
    assert hierarchy.consistency(ancestor, prediction, LEVELS).tolist() == [[1.0, 0.75, 0.5]]
    assert hierarchy.consistency(ancestor, prediction, LEVELS, torch.tensor([[-1, 3, 5, 2]]))[0].tolist() == (
        pytest.approx([1.0, 1.0, 2 / 3])
    )


def test_chance_equals_many_random_answers() -> None:
    g = torch.Generator().manual_seed(1)
    classes = torch.tensor([[0, 1, 3, -1], [0, 2, 4, 5]])
    place = torch.tensor([3, 4])
    target = torch.stack([classes[e, torch.randint(int(place[e]), (5,), generator=g)] for e in range(2)])
    target[0, 0] = -1
    table = hierarchy.heights(LEVELS)
    chance = hierarchy.chance(target, classes, LEVELS, table)
    many = target.repeat(1, 8000)
    drawn = (torch.rand(many.shape, generator=g) * place[:, None]).long()
    prediction = classes.gather(1, drawn)
    severity = hierarchy.severity(prediction, many, table)
    torch.testing.assert_close(chance.accuracy, hierarchy.level_accuracy(prediction, many, LEVELS), atol=0.01, rtol=0)
    torch.testing.assert_close(chance.macro_f1, hierarchy.level_f1(prediction, many, LEVELS).macro, atol=0.01, rtol=0)
    torch.testing.assert_close(chance.all, severity.all, atol=0.02, rtol=0)
    torch.testing.assert_close(chance.consistency[0], torch.tensor([1 / 3, 1 / 2, 1 / 2]).double(), atol=1e-6, rtol=0)
    one = target[1].tolist()
    others = [[height(t, c) for c in (0, 2, 4, 5) if c != t] for t in one]
    assert chance.mistake[1].item() == pytest.approx(sum(sum(o) / 3 for o in others) / 5)


def test_nothing_to_count_is_nan() -> None:
    none = torch.full((1, 3), -1)
    prediction = torch.zeros(1, 3, dtype=torch.long)
    assert hierarchy.level_accuracy(prediction, none, LEVELS).isnan().all()
    assert math.isnan(hierarchy.severity(prediction, none, hierarchy.heights(LEVELS)).all.item())
