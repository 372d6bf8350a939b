"""Losses: functions of tensors, and modules that hold their parameters."""

from tonnetz.losses.classification import BCE, AsymmetricFocal, BCEPosWeight, CrossEntropy, Focal, auto
from tonnetz.losses.family import FamilyLoss, family_loss, family_scores, family_targets

__all__ = [
    "BCE",
    "AsymmetricFocal",
    "BCEPosWeight",
    "CrossEntropy",
    "FamilyLoss",
    "Focal",
    "auto",
    "family_loss",
    "family_scores",
    "family_targets",
]
