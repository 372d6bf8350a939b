"""Augmentations of batches: waveform (``audio``), spectral (``features``) and label-aware."""

from tonnetz.augment.base import Augment, Augmentation
from tonnetz.augment.boxes import EraseBoxes
from tonnetz.augment.chorus import Chorus
from tonnetz.augment.clipping import Clipping
from tonnetz.augment.clmr import Clmr
from tonnetz.augment.compand import Compand
from tonnetz.augment.concat import ConcatN
from tonnetz.augment.equalizer import Equalizer
from tonnetz.augment.erase import RandomErase
from tonnetz.augment.filter import HighPass, LowPass
from tonnetz.augment.flanger import Flanger
from tonnetz.augment.gain import Gain
from tonnetz.augment.mask import WaveMask
from tonnetz.augment.mixup import Mixup
from tonnetz.augment.noise import Noise, NoiseMix
from tonnetz.augment.overdrive import Overdrive
from tonnetz.augment.peaks import PeakEqualizer
from tonnetz.augment.phaser import Phaser
from tonnetz.augment.pitch import PitchShift
from tonnetz.augment.pixels import RandomPixels
from tonnetz.augment.polarity import Polarity
from tonnetz.augment.reverb import Reverb
from tonnetz.augment.reverse import TimeReverse
from tonnetz.augment.roll import RollPitch
from tonnetz.augment.shift import TimeShift
from tonnetz.augment.specmask import FrequencyMask, TimeMask
from tonnetz.augment.specstretch import SpectralStretch
from tonnetz.augment.speed import Speed
from tonnetz.augment.stretch import TimeStretch
from tonnetz.augment.sum import SumN
from tonnetz.augment.tilt import SpectralEqualizer
from tonnetz.augment.transpose import Transpose

__all__ = [
    "Augment",
    "Augmentation",
    "Chorus",
    "Clipping",
    "Clmr",
    "Compand",
    "ConcatN",
    "Equalizer",
    "EraseBoxes",
    "Flanger",
    "FrequencyMask",
    "Gain",
    "HighPass",
    "LowPass",
    "Mixup",
    "Noise",
    "NoiseMix",
    "Overdrive",
    "PeakEqualizer",
    "Phaser",
    "PitchShift",
    "Polarity",
    "RandomErase",
    "RandomPixels",
    "Reverb",
    "RollPitch",
    "SpectralEqualizer",
    "SpectralStretch",
    "Speed",
    "SumN",
    "TimeMask",
    "TimeReverse",
    "TimeShift",
    "TimeStretch",
    "Transpose",
    "WaveMask",
]
