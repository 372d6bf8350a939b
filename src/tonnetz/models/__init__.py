"""Backbones and poolings: plain modules that know nothing of Lightning, data or tasks."""

from __future__ import annotations

from tonnetz.models.base import Backbone, InputNorm, length_mask
from tonnetz.models.bytecover import ByteCover
from tonnetz.models.clews import CLEWS
from tonnetz.models.cnn import CNN
from tonnetz.models.conformer import Conformer
from tonnetz.models.conformer_rotary import RotaryConformer
from tonnetz.models.cqtnet import CQTNet, DVINet
from tonnetz.models.crnn import CRNN
from tonnetz.models.ftm2d import FTM2D
from tonnetz.models.key_equivariant import KeyEquivariant
from tonnetz.models.timm import Timm
from tonnetz.models.tiny import Tiny

__all__ = [
    "CLEWS",
    "CNN",
    "CRNN",
    "FTM2D",
    "Backbone",
    "ByteCover",
    "CQTNet",
    "Conformer",
    "DVINet",
    "InputNorm",
    "KeyEquivariant",
    "RotaryConformer",
    "Timm",
    "Tiny",
    "length_mask",
]
