"""Open-set metrics and calibration against scikit-learn and naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from tonnetz.metrics import openset
from tonnetz.metrics.expected_calibration import expected_calibration_error, reliability
from tonnetz.metrics.openset import back_off, back_off_scores

LEVELS = torch.tensor([[0, 4, 6], [1, 4, 6], [2, 5, 6], [3, 5, 6]])


def data(ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    known = torch.rand(300, generator=g) < 0.6
    score = torch.randn(300, generator=g) + known
    score = score.round() if ties else score
    return score, known, torch.rand(300, generator=g) < 0.7


@pytest.mark.parametrize("ties", [False, True])
def test_rejection_equals_sklearn_and_a_loop(ties: bool) -> None:
    score, known, correct = data(ties)
    assert openset.auroc(score, known) == pytest.approx(roc_auc_score(known, score))
    assert openset.aupr(score, known) == pytest.approx(average_precision_score(known, score))
    fpr, tpr, _ = roc_curve(known, score, drop_intermediate=False)
    assert openset.false_positives_at(score, known) == pytest.approx(fpr[(tpr >= 0.95).argmax()])
    curve = openset.oscr(score, known, correct)
    thresholds = [math.inf, *sorted(set(score.tolist()), reverse=True)]
    false = [sum(s >= t for s in score[~known].tolist()) / int((~known).sum()) for t in thresholds]
    right = [sum(s >= t for s in score[known & correct].tolist()) / int(known.sum()) for t in thresholds]
    assert curve.false_positive.tolist() == pytest.approx(false)
    assert curve.correct.tolist() == pytest.approx(right)
    steps = range(1, len(false))
    assert curve.area == pytest.approx(sum((false[i] - false[i - 1]) * (right[i] + right[i - 1]) / 2 for i in steps))
    all_right = openset.oscr(score, known, torch.ones_like(known))
    assert all_right.area == pytest.approx(openset.auroc(score, known))


def test_rejection_needs_both_kinds() -> None:
    score, known = torch.rand(5), torch.ones(5, dtype=torch.bool)
    assert math.isnan(openset.auroc(score, known))
    assert math.isnan(openset.false_positives_at(score, known))
    assert math.isnan(openset.oscr(score, known, known).area)


def test_back_off_answers_the_lowest_node_that_is_likely_enough() -> None:
    prob = torch.tensor([[[0.6, 0.2, 0.1, 0.1], [0.4, 0.35, 0.25, 0.0], [0.3, 0.2, 0.2, 0.3]]])
    answer = back_off(prob, LEVELS[None])
    assert answer.level.tolist() == [[0, 1, 2]]
    assert answer.node.tolist() == [[0, 4, 6]]
    never = back_off(prob / 3, LEVELS[None])
    assert never.level.tolist() == [[3, 3, 3]]
    assert never.node.tolist() == [[-1, -1, -1]]
    scores = back_off_scores(answer, torch.tensor([[1, 1, 3]]), LEVELS)
    assert scores.accuracy.item() == pytest.approx(2 / 3)
    assert scores.height.item() == 1
    assert scores.answered.item() == 1
    assert back_off_scores(never, torch.tensor([[1, 1, -1]]), LEVELS).accuracy.item() == 1
    assert back_off_scores(never, torch.tensor([[1, 1, -1]]), LEVELS).answered_accuracy.isnan()


def test_back_off_equals_a_loop_over_episodes_of_different_classes() -> None:
    g = torch.Generator().manual_seed(0)
    nodes = LEVELS[torch.stack([torch.randperm(4, generator=g)[:3] for _ in range(5)])]  # (5, 3, 3)
    prob = (2 * torch.randn(5, 20, 3, generator=g)).softmax(-1)
    answer = back_off(prob, nodes, 0.7)
    for e in range(5):
        for m in range(20):
            found = (3, -1)
            for level in (2, 1, 0):
                for node in set(nodes[e, :, level].tolist()):
                    if sum(float(prob[e, m, c]) for c in range(3) if nodes[e, c, level] == node) > 0.7:
                        found = (level, node)
            assert (answer.level[e, m].item(), answer.node[e, m].item()) == found


def test_expected_calibration_error_equals_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    confidence = torch.rand(4, 100, generator=g)
    confidence[0, :3] = torch.tensor([0.0, 0.5, 1.0])
    correct = torch.rand(4, 100, generator=g) < confidence**2
    total = 0.0
    for b in range(10):
        pairs = [(float(p), float(y)) for p, y in zip(confidence.flatten(), correct.flatten(), strict=True)]
        mine = [(p, y) for p, y in pairs if b / 10 < p <= (b + 1) / 10 or (b == 0 and p == 0)]
        total += abs(sum(p for p, _ in mine) - sum(y for _, y in mine)) / 400
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx(total)
    assert reliability(confidence, correct, 10).n.sum() == 400
    assert expected_calibration_error(torch.ones(4), torch.ones(4)) == 0
    assert math.isnan(expected_calibration_error(torch.zeros(0), torch.zeros(0)))
