"""CQT against librosa (median within 0.4 dB on noise, 0.3 dB on notes), nnAudio itself, and pure tones."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from nnAudio.features.cqt import CQT1992v2, CQT2010v2

from tonnetz.frontend import CQT, ClewsCQT, fingerprint

ALGORITHMS = ("cqt1992v2", "cqt2010v2")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("hop", "bins", "octave"), [(320, 84, 12), (512, 96, 24)])
def test_librosa_on_noise(algorithm: str, hop: int, bins: int, octave: int) -> None:
    y = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32)
    reference = librosa.cqt(y, sr=16000, hop_length=hop, fmin=65.406, n_bins=bins - 12, bins_per_octave=octave)
    frontend = CQT(16000, hop, bins - 12, octave, 65.406, algorithm)
    ours = frontend(torch.from_numpy(y)[None, None])[0, 0].numpy()
    assert ours.shape == reference.shape
    difference = np.abs(ours - 20 * np.log10(np.maximum(np.abs(reference), 1e-10)))
    assert np.median(difference) < 0.4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("note", [3, 24, 45, 57, 70])
def test_librosa_on_notes(algorithm: str, note: int) -> None:
    y = librosa.tone(32.703196 * 2 ** (note / 12), sr=16000, length=32000).astype(np.float32) * 0.5
    reference = np.abs(librosa.cqt(y, sr=16000, hop_length=320, fmin=32.703196, n_bins=84))
    ours = CQT(algorithm=algorithm)(torch.from_numpy(y)[None, None])[0, 0].numpy()
    middle = slice(40, 60)  # away from the edges
    assert (ours[:, middle].argmax(0) == note).all()
    assert np.abs(ours[note, middle] - 20 * np.log10(reference[note, middle])).max() < 0.3


def test_nnaudio() -> None:
    audio = torch.rand(2, 1, 16000) - 0.5
    theirs = CQT1992v2(sr=16000, hop_length=320, fmin=32.703196, n_bins=84, pad_mode="constant", verbose=False)
    expected = 20 * theirs(audio[:, 0]).clamp(min=1e-10).log10()
    torch.testing.assert_close(CQT(algorithm="cqt1992v2")(audio)[:, 0], expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("size", [16000, 48000, 50123])
@pytest.mark.parametrize(("algorithm", "kind"), [("cqt1992v2", CQT1992v2), ("cqt2010v2", CQT2010v2)])
def test_reflected_as_nnaudio_has_it_by_default(algorithm: str, kind: type[torch.nn.Module], size: int) -> None:
    """The front-end of the fork of CoverHunter on Apple and CUDA, at all frames; silence changes the edges alone."""
    audio = torch.rand(2, 1, size, generator=torch.Generator().manual_seed(0)) - 0.5
    options = {"hop": 640, "bins": 96, "fmin": 32.0, "algorithm": algorithm}
    theirs = kind(sr=16000, hop_length=640, fmin=32.0, n_bins=96, verbose=False)
    expected = 20 * theirs(audio[:, 0]).clamp(min=1e-10).log10()  # (B, F, T)
    reflected, silent = (CQT(**options, pad=pad) for pad in ("reflect", "constant"))
    torch.testing.assert_close(reflected(audio)[:, 0], expected, rtol=0, atol=1e-2)
    difference = (silent(audio)[:, 0] - expected).abs()
    assert difference[..., 0].max() > 5
    assert difference[..., -1].max() > 5
    inner = slice(14, -14)  # a kernel of the lowest bin is 13.3 hops long, half of that and a filter meet the end
    assert size < 48000 or difference[..., inner].max() < 1e-2
    assert fingerprint(reflected) != fingerprint(silent) == fingerprint(CQT(**options))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [1, 7, 100, 319, 320, 641, 6400])
def test_short_sound_is_reflected_to_and_fro(algorithm: str, size: int) -> None:
    frontend = CQT(algorithm=algorithm, pad="reflect")
    short = torch.rand(1, 1, size, generator=torch.Generator().manual_seed(0)) - 0.5
    features = frontend(short)
    assert features.shape == (1, 1, 84, size // 320 + 1)
    assert features.isfinite().all()
    if algorithm == "cqt1992v2" and size > 1:
        period = torch.cat([short[..., :-1], short[..., 1:].flip(-1)], -1)  # one way and back
        far = -(-20000 // period.shape[-1])
        longer = period.repeat(1, 1, 2 * far + 2)
        place = far * period.shape[-1]
        padded = longer[..., place - 16384 : place + 16384]  # about the first sample
        middle = CQT(hop=16384)(padded)[..., 1]
        audible = (side.clamp(min=-60) for side in (features[..., 0], middle))
        torch.testing.assert_close(*audible, rtol=0, atol=0.05)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradient_reaches_silent_audio(algorithm: str) -> None:
    audio = torch.zeros(1, 1, 4000, requires_grad=True)
    CQT(algorithm=algorithm)(audio).sum().backward()
    assert audio.grad is not None
    assert audio.grad.isfinite().all()


@pytest.mark.parametrize(("octave", "bins"), [(12, 84), (24, 168), (36, 252)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bins_per_octave(octave: int, bins: int, algorithm: str) -> None:
    y = librosa.tone(65.406 * 2 ** (31 / octave), sr=16000, length=32000).astype(np.float32) * 0.5
    frontend = CQT(fmin=65.406, bins=bins - octave, bins_per_octave=octave, algorithm=algorithm)
    assert (frontend(torch.from_numpy(y)[None, None])[0, 0, :, 40:60].argmax(0) == 31).all()


def test_clews() -> None:
    """Root of the pooled magnitude, scaled by each example; from nnAudio's magnitude with NumPy."""
    audio = torch.rand(2, 1, 20000) - 0.5
    theirs = CQT1992v2(sr=16000, hop_length=320, fmin=32.703196, n_bins=84, pad_mode="constant", verbose=False)
    magnitude = theirs(audio[:, 0]).numpy()[..., :60].reshape(2, 84, 12, 5).mean(3)
    root = np.sqrt(magnitude)
    low, high = root.min((1, 2), keepdims=True), root.max((1, 2), keepdims=True)
    np.testing.assert_allclose(ClewsCQT()(audio)[:, 0], (root - low) / (high - low), atol=1e-3)
    assert (ClewsCQT()(torch.zeros(1, 1, 16000)) == 0).all()


def test_relative_decibels_are_those_below_the_maximum():
    audio = (
        torch.randn(2, 1, 16000, generator=torch.Generator().manual_seed(3)) * torch.tensor([0.9, 0.01])[:, None, None]
    )
    relative, absolute = CQT(relative=True), CQT()
    found, level = relative(audio), absolute(audio)
    torch.testing.assert_close(found, level - level.amax((1, 2, 3), keepdim=True), atol=0.02, rtol=0)
    assert found.amax() == 0
    assert fingerprint(relative) != fingerprint(absolute)
    assert relative.floor == -100
