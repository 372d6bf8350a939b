"""Losses: functions of tensors, and modules that hold their parameters."""

from tonnetz.losses.center import Center
from tonnetz.losses.circle import Circle
from tonnetz.losses.classification import BCE, AsymmetricFocal, BCEPosWeight, CrossEntropy, Focal, auto
from tonnetz.losses.classifier import FocalClassifier
from tonnetz.losses.clews import CLEWS
from tonnetz.losses.contrastive import NTXent, SupCon
from tonnetz.losses.family import FamilyLoss, family_loss, family_scores, family_targets
from tonnetz.losses.library import Library
from tonnetz.losses.matches import BestMatches
from tonnetz.losses.maxmean import MaxMean
from tonnetz.losses.metric import MetricLoss, Sum
from tonnetz.losses.triplet import Triplet
from tonnetz.losses.uniformity import AlignmentUniformity

__all__ = [
    "BCE",
    "CLEWS",
    "AlignmentUniformity",
    "AsymmetricFocal",
    "BCEPosWeight",
    "BestMatches",
    "Center",
    "Circle",
    "CrossEntropy",
    "FamilyLoss",
    "Focal",
    "FocalClassifier",
    "Library",
    "MaxMean",
    "MetricLoss",
    "NTXent",
    "Sum",
    "SupCon",
    "Triplet",
    "auto",
    "family_loss",
    "family_scores",
    "family_targets",
]
