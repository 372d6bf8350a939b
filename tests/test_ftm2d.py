"""2-D Fourier magnitudes against naive loops, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tonnetz import ftm2d
from tonnetz.errors import UserError
from tonnetz.models import FTM2D, length_mask


def naive_chroma(features: np.ndarray, bins_per_octave: int) -> np.ndarray:
    """Loop over channels and bins; a pitch class owns the bins nearest to it."""
    result = np.zeros((12, features.shape[2]))
    for channel in features:
        for bin_, row in enumerate(channel):
            result[int(np.floor(bin_ * 12 / bins_per_octave + 0.5)) % 12] += 10 ** (row / 20)
    return np.sqrt(result)


def naive_vector(c: np.ndarray, patch: int, hop: int) -> np.ndarray:
    """Whole-plane magnitudes of every patch of chroma (12, T), and their median."""
    c = c - c.mean(0)
    c = c / np.maximum(np.linalg.norm(c, axis=0), 1e-4)
    if c.shape[1] < patch:
        c = np.pad(c, ((0, 0), (0, patch - c.shape[1])))
    starts = range(0, c.shape[1] - patch + 1, hop)
    return np.median([np.abs(np.fft.fft2(c[:, s : s + patch])) for s in starts], axis=0)


def features(frames: int = 240, bins: int = 36, batch: int = 1, channels: int = 1) -> Tensor:
    """Random decibels."""
    return 20 * torch.randn(batch, channels, bins, frames, generator=torch.Generator().manual_seed(3)) - 40


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize("bins_per_octave", [12, 24, 36])
def test_chroma_equals_a_loop(bins_per_octave: int) -> None:
    x = features(20, 5 * bins_per_octave // 2, channels=2)
    expected = naive_chroma(x[0].double().numpy(), bins_per_octave)
    np.testing.assert_allclose(ftm2d.chroma(x, bins_per_octave)[0], expected, rtol=1e-4)


def test_cosines_are_those_of_the_whole_plane() -> None:
    x, lengths = features(batch=3), torch.tensor([240, 170, 50])
    vectors = ftm2d.ftm2d(x, lengths, patch=48, hop=20).double().numpy()
    planes = [
        naive_vector(naive_chroma(e[..., :n].double().numpy(), 12), 48, 20) for e, n in zip(x, lengths, strict=True)
    ]
    for i in range(3):
        np.testing.assert_allclose(np.sqrt((vectors[i] ** 2).sum()), np.sqrt((planes[i] ** 2).sum()), rtol=1e-4)
        for j in range(i):
            assert cosine(vectors[i], vectors[j]) == pytest.approx(cosine(planes[i], planes[j]), abs=1e-5)


def test_a_transposition_changes_nothing() -> None:
    x, lengths = features(bins=36), torch.tensor([240])
    other = x.roll(5, 2)
    torch.testing.assert_close(ftm2d.ftm2d(other, lengths), ftm2d.ftm2d(x, lengths), rtol=1e-3, atol=1e-4)


def test_padding_and_silence() -> None:
    x = features(200)
    padded = torch.cat([x, torch.full((1, 1, 36, 77), torch.nan)], -1)
    own, lengths = ftm2d.tempo_variants(x, torch.tensor([200])), torch.tensor([200])
    torch.testing.assert_close(ftm2d.tempo_variants(padded, lengths), own)
    assert (ftm2d.ftm2d(torch.full((1, 1, 36, 200), -100.0), lengths).norm() < 0.1).all()


def test_a_variant_finds_the_tempo() -> None:
    """A recording played 1.26 times as fast is nearest to that variant."""
    smooth = torch.nn.functional.interpolate(features(60)[:, 0], 720, mode="linear")[:, None]  # (1, 1, 36, 720)
    c = ftm2d.chroma(smooth)
    fast, length = ftm2d.at_tempo(c, torch.tensor([720]), 2.0 ** (2 / 6))
    assert fast.shape[2] == int(length) == 571
    variants = ftm2d.tempo_variants(smooth, torch.tensor([720]))[0]
    assert variants.shape == (7, 539)
    near = torch.cosine_similarity(ftm2d.magnitudes(fast, length), variants)
    assert near.argmax() == 5
    assert near[5] > 0.999
    torch.testing.assert_close(variants[3], ftm2d.ftm2d(smooth, torch.tensor([720]))[0])


def test_interpolated_frames() -> None:
    c = torch.rand(2, 12, 30)
    played, lengths = ftm2d.at_tempo(c, torch.tensor([30, 11]), 1.25)
    expected = np.stack([np.interp(1.25 * np.arange(24), np.arange(30), row) for row in c[1].numpy()])
    np.testing.assert_allclose(played[1], expected, rtol=1e-5, atol=1e-6)
    assert lengths.tolist() == [24, 9]


def test_backbone() -> None:
    network, x, lengths = FTM2D(1, 36), features(batch=2), torch.tensor([240, 130])
    h = network(x, length_mask(lengths, 240))
    assert h.shape == (2, 1, network.dim)
    torch.testing.assert_close(h[:, 0], ftm2d.ftm2d(x, lengths))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(x, length_mask(lengths, 240)), h)
    assert list(network.parameters()) == []
    with pytest.raises(UserError, match="multiple of 12"):
        FTM2D(1, 36, bins_per_octave=10)
