"""Family scores and targets against a loop over classes."""

from __future__ import annotations

import math

import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.losses import BCE, FamilyLoss, family_loss, family_scores, family_targets

FAMILIES = [0, 1, 0, -1, 2, 1, 0]


def test_scores_and_targets_equal_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=g)
    target = (torch.rand(50, 7, generator=g) < 0.3).float()
    target[torch.rand(50, 7, generator=g) < 0.3] = torch.nan
    scores, targets = (
        family_scores(logits, torch.tensor(FAMILIES)),
        family_targets(target, torch.tensor(FAMILIES)),
    )
    assert scores.shape == targets.shape == (50, 3)
    for i in range(50):
        for family in range(3):
            members = [k for k in range(7) if FAMILIES[k] == family]
            assert scores[i, family] == max(logits[i, k] for k in members)
            labels = [float(target[i, k]) for k in members]
            if 1.0 in labels:
                assert targets[i, family] == 1
            elif any(map(math.isnan, labels)):
                assert targets[i, family].isnan()
            else:
                assert targets[i, family] == 0
    torch.testing.assert_close(FamilyLoss(FAMILIES)(logits, target), BCE()(scores, targets))
    torch.testing.assert_close(family_loss(logits, target, tuple(FAMILIES)), BCE()(scores, targets))


def test_gradient_reaches_only_the_strongest_member() -> None:
    logits = torch.tensor([[1.0, 0.0, 3.0, 9.0, 0.0, 2.0, 2.0]], requires_grad=True)
    FamilyLoss(FAMILIES)(logits, torch.tensor([[1.0, 0, 0, 1, 0, 0, 0]])).backward()
    assert logits.grad[0].ne(0).tolist() == [False, False, True, False, True, True, False]


@pytest.mark.parametrize("families", [[], [-1, -1], [0, 2], [1, 2], [-2, 0]])
def test_bad_families_are_user_errors(families: list[int]) -> None:
    with pytest.raises(UserError, match="families"):
        FamilyLoss(families)


def test_wrong_number_of_classes_is_a_user_error() -> None:
    with pytest.raises(UserError, match="one per class"):
        FamilyLoss([0, 1])(torch.zeros(2, 3), torch.zeros(2, 3))
