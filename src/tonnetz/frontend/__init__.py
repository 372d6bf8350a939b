"""Front-ends: audio (B, C, N) to features (B, C', F, T)."""

from tonnetz.frontend.base import Frontend, fingerprint
from tonnetz.frontend.cqt import CQT
from tonnetz.frontend.mel import MFCC, LogMel
from tonnetz.frontend.multi import MultiSpec
from tonnetz.frontend.raw import Raw

__all__ = ["CQT", "MFCC", "Frontend", "LogMel", "MultiSpec", "Raw", "fingerprint"]
