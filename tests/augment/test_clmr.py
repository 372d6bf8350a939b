"""The chain of CLMR against NumPy, SciPy and a loop of Freeverb's filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from omegaconf import OmegaConf

from tonnetz.augment import Clmr
from tonnetz.augment.clmr import CHANCES
from tonnetz.augment.freeverb import impulse_response, rooms
from tonnetz.augment.grains import margin, transpose
from tonnetz.augment.response import echo, fast_size, low_pass, reach
from tonnetz.errors import UserError

FOLDER = Path(__file__).parents[2] / "config" / "augment"
RATE = 22050
SIZE = 30000
NONE = dict.fromkeys(CHANCES, 0.0)


def only(**chances: Any) -> Clmr:
    return Clmr(**{**NONE, "rooms": 4, "sample_rate": RATE, **chances})


def music(size: int = 4, length: int = SIZE) -> torch.Tensor:
    """Noise of the spectrum and level of music."""
    noise = np.random.default_rng(0).standard_normal((size, length))
    x = scipy.signal.lfilter([1.0], [1.0, -0.9], noise)
    return torch.from_numpy(0.5 * x / np.abs(x).max(-1, keepdims=True)).float().unsqueeze(1)


def neutral(size: int, **changed: list[float]) -> dict[str, torch.Tensor]:
    params = {name: torch.zeros(size) for name in ("noise", "low", "high")}
    params |= {name: torch.zeros(size, dtype=torch.long) for name in ("start", "delay", "cents", "room")}
    params |= {"sign": torch.ones(size), "gain": torch.ones(size), "clip": torch.zeros(size, dtype=torch.bool)}
    return params | {name: torch.tensor(value) for name, value in changed.items()}


def windowed_sinc(cutoff: float) -> np.ndarray:
    """Taps of a low-pass: eight zeros under SciPy's Hann window, gain 1 at 0 Hz."""
    half = int(8 / (cutoff / RATE) / 2)
    t = np.arange(-half, half + 1)
    taps = scipy.signal.windows.hann(2 * half + 1) * np.sinc(2 * cutoff / RATE * t)
    return taps / taps.sum()


def filtered(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Linear convolution, with the ends that lie before and after x."""
    taps = windowed_sinc(low or high)
    y = np.convolve(x, taps)
    half = len(taps) // 2
    return y if low else np.pad(x, half) - y


def test_polarity_and_gain() -> None:
    x = music()
    y = only().transform(x, **neutral(4, sign=[-1.0, 1.0, -1.0, 1.0], gain=[1.0, 0.5, 0.1, 1.0]))
    torch.testing.assert_close(y, x * torch.tensor([-1.0, 0.5, -0.1, 1.0]).view(4, 1, 1))


def test_gain_clips_and_nothing_else_does() -> None:
    x = torch.full((2, 1, 10), -3.0)
    y = only().transform(x, **neutral(2, gain=[0.9, 0.9], clip=[True, False]))
    assert y[:, 0, 0].tolist() == pytest.approx([-1.0, -2.7])


def test_noise_is_a_ratio_of_the_standard_deviation() -> None:
    x = music()
    y = only().transform(x, **neutral(4, noise=[0.0, 1e-4, 1e-2, 1e-2], start=[0, 0, 5, 500_000], gain=[0.5] * 4))
    noise = (y - 0.5 * x).double()
    ratio = noise.std((1, 2)) / (0.5 * x.std((1, 2)))
    np.testing.assert_allclose(ratio, [0.0, 1e-4, 1e-2, 1e-2], rtol=0.02)
    spectrum = noise[3, 0].numpy()
    assert abs(np.corrcoef(spectrum[1:], spectrum[:-1])[0, 1]) < 0.02, "white"
    assert abs(np.corrcoef(noise[2, 0], noise[3, 0])[0, 1]) < 0.02, "each example its own"


@pytest.mark.parametrize("cutoff", [200.0, 650.0, 1200.0, 2200.0, 3100.0, 4000.0])
def test_low_pass_response_is_that_of_its_taps(cutoff: float) -> None:
    response = low_pass(torch.tensor([cutoff]), RATE, 3001, 200.0)[0]
    taps = windowed_sinc(cutoff)
    _, expected = scipy.signal.freqz(taps, worN=3001, include_nyquist=True)
    expected *= np.exp(1j * np.linspace(0, np.pi, 3001) * (len(taps) // 2))
    np.testing.assert_allclose(response, expected.real, atol=1e-3)
    assert reach(cutoff, RATE) == len(taps) // 2


def test_filters_are_convolutions() -> None:
    x, low, high = music(), [2200.0, 4000.0, 0.0, 0.0], [0.0, 0.0, 200.0, 1200.0]
    y = only().transform(x, **neutral(4, low=low, high=high))
    for i in range(4):
        full = filtered(x[i, 0].double().numpy(), low[i], high[i])
        half = (len(full) - SIZE) // 2
        np.testing.assert_allclose(y[i, 0], full[half : half + SIZE], atol=3e-4)


def test_delay() -> None:
    x, chain = music(), only()
    y = chain.transform(x, **neutral(4, delay=[0, 1, 4, 6]))
    for i, milliseconds in enumerate([0, 200, 350, 450]):
        late = np.zeros(SIZE)
        samples = round(milliseconds * RATE / 1000)
        late[samples:] = x[i, 0, : SIZE - samples]
        expected = (x[i, 0] + 0.5 * late) / 2 if milliseconds else x[i, 0]
        np.testing.assert_allclose(y[i, 0], expected, atol=1e-6)
    torch.testing.assert_close(y[0], x[0], rtol=0, atol=0)


def test_echo_response_is_that_of_its_taps() -> None:
    taps = np.zeros(200)
    taps[[0, 37]] = 0.5, 0.15
    np.testing.assert_allclose(echo(torch.tensor([37]), 0.3, 200)[0], np.fft.rfft(taps), atol=1e-6)


def test_filter_then_delay_is_one_response() -> None:
    x = music(1)
    y = only().transform(x, **neutral(1, low=[3000.0], delay=[2]))[0, 0]
    full = filtered(x[0, 0].double().numpy(), 3000.0, 0.0)
    half, samples = (len(full) - SIZE) // 2, round(0.25 * RATE)
    late = np.concatenate([np.zeros(samples), full])[: len(full)]
    np.testing.assert_allclose(y, ((full + 0.5 * late) / 2)[half : half + SIZE], atol=3e-4)


def freeverb_loop(x: np.ndarray, reverberance: float, damping: float, room: float, rate: int) -> np.ndarray:
    """Freeverb sample by sample with ring buffers, left and right averaged."""
    feedback = 1 - np.exp(np.log(0.7) + (np.log(0.02) - np.log(0.7)) * reverberance / 100)
    damp, factor = 0.2 + 0.3 * damping / 100, rate / 44100
    out = np.zeros((2, len(x)))
    for side in (0, 1):
        turn = [side * 12 * (-1) ** i for i in range(8)]
        combs = [1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617]
        lines = [np.zeros(int((0.1 + 0.9 * room / 100) * factor * (c + t) + 0.5)) for c, t in zip(combs, turn)]  # noqa: B905
        rows = [np.zeros(int(factor * (a + t) + 0.5)) for a, t in zip([225, 341, 441, 556], turn)]  # noqa: B905
        store = np.zeros(8)
        for n, sample in enumerate(x):
            total = 0.0
            for k, line in enumerate(lines):
                value = line[n % len(line)]
                store[k] = value + (store[k] - value) * damp
                line[n % len(line)] = sample + store[k] * feedback
                total += value
            for line in rows:
                value = line[n % len(line)]
                line[n % len(line)] = total + 0.5 * value
                total = value - total
            out[side, n] = 0.015 * total
    return x + out.mean(0)


@pytest.mark.parametrize("percent", [(0, 99, 0), (50, 50, 50), (99, 0, 99), (99, 99, 10)])
def test_impulse_response_is_freeverb(percent: tuple[int, int, int]) -> None:
    impulse = np.zeros(4000)
    impulse[0] = 1
    expected = freeverb_loop(impulse, *percent, rate=16000)
    assert np.abs(expected[1:]).max() > 0.005
    np.testing.assert_allclose(impulse_response(*percent, 16000, 4000), expected, atol=1e-7)


def test_long_rooms_do_not_wrap() -> None:
    long, short = impulse_response(99, 0, 99, RATE, 40000), impulse_response(99, 0, 99, RATE, 9000)
    assert long[30000:].abs().max() > 1e-3, "still sounding"
    np.testing.assert_allclose(short, long[:9000], atol=1e-7)


def test_reverb_is_a_convolution_with_a_room() -> None:
    chain, x = only(reverb=1.0), music(5)
    y = chain.transform(x, **neutral(5, room=[0, 1, 2, 3, 4]))
    bank = rooms(4, (0, 99), (0, 99), (0, 99), RATE, SIZE)
    torch.testing.assert_close(y[0], x[0], rtol=0, atol=0)
    for i in range(1, 5):
        expected = scipy.signal.fftconvolve(x[i, 0].double(), bank[i - 1].double())[:SIZE]
        np.testing.assert_allclose(y[i, 0], expected, atol=2e-5)
    assert len({tuple(row[1:5000].tolist()) for row in bank}) == 4


def sine(hertz: float, length: int = 59049) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(length, dtype=torch.float64) / RATE).float()[None, None]


def peak_hertz(x: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(x.flatten() * torch.hann_window(x.shape[-1]), n=8 * x.shape[-1]).abs()
    return float(spectrum.argmax()) * RATE / (8 * x.shape[-1])


@pytest.mark.parametrize("hertz", [110.0, 440.0, 3000.0])
def test_sine_moves_by_its_cents_and_keeps_its_level(hertz: float) -> None:
    cents = [-700, -333, 1, 250, 700]
    x = sine(hertz).expand(5, 1, -1)
    y = only(pitch=1.0).transform(x, **neutral(5, cents=cents))
    for i, value in enumerate(cents):
        assert peak_hertz(y[i]) == pytest.approx(hertz * 2 ** (value / 1200), rel=2e-3)
    np.testing.assert_allclose(y.std(-1).flatten(), x.std(-1).flatten(), rtol=0.02)
    assert (y[..., -3000:].std(-1) > 0.3).all(), "filled to the end"


def test_pitch_shift_keeps_the_tempo() -> None:
    """Notes of 0.1 s every 0.4 s stay where they are, whichever way they are shifted."""
    time = torch.arange(59049)
    bell = torch.exp(-(((time % 8800) / RATE - 0.2) ** 2) / (2 * 0.03**2))
    x = (bell * sine(800.0)).expand(2, 1, -1)
    y = only(pitch=1.0).transform(x, **neutral(2, cents=[-500, 500])).square()
    for start in range(0, 52000, 8800):
        inside = slice(start, start + 8800)
        power = y[..., inside].sum(-1)
        centre = (y[..., inside] * (time[inside] - start)).sum(-1) / power / RATE
        np.testing.assert_allclose(centre, 0.2, atol=0.015)
        np.testing.assert_allclose(power, x[0, 0, inside].square().sum(), rtol=0.3)


def test_shift_up_does_not_alias() -> None:
    y = only(pitch=1.0).transform(sine(9000.0), **neutral(1, cents=[700]))
    assert y.std() < 0.02 * sine(9000.0).std()


def test_no_shift_by_grains_is_the_sound_itself() -> None:
    x = torch.nn.functional.pad(music()[:, 0], (0, margin(1.0, RATE)))
    double = torch.from_numpy(scipy.signal.resample(x.numpy(), 2 * x.shape[1], axis=1)).float()
    y = transpose(double, torch.ones(4), SIZE, RATE)
    torch.testing.assert_close(y, x[:, :SIZE], rtol=0, atol=1e-5)


def test_rates_ranges_and_the_coin() -> None:
    count, chain = 20000, Clmr(sample_rate=RATE)
    draw = chain.draw(torch.zeros(count, 1, 1))
    counts = {
        "polarity": draw["sign"] < 0,
        "noise": draw["noise"] > 0,
        "gain": draw["clip"],
        "filter": draw["low"] + draw["high"] > 0,
        "delay": draw["delay"] > 0,
        "reverb": draw["room"] > 0,
    }
    for name, mask in counts.items():
        p = chain.chances[name]
        assert abs(int(mask.sum()) - p * count) < 3 * (count * p * (1 - p)) ** 0.5, name
    shifted = 0.6 * 1400 / 1401
    assert abs(int((draw["cents"] != 0).sum()) - shifted * count) < 3 * (count * shifted * (1 - shifted)) ** 0.5
    low, high = draw["low"][draw["low"] > 0], draw["high"][draw["high"] > 0]
    assert abs(len(low) - 0.4 * count) < 3 * (0.24 * count) ** 0.5
    assert (draw["low"] * draw["high"] == 0).all()
    decibels = 20 * draw["gain"][draw["clip"]].log10()
    ratio = draw["noise"][draw["noise"] > 0]
    for values, bottom, top in ((low, 2200, 4000), (high, 200, 1200), (decibels, -20, -1), (ratio, 1e-4, 1e-2)):
        width = top - bottom
        assert values.min() >= bottom - 1e-4 * width
        assert values.max() <= top + 1e-4 * width
        assert abs(values.mean() - (bottom + top) / 2) < 4 * width * (12 * len(values)) ** -0.5
    assert draw["cents"].min() == -700
    assert draw["cents"].max() == 700
    assert draw["delay"].unique().tolist() == list(range(7))
    assert draw["room"].max() == 128
    effects = torch.stack([mask.float() for mask in counts.values()])
    assert torch.corrcoef(effects).fill_diagonal_(0).abs().max() < 0.03, "drawn for themselves"


def test_nothing_drawn_changes_no_bit() -> None:
    x = music()
    torch.testing.assert_close(only()({"audio": x})["audio"], x, rtol=0, atol=0)


def test_two_channels_share_the_draw() -> None:
    chain, x = Clmr(sample_rate=RATE, rooms=4), music(8)
    torch.manual_seed(1)
    stereo = chain({"audio": x.expand(-1, 2, -1)})["audio"]
    torch.testing.assert_close(stereo[:, 0], stereo[:, 1], rtol=0, atol=1e-4)


def test_example_does_not_depend_on_its_batch() -> None:
    chain, x = Clmr(sample_rate=RATE, rooms=4), music(12)
    params = chain.draw(x)
    together = chain.transform(x, **params)
    alone = torch.cat(
        [chain.transform(x[i : i + 1], **{k: v[i : i + 1] for k, v in params.items()}) for i in range(12)]
    )
    assert (together - alone).abs().max() < 1e-4


def test_lengths_may_alternate() -> None:
    chain, x = only(reverb=1.0, filter=1.0), music(2)
    params = neutral(2, low=[3000.0, 0.0], room=[1, 2])
    before = chain.transform(x, **params)
    assert chain.transform(x[..., :777], **params).shape == (2, 1, 777)
    torch.testing.assert_close(chain.transform(x, **params), before, rtol=0, atol=0)


def test_profiles() -> None:
    profiles = {name: OmegaConf.load(FOLDER / f"{name}.yaml").wave.clmr for name in ("clmr", "key_preserving", "light")}
    rates = {name: [profile[chance] for chance in CHANCES] for name, profile in profiles.items()}
    assert rates["clmr"] == [0.8, 0.01, 0.3, 0.8, 0.3, 0.6, 0.6]
    assert rates["key_preserving"] == [0.8, 0.01, 0.3, 0.8, 0.3, 0.0, 0.6]
    assert sum(rates["light"]) < 0.6 * sum(rates["clmr"])
    keep = Clmr(**{k: v for k, v in profiles["key_preserving"].items() if k != "_target_"})
    assert (keep.draw(torch.zeros(5000, 1, 1))["cents"] == 0).all()


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 59049, 69412, 118098])
def test_fast_size(size: int) -> None:
    n = fast_size(size)
    assert size <= n < size + max(64, 0.06 * size) + 64
    assert n % 64 == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"reverb": 1.5},
        {"cents": [700, -700]},
        {"gain_db": [1.0]},
        {"high_pass": [0.0, 100.0]},
        {"delays": []},
        {"rooms": 0},
    ],
)
def test_wrong_settings_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="augment Clmr") as error:
        Clmr(**wrong)
    assert "\n" not in str(error.value)
