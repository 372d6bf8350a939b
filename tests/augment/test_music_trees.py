"""The effects of the Music Trees chain against torchaudio, SciPy, or a loop over samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio.functional as reference
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tonnetz.augment import (
    Augment,
    Augmentation,
    Chorus,
    Compand,
    Flanger,
    Overdrive,
    PeakEqualizer,
    Phaser,
    Reverb,
    Speed,
    Transpose,
)
from tonnetz.augment.freeverb import impulse_response
from tonnetz.augment.normal import normal
from tonnetz.augment.reverb import wet_rooms
from tonnetz.augment.sweep import sweep
from tonnetz.errors import UserError

RATE, SIZE = 16000, 1600
CONFIG = OmegaConf.load(Path(__file__).parents[2] / "config" / "augment" / "music_trees.yaml")
EFFECTS = [Compand, Overdrive, PeakEqualizer, Transpose, Speed, Phaser, Flanger, Reverb, Chorus]
# The table of the published chain: mean, standard deviation, lowest, highest.
TABLE = {
    "compand": {"amount": (75, 20, 0, 100)},
    "overdrive": {"gain": (10, 5, 0, 40), "colour": (20, 5, 0, 40)},
    "peak_equalizer": {"hertz": (60, 10, 40, 80), "gain": (0, 6, -24, 24), "q": (0.707, 0.1415, 0.3, 1.4)},
    "transpose": {"semitones": (0, 3, -7, 7)},
    "speed": {"factor": (1, 0.125, 0.75, 1.25)},
    "phaser": {"delay": (3, 0.1, 0, 5), "decay": (0.4, 0.05, 0.1, 0.5), "speed": (0.5, 0.1, 0.1, 2)},
    "flanger": {
        "delay": (0, 5, 0, 30),
        "depth": (2, 5, 0, 10),
        "regen": (0, 10, -95, 95),
        "width": (71, 5, 0, 100),
        "speed": (0.5, 0.2, 0.1, 10),
        "phase": (25, 7, 0, 100),
    },
    "reverb": {
        "reverberance": (50, 15, 0, 100),
        "damping": (50, 25, 0, 100),
        "room": (50, 25, 0, 100),
        "gain": (0, 2, -3, 3),
    },
    "chorus": {"gain_in": (0.3, 0.1, 0.1, 0.5), "gain_out": (0.8, 0.1, 0.5, 1), "voices": (3, 1, 2, 8)},
    "speed_again": {"factor": (1, 0.125, 0.75, 1.25)},
}


def sound(batch: int, channels: int = 1, size: int = SIZE) -> torch.Tensor:
    return torch.rand(batch, channels, size) - 0.5


def number(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def chain() -> Augment:
    return Augment({name: instantiate(node, sample_rate=RATE) for name, node in CONFIG.wave.items()})


def test_the_chain_is_the_published_one() -> None:
    assert list(CONFIG.wave) == list(TABLE)
    for name, table in TABLE.items():
        assert CONFIG.wave[name].p == 0.5
        assert {key: tuple(CONFIG.wave[name][key]) for key in table} == table
        built, default = instantiate(CONFIG.wave[name]), type(instantiate(CONFIG.wave[name]))()
        own = {key: value for key, value in vars(built).items() if not key.startswith("_")}
        assert own == {key: vars(default)[key] for key in own}, "defaults are the YAML's"


def test_chain_is_seeded_finite_and_off_in_evaluation() -> None:
    augment, batch = chain(), {"audio": sound(24, size=8000), "lengths": torch.full((24,), 8000)}
    out = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        out.append(augment.wave(batch))
    assert out[0]["audio"].shape == batch["audio"].shape
    assert out[0]["audio"].isfinite().all()
    assert torch.equal(out[0]["audio"], out[1]["audio"])
    assert not torch.equal(out[0]["audio"], out[2]["audio"])
    changed = (out[0]["audio"] != batch["audio"]).flatten(1).any(1)
    assert changed.sum() >= 22, "one example in 1024 keeps out of all ten"
    assert augment.eval().wave(batch) is batch


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_changes_the_waveform_and_stays_in_range(effect: type[Augmentation]) -> None:
    x = sound(16, channels=2, size=4000)
    y = effect(p=1.0)({"audio": x})["audio"]
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert ((y - x).abs().flatten(1).amax(1) > 1e-3).all()
    if effect in (Compand, Overdrive, Phaser, Flanger, Chorus):
        assert y.abs().max() <= 1


@pytest.mark.parametrize("effect", EFFECTS)
def test_rows_and_channels_do_not_mix(effect: type[Augmentation]) -> None:
    member, x = effect(p=1.0), sound(3, channels=2)
    params = member.draw(x)
    if effect is Flanger:
        params["phase"] = torch.zeros(3)  # which is what tells channels apart
    y = member.transform(x, **params)
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in params.items()}
        for channel in range(2):
            alone = member.transform(x[row : row + 1, channel : channel + 1], **one)
            torch.testing.assert_close(alone[0, 0], y[row, channel], atol=2e-4, rtol=0)


def test_normal_draws_are_clipped() -> None:
    x = torch.zeros(20000, 1)
    drawn = normal(x, (75.0, 20.0, 0.0, 100.0)).double()
    assert abs(drawn.median() - 75) < 0.6
    assert drawn.min() >= 0
    assert abs((drawn == 100).double().mean() - 0.1056) < 0.01  # beyond 1.25 standard deviations
    assert abs((drawn < 55).double().mean() - 0.1587) < 0.01
    assert normal(x[:5], (0.0, 1.0, -1.0, 1.0), 7).shape == (5, 7)


def test_compand_is_torchaudio_contrast() -> None:
    x = 2 * sound(3)
    y = Compand().transform(x, amount=number(0.0, 60.0, 100.0))
    for row, amount in enumerate((0.0, 60.0, 100.0)):
        torch.testing.assert_close(y[row], reference.contrast(x[row], amount), atol=1e-6, rtol=0)


def test_overdrive_is_torchaudio_without_the_click() -> None:
    x = 0.3 * sound(3, size=12000)
    gains, colours = (0.0, 10.0, 30.0), (20.0, 35.0, 0.0)
    y = Overdrive().transform(x, gain=number(*gains), colour=number(*colours))
    for row, (gain, colour) in enumerate(zip(gains, colours, strict=True)):
        click = reference.overdrive(torch.zeros(1, 12000), gain, colour)
        theirs = reference.overdrive(x[row].clone(), gain, colour)
        inside = (theirs.abs() < 1) & ((theirs - click).abs() < 1)
        assert inside.float().mean() > 0.9
        torch.testing.assert_close(y[row][inside], (theirs - click)[inside], atol=3e-5, rtol=0)


def test_peak_equalizer_is_a_cascade_of_biquads() -> None:
    x = 0.2 * sound(2)
    hertz, gain, q = number(50.0, 640.0, 1200.0), number(6.0, -12.0, 3.0), number(0.5, 0.7, 1.4)
    params = {"hertz": hertz, "gain": gain, "q": q}
    y = PeakEqualizer(bands=3).transform(x, **{k: v.expand(2, 3) for k, v in params.items()})
    expected = x
    for f, g, width in zip(hertz.tolist(), gain.tolist(), q.tolist(), strict=True):
        expected = reference.equalizer_biquad(expected, RATE, f, g, width)
    torch.testing.assert_close(y, expected, atol=1e-4, rtol=0)


def test_peak_equalizer_draws_one_to_seven_bands_up_to_1280_hertz() -> None:
    params = PeakEqualizer().draw(torch.zeros(4000, 1, 1))
    counts = (params["gain"] != 0).sum(1).bincount(minlength=8)[1:]
    assert (counts - 4000 / 7).abs().max() < 5 * (4000 / 7) ** 0.5
    assert params["hertz"].min() >= 40
    assert 1000 < params["hertz"].max() <= 1280


def test_transpose_and_its_draw() -> None:
    semitones = Transpose().draw(torch.zeros(8000, 1, 1))["semitones"]
    assert abs(semitones.std() - 3) < 0.1
    assert semitones.abs().max() <= 7
    x = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(RATE) / RATE)[None, None]
    y = Transpose().transform(x, semitones=number(7.0))
    assert abs(float(torch.fft.rfft(y[0, 0]).abs().argmax()) - 440 * 2 ** (7 / 12)) < 2


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_speed_is_resampling(factor: float) -> None:
    low = scipy.signal.firwin(101, 2500, fs=RATE)
    x = torch.tensor(np.convolve(np.random.default_rng(0).standard_normal(8000), low, "same")).float()[None, None]
    y = Speed().transform(x, factor=number(factor))[0, 0].numpy()
    up, down = (5, 4) if factor < 1 else (4, 5)
    theirs = scipy.signal.resample_poly(x[0, 0].double().numpy(), up, down, window=("kaiser", 12.0))[:8000]
    inner = slice(200, len(theirs) - 200)
    assert np.abs(y[: len(theirs)][inner] - theirs[inner]).max() < 0.01 * np.abs(theirs).max()
    if factor > 1:
        assert (y[6400:] == 0).all()
    assert Speed().measure(torch.tensor([8000, 801]), 8000, factor=number(factor, factor)).tolist() == (
        [8000, 1002] if factor < 1 else [6400, 641]
    )


def test_speed_does_not_alias() -> None:
    x = torch.sin(2 * torch.pi * 7000 * torch.arange(RATE) / RATE)[None, None]
    assert Speed().transform(x, factor=number(1.25))[..., 500:12000].abs().max() < 0.01


@pytest.mark.parametrize("sine", [True, False])
def test_phaser_is_torchaudio(sine: bool) -> None:
    x, member = sound(2), Phaser(gain_in=0.4)
    params = {"delay": number(3.0, 2.7), "decay": number(0.4, 0.5), "speed": number(0.5, 2.0)}
    y = member.transform(x, **params, triangle=torch.tensor([not sine] * 2))
    for row in range(2):
        delay, decay, speed = (float(params[key][row]) for key in ("delay", "decay", "speed"))
        theirs = reference.phaser(x[row], RATE, 0.4, 0.74, delay, decay, speed, sine)
        torch.testing.assert_close(y[row], theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sine", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_flanger_is_torchaudio(sine: bool, linear: bool) -> None:
    x = sound(3, channels=2)
    params = {
        "delay": number(0.0, 7.3, 1.0),
        "depth": number(2.0, 5.0, 0.0),
        "regen": number(30.0, -50.0, 0.0),
        "width": number(71.0, 100.0, 40.0),
        "speed": number(0.5, 4.0, 10.0),
        "phase": number(25.0, 70.0, 0.0),
    }
    shape = {"triangle": torch.tensor([not sine] * 3), "quadratic": torch.tensor([not linear] * 3)}
    y = Flanger().transform(x, **params, **shape)
    kinds = "sinusoidal" if sine else "triangular", "linear" if linear else "quadratic"
    for row in range(3):
        theirs = reference.flanger(x[row], RATE, *(float(value[row]) for value in params.values()), *kinds)
        torch.testing.assert_close(y[row], theirs, atol=3e-4, rtol=0)


def test_flanger_with_the_strongest_feedback_is_finite() -> None:
    x = sound(8, size=8000)
    params = {**Flanger().draw(x), "regen": torch.full((8,), 95.0), "quadratic": torch.ones(8, dtype=torch.bool)}
    assert Flanger().transform(x, **params).isfinite().all()


def chorus_by_hand(x: np.ndarray, params: dict[str, np.ndarray], row: int) -> np.ndarray:
    out = params["gain_in"][row] * x
    for v in range(params["voices"][row]):
        period = np.floor(RATE / params["speeds"][row, v] + 0.5)
        for i in range(len(x)):
            turn = (i + np.floor(period / 4 + 0.5)) % period / period
            tent = scipy.signal.sawtooth(2 * np.pi * (turn + 0.25), 0.5) / 2 + 0.5
            swing = tent if params["triangle"][row, v] else (np.sin(2 * np.pi * turn) + 1) / 2
            place = i - (params["delays"][row, v] + params["depths"][row, v] * swing) * RATE / 1000
            out[i] += params["decays"][row, v] * np.interp(place, np.arange(-1, len(x)), np.r_[0, x], left=0)
    return np.clip(params["gain_out"][row] * out, -1, 1)


def test_chorus_is_a_loop_over_voices_and_samples() -> None:
    x = sound(2)
    params = Chorus().draw(x)
    params["voices"] = torch.tensor([2, 4])
    y = Chorus().transform(x, **params)
    arrays = {k: v.numpy() if v.dtype in (torch.int64, torch.bool) else v.double().numpy() for k, v in params.items()}
    for row in range(2):
        expected = chorus_by_hand(x[row, 0].double().numpy(), arrays, row)
        np.testing.assert_allclose(y[row, 0], expected, atol=1e-4)
    assert set(Chorus().draw(torch.zeros(4000, 1, 1))["voices"].tolist()) >= {2, 3, 4, 5}


def test_sweep_starts_where_it_says() -> None:
    half = torch.tensor([False, True])
    for start, value in ((0.0, 0.5), (0.25, 1.0), (0.5, 0.5), (0.75, 0.0)):
        wave = sweep(number(2.0, 2.0), half, start, 8000, RATE)
        torch.testing.assert_close(wave[:, 0], torch.full((2,), value).double())
        assert wave.min() >= 0
        assert wave.max() <= 1
    assert sweep(number(2.0), half[1:], 0.0, 8000, RATE)[0, 500] == pytest.approx(0.5 + 2 * 500 / 8000)


def test_reverb_is_a_convolution_with_a_room_and_its_gain() -> None:
    member, x = Reverb(rooms=4), sound(3)
    y = member.transform(x, room=torch.tensor([0, 3, 3]), gain=number(0.0, -3.0, 3.0))
    bank = wet_rooms(4, (member.reverberance, member.damping, member.room), RATE, SIZE).double().numpy()
    for row, (room, gain) in enumerate(((0, 0.0), (3, -3.0), (3, 3.0))):
        wet = np.convolve(x[row, 0].double().numpy(), bank[room])[:SIZE]
        np.testing.assert_allclose(y[row, 0], x[row, 0].numpy() + 10 ** (gain / 20) * wet, atol=1e-5)


def test_a_room_without_deviation_is_freeverb() -> None:
    draws = ((30.0, 0.0, 0.0, 100.0), (60.0, 0.0, 0.0, 100.0), (250.0, 0.0, 0.0, 100.0))
    bank = wet_rooms(2, draws, RATE, 8000)
    expected = impulse_response(30.0, 60.0, 100.0, RATE, 8000)
    expected[0] -= 1
    torch.testing.assert_close(bank, expected.expand(2, -1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Compand(amount=(75.0, 20.0, 0.0, 101.0)),
        lambda: Overdrive(gain=(10.0, 5.0, 0.0)),
        lambda: PeakEqualizer(bands=0),
        lambda: Transpose(semitones=(0.0, -3.0, -7.0, 7.0)),
        lambda: Speed(factor=(1.0, 0.1, 0.0, 1.2)),
        lambda: Phaser(decay=(0.4, 0.1, 0.1, 1.0)),
        lambda: Flanger(regen=(0.0, 10.0, 95.0, -95.0)),
        lambda: Reverb(rooms=0),
        lambda: Chorus(speeds=(0.0, 0.4)),
        lambda: Chorus(delays=(60.0, 40.0)),
    ],
)
def test_wrong_parameters_are_one_line(wrong: Callable[[], Augmentation]) -> None:
    with pytest.raises(UserError) as error:
        wrong()
    assert str(error.value).startswith("augment ")
    assert "\n" not in str(error.value)
