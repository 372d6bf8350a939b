"""Waveform augmentations against NumPy, SciPy, librosa or arithmetic."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from tonnetz.augment import (
    Clipping,
    Equalizer,
    Gain,
    HighPass,
    LowPass,
    Noise,
    PitchShift,
    Polarity,
    TimeReverse,
    TimeShift,
    TimeStretch,
    WaveMask,
)
from tonnetz.augment.filter import frequencies, shape_spectrum
from tonnetz.augment.stretch import analyse, vocode
from tonnetz.errors import UserError

RATE = 16000


def sine(hertz: float, size: int = 32000) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(size, dtype=torch.float64) / RATE).float()[None, None]


def peak_hertz(x: torch.Tensor) -> float:
    size = x.shape[-1]
    spectrum = torch.fft.rfft(x.flatten() * torch.hann_window(size), n=8 * size).abs()
    return float(spectrum.argmax()) * RATE / (8 * size)


def test_gain_is_decibels() -> None:
    x = torch.rand(3, 1, 100) - 0.5
    y = Gain().transform(x, gain=torch.tensor([0.0, 6.0, -20.0]))
    torch.testing.assert_close(y, x * torch.tensor([1.0, 10 ** (6 / 20), 0.1]).view(3, 1, 1))


def test_gain_range() -> None:
    gain = Gain(low=-3.0, high=5.0).draw(torch.zeros(5000, 1, 1))["gain"]
    assert gain.min() >= -3
    assert gain.max() < 5
    assert abs(gain.mean() - 1.0) < 0.15


def test_polarity() -> None:
    x = torch.rand(2, 1, 50)
    torch.testing.assert_close(Polarity(p=1.0)({"audio": x})["audio"], -x)


def test_reverse_keeps_padding_at_the_end() -> None:
    x = torch.tensor([[[1.0, 2, 3, 0, 0]], [[1.0, 2, 3, 4, 5]]])
    out = TimeReverse(p=1.0)({"audio": x, "lengths": torch.tensor([3, 5])})
    assert out["audio"].tolist() == [[[3, 2, 1, 0, 0]], [[5, 4, 3, 2, 1]]]
    assert out["lengths"].tolist() == [3, 5]


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("fraction", [-0.5, -0.13, 0.0, 0.31, 0.5])
def test_shift_is_numpy_roll(circular: bool, fraction: float) -> None:
    x, length = np.random.default_rng(0).standard_normal(60).astype(np.float32), 50
    x[length:] = 0
    shift = round(fraction * length)
    expected = x.copy()
    expected[:length] = np.roll(x[:length], shift)
    if not circular and shift:
        expected[: max(shift, 0)] = 0
        expected[length + min(shift, 0) : length] = 0
    y = TimeShift(circular=circular).transform(
        torch.from_numpy(x)[None, None], shift=torch.tensor([fraction]), lengths=torch.tensor([length])
    )
    np.testing.assert_array_equal(y[0, 0].numpy(), expected)


def test_clipping_is_numpy_clip() -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 200)).astype(np.float32)
    y = Clipping().transform(torch.from_numpy(x), threshold=torch.tensor([0.3, 0.8])).numpy()
    for row, part in ((0, 0.3), (1, 0.8)):
        limit = np.float32(part) * np.abs(x[row]).max()
        np.testing.assert_allclose(y[row], np.clip(x[row], -limit, limit), rtol=1e-6)


def measured_response(change, hertz: list[float]) -> list[float]:
    """Gain in dB of sines, measured in the middle of two seconds."""
    x = torch.cat([sine(f) for f in hertz])
    y = change(x)
    return (20 * (y[..., 8000:24000].std(-1) / x[..., 8000:24000].std(-1)).log10()).flatten().tolist()


@pytest.mark.parametrize(("kind", "name"), [(LowPass, "lowpass"), (HighPass, "highpass")])
@pytest.mark.parametrize("cutoff", [100.0, 1000.0, 3000.0])
def test_filters_are_second_order_butterworth(kind, name: str, cutoff: float) -> None:
    hertz = [50.0, 100.0, 400.0, 1000.0, 2000.0, 4000.0]
    b, a = scipy.signal.butter(2, 2 * np.pi * cutoff, name, analog=True)
    expected = 20 * np.log10(np.abs(scipy.signal.freqs(b, a, 2 * np.pi * np.array(hertz))[1]))
    cutoffs = torch.full((len(hertz),), cutoff)
    measured = measured_response(lambda x: kind().transform(x, cutoff=cutoffs), hertz)
    np.testing.assert_allclose(measured, expected, atol=0.15)


def test_cutoff_is_per_example_and_below_nyquist() -> None:
    draw = LowPass(low=100.0, high=20000.0).draw(torch.zeros(2000, 1, 1))["cutoff"]
    assert draw.min() >= 100
    assert draw.max() <= 8000
    assert draw.unique().numel() > 1000
    x = torch.cat([sine(2000.0)] * 2)
    y = LowPass().transform(x, cutoff=torch.tensor([200.0, 7000.0]))
    assert y[0].std() < 0.05 * x[0].std()
    assert y[1].std() > 0.9 * x[1].std()


def test_filter_does_not_wrap_around() -> None:
    x = torch.zeros(1, 1, 8000)
    x[..., -1] = 1.0
    y = LowPass().transform(x, cutoff=torch.tensor([200.0]))
    assert y[..., :2000].abs().max() < 1e-5 * y.abs().max()


def test_flat_response_is_the_identity() -> None:
    for size in (1, 999, 8000):
        x = torch.rand(2, 1, size) - 0.5
        ones = torch.ones(2, len(frequencies(x, RATE)))
        torch.testing.assert_close(shape_spectrum(x, ones), x, rtol=0, atol=1e-6)


def test_equalizer_has_its_gains_at_its_centres() -> None:
    equalizer = Equalizer()
    centres = equalizer.centres().tolist()
    assert len(centres) == 7
    assert centres[0] == pytest.approx(60)
    assert centres[-1] == pytest.approx(6400, rel=1e-5)
    gains = torch.tensor([[-6.0, 4.0, 0.0, 3.0, -2.0, 6.0, -4.0]]).repeat(7, 1)
    measured = measured_response(lambda x: equalizer.transform(x, gains=gains), centres)
    np.testing.assert_allclose(measured, gains[0], atol=0.3)
    between = [(centres[3] * centres[4]) ** 0.5] * 7
    measured = measured_response(lambda x: equalizer.transform(x, gains=gains), between)
    np.testing.assert_allclose(measured, [0.5] * 7, atol=0.1)


@pytest.mark.parametrize("size", [0.1, 0.25])
def test_wave_mask_has_its_size_and_stays_inside(size: float) -> None:
    x, lengths = torch.ones(3000, 1, 400), torch.full((3000,), 300)
    y = WaveMask(p=1.0, low=size, high=size)({"audio": x, "lengths": lengths})["audio"][:, 0]
    assert ((y == 0).sum(1) == round(size * 300)).all()
    assert (y[:, 300:] == 1).all()
    assert ((y[:, 1:] != y[:, :-1]).sum(1) <= 2).all()  # one gap
    assert (y[:, 0] == 0).any()
    assert (y[:, 299] == 0).any()


@pytest.mark.parametrize("decay", [0.0, 1.0, -2.0])
def test_noise_has_its_snr(decay: float) -> None:
    noise, x = Noise(decay_low=decay, decay_high=decay), torch.cat([sine(440.0), 0.01 * sine(100.0)])
    params = noise.draw(x)
    params["snr"] = torch.tensor([3.0, 20.0])
    added = noise.transform(x, **params) - x
    snr = 10 * (x.square().mean((1, 2)) / added.square().mean((1, 2))).log10()
    torch.testing.assert_close(snr, params["snr"], rtol=0, atol=0.01)


@pytest.mark.parametrize("decay", [-2.0, 0.0, 1.0, 2.0])
def test_noise_colour(decay: float) -> None:
    noise, x = Noise(decay_low=decay, decay_high=decay), sine(440.0, 160000)
    torch.manual_seed(0)
    added = (noise.transform(x, **noise.draw(x)) - x)[0, 0].numpy()
    f, density = scipy.signal.welch(added, RATE, nperseg=4096)
    inside = (f > 200) & (f < 6000)
    slope = np.polyfit(np.log2(f[inside]), np.log2(density[inside]), 1)[0]
    assert slope == pytest.approx(-decay, abs=0.1)


def test_noise_from_a_folder(tmp_path: Path) -> None:
    t = np.arange(44100) / 44100
    soundfile.write(tmp_path / "hum.wav", 0.3 * np.sin(2 * np.pi * 1000 * t), 44100)
    soundfile.write(tmp_path / "whistle.flac", np.stack([0.01 * np.sin(2 * np.pi * 3000 * t)] * 2, 1), 44100)
    x = sine(200.0).repeat(16, 1, 1)
    noise = Noise(p=1.0, snr_low=10.0, snr_high=10.0, root=str(tmp_path))
    torch.manual_seed(0)
    added = (noise({"audio": x})["audio"] - x)[:, 0]
    assert not noise.state_dict()
    snr = 10 * (x.square().mean() / added.square().mean(1)).log10()
    torch.testing.assert_close(snr, torch.full((16,), 10.0), rtol=0, atol=0.01)
    power = torch.fft.rfft(added).abs().square()  # bins of 0.5 Hz
    loud, soft = power[:, 1900:2100].sum(1), power[:, 5900:6100].sum(1)
    assert ((loud + soft) / power.sum(1) > 0.98).all()
    torch.testing.assert_close(loud, soft, rtol=0.05, atol=0)  # two seconds: both recordings, equally loud


@pytest.mark.parametrize("content", [None, "empty", "broken", "silent"])
def test_noise_folder_errors(tmp_path: Path, content: str | None) -> None:
    root = tmp_path / "noise"
    if content:
        root.mkdir()
    if content == "broken":
        (root / "a.wav").write_bytes(b"no audio")
    if content == "silent":
        soundfile.write(root / "a.wav", np.zeros(1000), RATE)
    noise = Noise(p=1.0, root=str(root))  # a restored run that only tests needs no folder
    with pytest.raises(UserError, match="noise"):
        noise({"audio": sine(100.0)})


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.0, 1.7])
def test_vocoder_is_librosa_phase_vocoder(rate: float) -> None:
    y = librosa.chirp(fmin=200, fmax=2000, sr=RATE, duration=1.0)
    spectrum = librosa.stft(y.astype(np.float32), n_fft=512, hop_length=128)
    frames = int(np.ceil(spectrum.shape[1] / rate))
    inside = int((spectrum.shape[1] - 1) / rate)  # behind the last frame the phase is nobody's
    exact = spectrum.astype(np.complex128)  # librosa's phases run to thousands, where float32 is coarse
    expected = librosa.phase_vocoder(exact, rate=rate, hop_length=128)
    ours = vocode(torch.from_numpy(spectrum).T[None], torch.tensor([rate]), frames)[0].T.numpy()
    assert ours.shape == expected.shape
    assert np.abs(ours - expected)[:, :inside].max() < 1e-3 * np.abs(expected).max()


def test_analysis_is_librosa_stft() -> None:
    y = (np.random.default_rng(0).standard_normal(5000)).astype(np.float32)
    expected = librosa.stft(y, n_fft=512, hop_length=128)
    np.testing.assert_allclose(analyse(torch.from_numpy(y)[None], 512)[0].T.numpy(), expected, atol=1e-3)


def test_stretch_moves_bursts_and_keeps_their_pitch() -> None:
    t = torch.arange(48000) / RATE
    bursts = sum(torch.exp(-(((t - centre) / 0.05) ** 2)) for centre in (0.6, 1.2, 1.8))
    x = (bursts * torch.sin(2 * torch.pi * 880 * t))[None, None].repeat(4, 1, 1)
    rates = torch.tensor([0.7, 1.0, 1.25, 2.0])
    y = TimeStretch().transform(x, rate=rates)
    n = torch.arange(48000)
    for row, rate in enumerate(rates.tolist()):
        for centre in (0.6, 1.2, 1.8):
            at = centre / rate * RATE
            energy = y[row, 0].square() * ((n - at).abs() < 0.29 / rate * RATE)  # of this burst alone
            assert abs((energy * n).sum() / energy.sum() - at) < 0.03 * RATE  # a phase vocoder smears
        assert peak_hertz(y[row]) == pytest.approx(880, rel=0.01)


def test_stretch_lengths_and_silence_behind() -> None:
    x, lengths = sine(440.0, 16000).repeat(3, 1, 1), torch.tensor([16000, 16000, 8000])
    stretch = TimeStretch(p=1.0, low=2.0, high=2.0)
    out = stretch({"audio": x, "lengths": lengths})
    assert out["lengths"].tolist() == [8000, 8000, 4000]
    assert (out["audio"][:2, :, 8000:] == 0).all()
    assert out["audio"][:, :, 6000:7900].std() > 0.2
    slower = TimeStretch(p=1.0, low=0.5, high=0.5)({"audio": x, "lengths": lengths})
    assert slower["lengths"].tolist() == [16000, 16000, 16000]
    torch.testing.assert_close(TimeStretch().transform(x, rate=torch.ones(3)), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cents", [-1200, -700, -50, 0, 50, 700, 1200])
def test_pitch_of_a_sine(cents: int) -> None:
    y = PitchShift().transform(sine(440.0), semitones=torch.tensor([cents / 100]))
    assert y.shape == (1, 1, 32000)
    assert peak_hertz(y) == pytest.approx(440 * 2 ** (cents / 1200), rel=0.002)
    assert y[..., 4000:28000].std() / sine(440.0).std() == pytest.approx(1.0, abs=0.15)


def test_pitch_is_per_example_and_keeps_time() -> None:
    x = torch.zeros(2, 1, 32000)
    x[..., 20000:24000] = sine(500.0, 4000) * torch.hann_window(4000)
    y = PitchShift().transform(x, semitones=torch.tensor([5.0, -5.0]))
    assert peak_hertz(y[0]) == pytest.approx(500 * 2 ** (5 / 12), rel=0.01)
    assert peak_hertz(y[1]) == pytest.approx(500 * 2 ** (-5 / 12), rel=0.01)
    n = torch.arange(32000)
    centre = (y.square() * n).sum(-1) / y.square().sum(-1)
    assert (centre - 22000).abs().max() < 0.02 * RATE


def test_pitch_up_does_not_alias() -> None:
    y = PitchShift().transform(sine(6000.0), semitones=torch.tensor([7.0]))  # to 8990 Hz, beyond half the rate
    assert y[..., 4000:28000].std() < 0.02 * sine(6000.0).std()


def test_pitch_zero_is_nearly_the_identity() -> None:
    x = torch.from_numpy(librosa.chirp(fmin=100, fmax=3000, sr=RATE, duration=1.0)).float()[None, None] * 0.5
    y = PitchShift().transform(x, semitones=torch.zeros(1))
    assert (y - x)[..., 1000:-1000].std() < 1e-3 * x.std()
