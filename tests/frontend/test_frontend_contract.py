"""Every YAML of config/frontend builds a front-end that keeps the contract."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from tonnetz.errors import UserError
from tonnetz.frontend import CQT, HCQT, MFCC, ClewsCQT, CoverHunterCQT, LogMel, MultiSpec, Raw, fingerprint
from tonnetz.frontend.base import Frontend, reflect

FOLDER = Path(__file__).parents[2] / "config" / "frontend"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# a YAML file that holds other values than the defaults of its class
PRESETS = {"mfcc_wide": {"n_fft": 2048, "hop": 512, "mels": 128, "fmin": 0.0}}


@cache
def build(name: str, **changes: Any) -> Frontend:
    """Return the front-end of a YAML file, made once: it has no state."""
    return instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"), **changes)


def test_folder_has_every_frontend() -> None:
    targets = {OmegaConf.load(FOLDER / f"{name}.yaml")["_target_"].rsplit(".", 1)[1] for name in NAMES}
    assert targets >= {
        "Raw",
        "LogMel",
        "MelMagnitude",
        "MFCC",
        "CQT",
        "MultiSpec",
        "CoverHunterCQT",
        "ClewsCQT",
        "HCQT",
    }


@pytest.mark.parametrize("name", NAMES)
def test_yaml_holds_the_signature_defaults(name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    signature = inspect.signature(get_class(config.pop("_target_"))).parameters
    defaults = {key: parameter.default for key, parameter in signature.items()}
    expected = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    changed = PRESETS.get(name, {})
    assert config == expected | changed
    assert all(expected[key] != value for key, value in changed.items()), "a preset names what it changes only"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, 319, 320, 512, 513, 6400, 16001])
def test_shape(name: str, size: int) -> None:
    frontend = build(name)
    features = frontend(torch.rand(2, 1, size) - 0.5)
    raw = {"raw": size, "cqt_coverhunter": max(size // 640, 1)}.get(name, size // frontend.raw_hop + 1)
    frames = max(raw // frontend.mean_size, 1)
    assert features.shape == (2, frontend.channels, frontend.bins, frames)
    assert int(frontend.frames(torch.tensor([size]))) == frames
    assert features.dtype == torch.float32
    assert features.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_silence_is_finite(name: str) -> None:
    assert build(name)(torch.zeros(1, 1, 8000)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_no_state(name: str) -> None:
    frontend = build(name)
    assert not frontend.state_dict()
    assert not list(frontend.parameters())
    assert name == "raw" or list(frontend.buffers()), "the kernels are buffers, so that they move with the module"


@pytest.mark.parametrize("name", NAMES)
def test_float32_inside_autocast(name: str) -> None:
    frontend, audio = build(name), torch.rand(2, 1, 4000) - 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = frontend(audio)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, frontend(audio), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_examples_do_not_touch_each_other(name: str) -> None:
    frontend, audio = build(name), torch.rand(3, 1, 4000) - 0.5
    torch.testing.assert_close(frontend(audio)[1:2], frontend(audio[1:2]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_params_rebuild_the_same_frontend(name: str) -> None:
    frontend = build(name)
    again = type(frontend)(**frontend.params)
    assert fingerprint(again) == fingerprint(frontend)
    audio = torch.rand(1, 1, 4000) - 0.5
    torch.testing.assert_close(again(audio), frontend(audio), rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if "mean_size" in OmegaConf.load(FOLDER / f"{name}.yaml")])
@pytest.mark.parametrize("size", [100, 6400, 16001])
def test_mean_size_is_the_mean_of_groups(name: str, size: int) -> None:
    audio = torch.rand(2, 1, size) - 0.5
    one, four = build(name, mean_size=1), build(name, mean_size=4)
    raw = one.compute(audio)
    groups = [raw[..., i : i + 4].mean(-1) for i in range(0, max(raw.shape[-1] // 4, 1) * 4, 4)]
    expected = four.finish(torch.stack(groups, -1))
    torch.testing.assert_close(four(audio), expected, rtol=1e-5, atol=1e-4)
    assert four.hop == 4 * one.hop
    assert int(four.frames(torch.tensor([size]))) == expected.shape[-1]
    assert fingerprint(four) != fingerprint(one)


def test_fingerprints_of_earlier_stores_still_hold() -> None:
    """An option that is off is no part of the identity: these are the prints from before it existed."""
    prints = {CQT: "64f8127a2ab7da61", LogMel: "51b4ec338c0dc4f8", MFCC: "b3856293714ffcbc"}
    prints |= {MultiSpec: "e312de4077ee4078"}
    assert {kind: fingerprint(kind()) for kind in prints} == prints
    assert fingerprint(Raw(sample_rate=16000)) == "08ab933132033822"
    assert fingerprint(CQT(mean_size=2)) != prints[CQT]
    assert fingerprint(CQT(tuning=True)) != prints[CQT]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for algorithm in ("cqt1992v2", "cqt2010v2"):
        CQT(algorithm=algorithm)(torch.rand(1, 1, 4000))
    assert capfd.readouterr().out == ""


def test_fingerprint_is_of_class_version_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    base = fingerprint(LogMel())
    assert len(base) == 16
    assert int(base, 16) >= 0
    assert fingerprint(LogMel(hop=320, sample_rate=16000)) == base
    assert fingerprint(LogMel(fmin=30, fmax=8000)) == base  # int or float, null or what null means
    shuffled = LogMel()
    shuffled.params = dict(reversed(shuffled.params.items()))
    assert fingerprint(shuffled) == base
    others = [LogMel(bins=65), LogMel(hop=160), LogMel(fmin=31), LogMel(fmax=7999), LogMel(n_fft=2048)]
    others += [LogMel(sample_rate=22050), MFCC(), CQT(), CQT(algorithm="cqt2010v2"), MultiSpec(), Raw()]
    prints = [fingerprint(other) for other in others]
    assert len({base, *prints}) == len(prints) + 1
    monkeypatch.setattr(LogMel, "version", 2)
    assert fingerprint(LogMel()) != base


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 10, 11, 40])
def test_reflect_is_numpy_pad(size: int) -> None:
    audio = np.random.default_rng(size).standard_normal((2, 1, size)).astype(np.float32)
    expected = np.pad(audio, ((0, 0), (0, 0), (10, 10)), mode="reflect")
    np.testing.assert_array_equal(reflect(torch.from_numpy(audio), 10).numpy(), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LogMel(fmax=9000),
        lambda: LogMel(fmin=5000, fmax=4000),
        lambda: LogMel(n_fft=1023),
        lambda: LogMel(hop=0),
        lambda: MFCC(bins=65),
        lambda: CQT(bins=120),
        lambda: CQT(algorithm="cqt2010v2", hop=160),
        lambda: CQT(algorithm="fast"),
        lambda: CQT(pad="wrap"),
        lambda: MultiSpec(chroma_n_fft=1024),
        lambda: LogMel(mean_size=0),
        lambda: CoverHunterCQT(bins=97),
        lambda: CoverHunterCQT(threshold=0.7),
        lambda: CoverHunterCQT(fmin=0.0),
        lambda: ClewsCQT(exponent=0.0),
        lambda: CQT(fmin=33.0, bins=96, tuning=True),
        lambda: HCQT(bins=72),
        lambda: HCQT(harmonics=()),
    ],
)
def test_wrong_parameters_are_one_line(wrong) -> None:
    with pytest.raises(UserError) as error:
        wrong()
    assert str(error.value).startswith("frontend")
    assert "\n" not in str(error.value)
