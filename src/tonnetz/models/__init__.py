"""Backbones and poolings: plain modules that know nothing of Lightning, data or tasks."""

from __future__ import annotations

from tonnetz.models.base import Backbone, InputNorm, length_mask
from tonnetz.models.cnn import CNN
from tonnetz.models.conformer import Conformer
from tonnetz.models.crnn import CRNN
from tonnetz.models.timm import Timm
from tonnetz.models.tiny import Tiny

__all__ = ["CNN", "CRNN", "Backbone", "Conformer", "InputNorm", "Timm", "Tiny", "length_mask"]
