"""Backbones and poolings: plain modules that know nothing of Lightning, data or tasks."""

from __future__ import annotations

from tonnetz.models.base import Backbone, InputNorm, length_mask
from tonnetz.models.bytecover import ByteCover
from tonnetz.models.clews import CLEWS
from tonnetz.models.cnn import CNN
from tonnetz.models.conformer import Conformer
from tonnetz.models.conformer_rotary import RotaryConformer
from tonnetz.models.conv4 import Conv4
from tonnetz.models.cqtnet import CQTNet, DVINet
from tonnetz.models.crnn import CRNN
from tonnetz.models.frames import Frames
from tonnetz.models.ftm2d import FTM2D
from tonnetz.models.key_equivariant import KeyEquivariant
from tonnetz.models.patch_transformer import PatchTransformer
from tonnetz.models.samplecnn import SampleCNN
from tonnetz.models.short_chunk import ShortChunk
from tonnetz.models.sincnet import SincNet
from tonnetz.models.timbre import Timbre
from tonnetz.models.timm import Timm
from tonnetz.models.tiny import Tiny
from tonnetz.models.tune import Tune
from tonnetz.models.tune_hybrid import TuneHybrid

__all__ = [
    "CLEWS",
    "CNN",
    "CRNN",
    "FTM2D",
    "Backbone",
    "ByteCover",
    "CQTNet",
    "Conformer",
    "Conv4",
    "DVINet",
    "Frames",
    "InputNorm",
    "KeyEquivariant",
    "PatchTransformer",
    "RotaryConformer",
    "SampleCNN",
    "ShortChunk",
    "SincNet",
    "Timbre",
    "Timm",
    "Tiny",
    "Tune",
    "TuneHybrid",
    "length_mask",
]
