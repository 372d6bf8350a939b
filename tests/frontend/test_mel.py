"""LogMel, MFCC and MelMagnitude against librosa; tolerance 1e-3 dB (float32 FFTs of two libraries)."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tonnetz.frontend import MFCC, LogMel, MelMagnitude


def noise(size: int, seed: int = 0) -> np.ndarray:
    t = np.arange(size) / 16000
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(size) + 0.4 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def librosa_db(
    y: np.ndarray, rate: int, n_fft: int, hop: int, bins: int, fmin: float, fmax: float, floor: float = 1e-10
) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=y, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=bins, fmin=fmin, fmax=fmax, pad_mode="reflect"
    )
    return librosa.power_to_db(power, amin=floor, top_db=None)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")
@pytest.mark.parametrize("floor", [1e-10, 1e-2])
@pytest.mark.parametrize("size", [300, 16000, 20011])  # 300 is shorter than half the FFT
@pytest.mark.parametrize(
    ("rate", "n_fft", "hop", "bins", "fmin", "fmax"),
    [
        (16000, 1024, 320, 64, 30.0, None),
        (22050, 2048, 512, 128, 0.0, None),
        (16000, 400, 160, 40, 60.0, 7000.0),
    ],
)
def test_logmel(size, rate, n_fft, hop, bins, fmin, fmax, floor):
    y = noise(size)
    ours = LogMel(rate, n_fft, hop, bins, fmin, fmax, floor)(torch.from_numpy(y)[None, None])[0, 0]
    expected = librosa_db(y, rate, n_fft, hop, bins, fmin, fmax or rate / 2, floor)
    assert expected.min() > 10 * np.log10(floor) - 1e-3
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_mfcc() -> None:
    y = noise(20011)
    ours = MFCC(mels=80, bins=13)(torch.from_numpy(y)[None, None])[0, 0]
    expected = librosa.feature.mfcc(S=librosa_db(y, 16000, 1024, 320, 80, 30.0, 8000.0), n_mfcc=13)
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_wide_mfcc_is_that_of_librosa_by_default() -> None:
    y = noise(20011)
    preset = OmegaConf.load(Path(__file__).parents[2] / "config" / "frontend" / "mfcc_wide.yaml")
    ours = instantiate(preset)(torch.from_numpy(y)[None, None])[0, 0]
    power = librosa.feature.melspectrogram(y=y, sr=16000, pad_mode="reflect")
    expected = librosa.feature.mfcc(S=librosa.power_to_db(power, top_db=None))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "options"),
    [(300, {}), (16000, {}), (20011, {"n_fft": 1024, "window": 1024, "hop": 256, "bins": 40, "fmin": 60.0})],
)
def test_mel_magnitude(size: int, options: dict[str, float]) -> None:
    y = noise(size)
    front = MelMagnitude(**options)
    asked = {"n_fft": 2048, "window": 512, "hop": 128, "bins": 128, "fmin": 0.0} | options
    names = {"window": "win_length", "hop": "hop_length", "bins": "n_mels"}
    words = {names.get(key, key): value for key, value in asked.items()}
    padded = np.pad(y, asked["n_fft"] // 2, mode="reflect")
    expected = librosa.feature.melspectrogram(y=padded, sr=16000, power=1.0, center=False, **words)
    ours = front(torch.from_numpy(y)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5 * expected.max())
    assert (ours >= 0).all()


def test_silence_is_the_floor() -> None:
    torch.testing.assert_close(LogMel()(torch.zeros(1, 1, 4000)), torch.full((1, 1, 64, 13), -50.0))
