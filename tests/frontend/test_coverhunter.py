"""CoverHunter's constant-Q against its definition in float64 with whole FFTs; tolerance 0.01 dB.

Where loud terms cancel to 90 dB below the loudest cell, the sums of single precision may be a little further off.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonnetz.frontend import CoverHunterCQT
from tonnetz.frontend.bank import FRAMES

RATE, HOP = 16000, 640


def definition(x: np.ndarray, fmin: float = 32.0, octave: int = 12, bins: int = 96) -> np.ndarray:
    """Every frame times every kernel, float64: (N,) -> dB (F, T)."""
    x = 0.999 * x.astype(np.float64) / max(0.001, np.abs(x).max())
    quality = 1 / (2 ** (1 / octave) - 1)
    n_fft = 2 ** int(np.ceil(np.log2(quality * RATE / fmin)))
    kernels = np.zeros((bins, n_fft), complex)
    for k in range(bins):
        length = 2 * round(quality * RATE / (fmin * 2 ** (k / octave)) / 2) + 1
        n = np.arange(length) - (length - 1) / 2
        first = (n_fft - length + 1) // 2
        wave = np.hamming(length) * np.exp(2j * np.pi * quality * n / length) / length
        kernels[k, first : first + length] = wave
    spectra = np.fft.fft(kernels)
    spectra[np.abs(spectra) < 0.01] = 0
    spectra = spectra.conj() / n_fft
    padded = np.pad(x, (-(-(n_fft - HOP) // 2), (n_fft - HOP) // 2))
    frames = [np.fft.fft(padded[j * HOP : j * HOP + n_fft]) for j in range(len(x) // HOP)]
    magnitude = np.abs(spectra @ np.stack(frames, 1)) + 1e-9
    return 20 * np.log10(magnitude) - 20 * np.log10(magnitude.max())


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Notes with overtones that begin and die away, over a little noise."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    x = 1e-3 * rng.standard_normal(len(t))
    for onset in np.arange(0, seconds, 0.3):
        hertz = 440 * 2 ** (rng.integers(-30, 20) / 12)
        after = np.maximum(t - onset, 0)
        for h in range(1, 8):
            x += (t >= onset) * np.sin(2 * np.pi * min(h * hertz, 7900) * after) * np.exp(-4 * h * after) / h
    return (0.1 * x).astype(np.float32)


def ours(x: np.ndarray, **options: object) -> np.ndarray:
    return CoverHunterCQT(mean_size=1, **options)(torch.from_numpy(x)[None, None])[0, 0].numpy()


def check(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.shape == expected.shape
    difference = np.abs(ours - expected)
    assert difference[expected > -90].max() < 0.01
    assert difference.max() < 0.1
    assert (difference > 0.01).mean() < 3e-3


@pytest.mark.parametrize("size", [640, 1279, 4001, 16000, 48123])
def test_definition(size: int) -> None:
    x = music(4)[5000 : 5000 + size]
    expected = definition(x)
    assert expected.shape == (96, size // 640)
    check(ours(x), expected)


@pytest.mark.parametrize("gain", [1e-5, 1.0, 3.0])
def test_definition_at_any_level(gain: float) -> None:
    x = (gain * music(1)).astype(np.float32)
    check(ours(x), definition(x))


def test_definition_for_other_bins() -> None:
    x = music(1)
    options = {"fmin": 65.4, "bins_per_octave": 24, "bins": 120}
    check(ours(x, **options), definition(x, 65.4, 24, 120))


def test_quiet_beside_loud() -> None:
    """A pure tone: cells down to 150 dB below it, which single precision would miss by 10 dB."""
    x = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / RATE)).astype(np.float32)
    expected = definition(x)
    assert expected.min() < -120
    check(ours(x), expected)


def test_negative_frequencies_count() -> None:
    """The kernels of the top bins reach beyond half the rate: 672 entries."""
    (bank,) = CoverHunterCQT().banks.values()
    assert bank.n_fft == 16384
    top = bank.get_buffer(f"block_{len(bank.begins) - 1}").unflatten(0, (-1, 2))  # (band, 2, 2 G)
    real, imaginary = top[:, 0, : top.shape[2] // 2], top[:, 1, top.shape[2] // 2 :]
    assert int((real != imaginary).sum()) >= 600


def test_pooled_and_padded_value() -> None:
    x = music(2)
    raw, frontend = definition(x), CoverHunterCQT()
    pooled = frontend(torch.from_numpy(x)[None, None])[0, 0].numpy()
    expected = raw[:, :48].reshape(96, 16, 3).mean(2)  # 50 frames: the last two are dropped
    np.testing.assert_allclose(pooled, expected, atol=0.01)
    assert (frontend.hop, frontend.floor) == (1920, -100.0)
    assert frontend.frames(torch.tensor([32000, 1, 1920, 3839])).tolist() == [16, 1, 1, 1]


def test_silence_is_its_own_maximum() -> None:
    assert (CoverHunterCQT()(torch.zeros(2, 1, 16000)) == 0).all()


def test_batch_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = torch.from_numpy(np.stack([music(3, seed) for seed in range(3)]))[:, None]
    together = CoverHunterCQT()(audio)
    monkeypatch.setitem(FRAMES, "cpu", 7)
    alone = torch.cat([CoverHunterCQT()(example[None]) for example in audio])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-3)


def test_gradient_reaches_silent_audio() -> None:
    audio = torch.zeros(1, 1, 4000, requires_grad=True)
    CoverHunterCQT()(audio).sum().backward()
    assert audio.grad is not None
    assert audio.grad.isfinite().all()
