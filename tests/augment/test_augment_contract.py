"""Every member of config/augment/full.yaml keeps the contract, and every YAML of the folder builds."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

import tonnetz.augment
from tonnetz.augment import Augment, Augmentation, Gain, Mixup, TimeMask
from tonnetz.errors import UserError

FOLDER = Path(__file__).parents[2] / "config" / "augment"
FULL = OmegaConf.to_container(OmegaConf.load(FOLDER / "full.yaml"))
MEMBERS = [(chain, name) for chain in ("wave", "features") for name in FULL[chain]]


def build(chain: str, name: str, **override: Any) -> Augmentation:
    rate = {"sample_rate": 16000} if chain == "wave" else {}
    return instantiate(FULL[chain][name], **rate, **override)


def make_batch(size: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    audio = (torch.rand(size, 1, 8000, generator=generator) - 0.5) * torch.linspace(1, 0.3, 8000)
    features = torch.rand(size, 2, 32, 50, generator=generator) * 60 - 60
    label = (torch.rand(size, 5, generator=generator) > 0.6).float()
    label[0, 0] = torch.nan
    lengths = torch.tensor([8000, 8000, 5000, 8000, 7000, 8000])[:size]
    row, start = torch.arange(size), torch.zeros(size)
    batch = {
        "audio": audio,
        "features": features,
        "label": label,
        "lengths": lengths,
        "row": row,
        "start": start,
    }
    return {key: value.contiguous() for key, value in batch.items()}


def copy(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() for key, value in batch.items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    equal = (torch.equal(one[k].nan_to_num(-7.0), other[k].nan_to_num(-7.0)) for k in one)
    return one.keys() == other.keys() and all(equal)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_yaml_builds_and_runs(path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(path))
    assert set(config) == {"wave", "features"}
    for member in (*config["wave"].values(), *config["features"].values()):
        signature = set(inspect.signature(get_class(member["_target_"])).parameters)
        missing = signature - set(member) - {"sample_rate"}
        assert set(member) - {"_target_"} <= signature
        assert not missing or (missing == {"key"} and member["_target_"].endswith("Mixup"))
    augment = Augment(
        {k: instantiate(v, sample_rate=16000) for k, v in config["wave"].items()},
        {k: instantiate(v) for k, v in config["features"].items()},
    )
    batch = make_batch()
    out = augment.features(augment.wave(batch))
    assert out["audio"].shape == batch["audio"].shape
    assert out["features"].shape == batch["features"].shape
    assert out["audio"].isfinite().all()
    assert out["features"].isfinite().all()
    assert not augment.state_dict()
    assert same(augment.eval().features(augment.wave(batch)), batch)


def test_full_has_every_augmentation() -> None:
    targets = {FULL[chain][name]["_target_"].rsplit(".", 1)[1] for chain, name in MEMBERS}
    assert targets == set(tonnetz.augment.__all__) - {"Augment", "Augmentation"}


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
def test_identity_in_eval_mode_and_at_p_zero(chain: str, name: str) -> None:
    batch = make_batch()
    assert same(build(chain, name, p=1.0).eval()(copy(batch)), batch)
    assert same(build(chain, name, p=0.0)(copy(batch)), batch)


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
def test_same_seed_same_bits_and_input_untouched(chain: str, name: str) -> None:
    member, batch = build(chain, name, p=0.7), make_batch()
    before, results = copy(batch), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(member(batch))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])
    assert same(batch, before)


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
def test_shape_type_and_other_keys(chain: str, name: str) -> None:
    member, batch = build(chain, name, p=1.0), make_batch()
    for dtype in (torch.float32, torch.float16) if chain == "features" else (torch.float32,):
        batch[member.key] = batch[member.key].to(dtype)
        torch.manual_seed(0)
        out = member(batch)
        assert all(out[k].shape == batch[k].shape and out[k].dtype == batch[k].dtype for k in batch)
        assert all(out[k] is batch[k] for k in set(batch) - {member.key, "label", "lengths"})
        assert out[member.key].isfinite().all()
        assert (out["lengths"] >= 1).all()
        assert (out["lengths"] <= 8000).all()


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
def test_bare_batch_of_one(chain: str, name: str) -> None:
    member = build(chain, name, p=1.0)
    out = member({member.key: make_batch(1)[member.key]})
    assert set(out) == {member.key}
    assert out[member.key].isfinite().all()


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
@pytest.mark.parametrize("size", [1, 200, 8000])
def test_silent_and_short_is_finite(chain: str, name: str, size: int) -> None:
    member = build(chain, name, p=1.0)
    shape = (4, 1, size) if chain == "wave" else (4, 1, 16, size % 97)
    out = member({member.key: torch.zeros(shape), "lengths": torch.full((4,), size)})
    assert out[member.key].shape == shape
    assert out[member.key].isfinite().all()
    if chain == "wave":
        assert (out[member.key] == 0).all(), "silence stays silence"


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
def test_every_example_has_its_own_draw(chain: str, name: str) -> None:
    member = build(chain, name, p=1.0)
    torch.manual_seed(3)
    x = make_batch()[member.key]
    params = member.draw(x)
    assert all(len(value) == len(x) for value in params.values())
    if params:
        assert any(len(value.float().flatten(1).unique(dim=0)) > 1 for value in map(torch.atleast_2d, _rows(params)))


def _rows(params: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [value.reshape(len(value), -1) for value in params.values()]


@pytest.mark.parametrize(("chain", "name"), MEMBERS)
@pytest.mark.parametrize("p", [0.3, 0.8])
def test_apply_rate(chain: str, name: str, p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    member, total = build(chain, name, p=p), 3000
    chosen: list[int] = []

    def spy(batch: dict[str, Any], rows: torch.Tensor, params: dict[str, torch.Tensor]) -> dict[str, Any]:
        assert all(len(value) == len(rows) for value in params.values())
        chosen.append(len(rows))
        return {}

    monkeypatch.setattr(member, "_change", spy)
    shape = (100, 1, 16) if chain == "wave" else (100, 1, 8, 8)
    torch.manual_seed(0)
    for _ in range(total // 100):
        member({member.key: torch.rand(shape)})
    assert abs(sum(chosen) - p * total) < 3 * (total * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("name", ["gain", "noise", "polarity", "pitch_shift", "clipping", "mixup"])
def test_skipped_examples_keep_their_bits(name: str) -> None:
    batch = make_batch()
    torch.manual_seed(1)
    out = build("wave", name, p=0.5)(batch)
    kept = (out["audio"] == batch["audio"]).all((1, 2))
    assert 0 < kept.sum() < len(kept)


def test_float32_inside_autocast() -> None:
    batch = make_batch()
    for chain, name in MEMBERS:
        member = build(chain, name, p=1.0)
        torch.manual_seed(0)
        plain = member(batch)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert same(member(batch), plain)


def test_chain_keeps_its_order() -> None:
    clip_then_gain = Augment({"clip": tonnetz.augment.Clipping(1.0, 0.5, 0.5), "gain": Gain(1.0, 6.0, 6.0)})
    assert list(clip_then_gain.wave_chain) == ["clip", "gain"]
    x = torch.tensor([[[1.0, -0.2]]])
    out = clip_then_gain.wave({"audio": x})["audio"]
    torch.testing.assert_close(out, torch.tensor([[[0.5, -0.2]]]) * 10 ** (6 / 20))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Gain(p=1.5),
        lambda: Gain(low=3.0, high=-3.0),
        lambda: TimeMask(fill="zero"),
        lambda: Mixup(key="label"),
        lambda: Mixup(alpha=0.0),
        lambda: tonnetz.augment.TimeStretch(low=0.0),
        lambda: tonnetz.augment.PitchShift(n_fft=1023),
        lambda: tonnetz.augment.SumN(n=0),
        lambda: Augment(wave={"mask": TimeMask()}),
        lambda: Augment(features={"gain": Gain()}),
    ],
)
def test_wrong_parameters_are_one_line(wrong) -> None:
    with pytest.raises(UserError) as error:
        wrong()
    assert str(error.value).startswith("augment")
    assert "\n" not in str(error.value)
