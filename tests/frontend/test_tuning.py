"""Tuning against librosa (within 5 cents), and the bins that follow it."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from tonnetz.frontend import CQT, HCQT, ClewsCQT, CoverHunterCQT
from tonnetz.frontend.tuning import estimate_tuning


def chord(cents: float, seconds: float = 2.0) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    x = np.zeros_like(t)
    for note in (60, 64, 67, 71, 76, 79):
        hertz = 440 * 2 ** ((note - 69 + cents / 100) / 12)
        x += sum(np.sin(2 * np.pi * hertz * h * t + note * h) / h**2 for h in range(1, 6))
    return (0.05 * x).astype(np.float32)


@pytest.mark.parametrize("cents", [-44, -30, -11, 0, 7, 30, 46])
def test_librosa(cents: int) -> None:
    y = chord(cents)
    estimate = 100 * float(estimate_tuning(torch.from_numpy(y)[None], 16000))
    assert abs(estimate - 100 * librosa.estimate_tuning(y=y, sr=16000)) <= 5
    assert abs(estimate - cents) <= 5


def test_each_example_has_its_own() -> None:
    audio = torch.from_numpy(np.stack([chord(c) for c in (30, -20, 0)] + [np.zeros(32000, np.float32)]))
    together = estimate_tuning(audio, 16000)
    torch.testing.assert_close(together, torch.cat([estimate_tuning(x[None], 16000) for x in audio]))
    assert together[3] == 0, "silence is in tune"


def test_librosa_on_noise() -> None:
    y = np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    gap = float(estimate_tuning(torch.from_numpy(y)[None], 16000)) - librosa.estimate_tuning(y=y, sr=16000)
    assert abs(gap) <= 0.05


@pytest.mark.parametrize("kind", [CoverHunterCQT, CQT, ClewsCQT, HCQT])
def test_detuned_sounds_like_tuned(kind: type) -> None:
    audio = torch.from_numpy(np.stack([chord(c) for c in (30, 0, -30)]))[:, None]
    plain, tuned = kind()(audio), kind(tuning=True)(audio)
    torch.testing.assert_close(tuned[1], plain[1])  # what is in tune stays
    loud = plain[1] > plain[1].amax() - (0.5 if kind is ClewsCQT else 20.0)
    for row in (0, 2):
        before, after = ((x[row] - plain[1])[loud].abs().mean() for x in (plain, tuned))
        assert after < 0.35 * before
