"""Losses: functions of tensors, and modules that hold their parameters."""

from tonnetz.losses.barlow import BarlowTwins
from tonnetz.losses.byol import BYOL, SimSiam
from tonnetz.losses.center import Center
from tonnetz.losses.circle import Circle
from tonnetz.losses.classification import BCE, AsymmetricFocal, BCEPosWeight, CrossEntropy, Focal, auto
from tonnetz.losses.classifier import FocalClassifier
from tonnetz.losses.clews import CLEWS
from tonnetz.losses.contrastive import NTXent, SupCon
from tonnetz.losses.cpc import CPC
from tonnetz.losses.family import FamilyLoss, family_loss, family_scores, family_targets
from tonnetz.losses.library import Library
from tonnetz.losses.matches import BestMatches
from tonnetz.losses.maxmean import MaxMean
from tonnetz.losses.metric import MetricLoss, Sum
from tonnetz.losses.moco import MoCo
from tonnetz.losses.prototypes import Prototypes
from tonnetz.losses.repulsion import Repulsion
from tonnetz.losses.simclr import DCL, SimCLR, SupConViews
from tonnetz.losses.triplet import Triplet
from tonnetz.losses.uniformity import AlignmentUniformity
from tonnetz.losses.vicreg import VICReg
from tonnetz.losses.views import ViewLoss

__all__ = [
    "BCE",
    "BYOL",
    "CLEWS",
    "CPC",
    "DCL",
    "AlignmentUniformity",
    "AsymmetricFocal",
    "BCEPosWeight",
    "BarlowTwins",
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
    "MoCo",
    "NTXent",
    "Prototypes",
    "Repulsion",
    "SimCLR",
    "SimSiam",
    "Sum",
    "SupCon",
    "SupConViews",
    "Triplet",
    "VICReg",
    "ViewLoss",
    "auto",
    "family_loss",
    "family_scores",
    "family_targets",
]
