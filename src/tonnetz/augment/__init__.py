"""Augmentations of batches: waveform (``audio``), spectral (``features``) and label-aware."""

from tonnetz.augment.base import Augment, Augmentation
from tonnetz.augment.boxes import EraseBoxes
from tonnetz.augment.clipping import Clipping
from tonnetz.augment.clmr import Clmr
from tonnetz.augment.concat import ConcatN
from tonnetz.augment.equalizer import Equalizer
from tonnetz.augment.erase import RandomErase
from tonnetz.augment.filter import HighPass, LowPass
from tonnetz.augment.gain import Gain
from tonnetz.augment.mask import WaveMask
from tonnetz.augment.mixup import Mixup
from tonnetz.augment.noise import Noise, NoiseMix
from tonnetz.augment.pitch import PitchShift
from tonnetz.augment.pixels import RandomPixels
from tonnetz.augment.polarity import Polarity
from tonnetz.augment.reverse import TimeReverse
from tonnetz.augment.roll import RollPitch
from tonnetz.augment.shift import TimeShift
from tonnetz.augment.specmask import FrequencyMask, TimeMask
from tonnetz.augment.specstretch import SpectralStretch
from tonnetz.augment.stretch import TimeStretch
from tonnetz.augment.sum import SumN
from tonnetz.augment.tilt import SpectralEqualizer

__all__ = [
    "Augment",
    "Augmentation",
    "Clipping",
    "Clmr",
    "ConcatN",
    "Equalizer",
    "EraseBoxes",
    "FrequencyMask",
    "Gain",
    "HighPass",
    "LowPass",
    "Mixup",
    "Noise",
    "NoiseMix",
    "PitchShift",
    "Polarity",
    "RandomErase",
    "RandomPixels",
    "RollPitch",
    "SpectralEqualizer",
    "SpectralStretch",
    "SumN",
    "TimeMask",
    "TimeReverse",
    "TimeShift",
    "TimeStretch",
    "WaveMask",
]
