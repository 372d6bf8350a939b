"""Front-ends: audio (B, C, N) to features (B, C', F, T)."""

from tonnetz.frontend.base import Frontend, fingerprint
from tonnetz.frontend.coverhunter import CoverHunterCQT
from tonnetz.frontend.cqt import CQT, ClewsCQT
from tonnetz.frontend.hcqt import HCQT
from tonnetz.frontend.magnitude import MelMagnitude
from tonnetz.frontend.mel import MFCC, LogMel
from tonnetz.frontend.multi import MultiSpec
from tonnetz.frontend.raw import Raw

__all__ = [
    "CQT",
    "HCQT",
    "MFCC",
    "ClewsCQT",
    "CoverHunterCQT",
    "Frontend",
    "LogMel",
    "MelMagnitude",
    "MultiSpec",
    "Raw",
    "fingerprint",
]
