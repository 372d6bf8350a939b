"""HCQT against nnAudio's CQT, and its channels against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonnetz.frontend import CQT, HCQT


def sound(seed: int = 0) -> torch.Tensor:
    rng, t = np.random.default_rng(seed), np.arange(32000) / 16000
    tones = sum(np.sin(2 * np.pi * f * t) for f in (110.0, 220.0, 523.25, 1567.98))
    return torch.from_numpy((0.1 * tones + 0.05 * rng.standard_normal(len(t))).astype(np.float32))[None, None]


def test_fundamental_is_the_plain_transform() -> None:
    ours, plain = HCQT()(sound())[0, 1], CQT(bins=60)(sound())[0, 0]
    assert ours.shape == plain.shape
    middle = slice(40, 60)  # away from the edges
    difference = (ours - plain)[:, middle].abs()
    assert difference.median() < 0.1
    assert difference[plain[:, middle] > plain.max() - 30].max() < 0.3


@pytest.mark.parametrize("octave", [12, 24, 36])
def test_octave_channels_are_shifted_bins(octave: int) -> None:
    """A wide transform moved by whole octaves: harmonics 1/2, 1, 2 and 4 share their kernels."""
    features = HCQT(bins=5 * octave, bins_per_octave=octave)(sound())[0]  # (6, F, T)
    for channel, shift in ((0, -octave), (2, octave), (4, 2 * octave)):
        moved, kept = features[channel], features[1]
        if shift < 0:
            torch.testing.assert_close(moved[-shift:], kept[:shift])
        else:
            torch.testing.assert_close(moved[:-shift], kept[shift:])


@pytest.mark.parametrize(("channel", "harmonic"), [(3, 3.0), (5, 5.0)])
def test_odd_channels_are_the_transform_at_their_frequencies(channel: int, harmonic: float) -> None:
    moved = HCQT(fmin=32.703196 * harmonic, bins=60, harmonics=(1.0,))(sound())
    difference = (HCQT()(sound())[:, [channel]] - moved).abs()  # the frames of the two FFTs differ in size
    assert difference[moved > moved.max() - 30].max() < 0.05
    assert difference.max() < 1.0


def test_a_note_stands_in_one_bin_of_all_channels() -> None:
    t, note = np.arange(32000) / 16000, 30
    hertz = 32.703196 * 2 ** (note / 12)
    y = sum(np.sin(2 * np.pi * hertz * h * t) for h in range(1, 6))
    features = HCQT()(torch.from_numpy(0.1 * y.astype(np.float32))[None, None])[0, 1:, :, 40:60]  # (5, F, T)
    assert (features.mean(0).argmax(0) == note).all()
