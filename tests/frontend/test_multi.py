"""MultiSpec against librosa; tolerances 0.05 Hz for the centroid and 1e-4 for the chroma."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from tonnetz.frontend import LogMel, MultiSpec


def chord() -> np.ndarray:
    t = np.arange(24000) / 16000
    tones = sum(np.sin(2 * np.pi * f * t) for f in (261.63, 329.63, 392.0))
    return (0.2 * tones + 0.01 * np.random.default_rng(0).standard_normal(len(t))).astype(np.float32)


@pytest.mark.parametrize("bins", [64, 100])
def test_three_views(bins: int) -> None:
    y = chord()
    audio = torch.from_numpy(y)[None, None]
    mel, centroid, chroma = MultiSpec(bins=bins)(audio)[0].numpy()
    height = np.arange(bins)  # nearest neighbour: row i shows row floor(i * rows / bins)
    np.testing.assert_allclose(mel, LogMel()(audio)[0, 0].numpy()[height * 64 // bins], atol=1e-4)
    hertz = librosa.feature.spectral_centroid(y=y, sr=16000, n_fft=1024, hop_length=320, pad_mode="reflect")
    np.testing.assert_allclose(centroid * 8000, np.repeat(hertz, bins, 0), atol=0.05)
    expected = librosa.feature.chroma_stft(y=y, sr=16000, n_fft=4096, hop_length=320, tuning=0.0, pad_mode="reflect")
    np.testing.assert_allclose(chroma, expected[height * 12 // bins], atol=1e-4)


def test_chroma_of_a_c_major_chord() -> None:
    chroma = MultiSpec().chroma(torch.from_numpy(chord())[None, None])[0, 0].mean(-1)  # (12,)
    assert set(chroma.topk(3).indices.tolist()) == {0, 4, 7}


def test_silence() -> None:
    image = MultiSpec()(torch.zeros(1, 1, 8000))
    assert (image[:, 0] == -100).all()
    assert (image[:, 1:] == 0).all()
