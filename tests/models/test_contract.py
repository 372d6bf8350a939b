"""Every backbone YAML keeps the contract of tonnetz.models.base.Backbone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from tonnetz.errors import UserError
from tonnetz.models import Backbone, InputNorm, length_mask

FOLDER = Path(__file__).parents[2] / "config" / "model"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TRAINED = [name for name in NAMES if name not in ("ftm2d", "frames")]  # which have no parameters
SINGLE = {"frames"}  # no layers: the output is the only tap
SMALL = {"clews": {"width": 32}, "bytecover2": {"width": 8}, "bytecover3": {"width": 8}, "cqtnet": {"width": 8}}
SMALL |= {
    "dvinet": {"width": 10},
    "short_chunk": {"width": 8},
    "conv4": {"width": 16},
}  # the same layers as of full size, only narrower
# fewer levels, so that there are several frames of output and not one; tests/models/test_waveform.py has all levels
LEVELS = {"width": 4, "down": 3, "up": 2, "tail": [8, 16, 16]}
SMALL |= {"tune": LEVELS, "tune_plus": LEVELS, "tune_hybrid": {"width": 4, "widths": [8, 16], "down": 3, "up": 2}}
SMALL |= {"samplecnn": {"widths": [8, 8, 16]}, "samplecnn_xl": {"widths": [8, 16]}}
SMALL |= {"sincnet": {"widths": [8, 16], "filters": 6, "kernel": 31}}
# a YAML file that holds another member of a family than the default of its class
VARIANTS = {
    "tune_plus": {"skips": True},
    "samplecnn_xl": {"widths": [128, 128, 256, 256, 512, 512, 1024, 1024, 2048]},
}
BINS, FRAMES = 64, 75


def make(name: str, channels: int = 1, bins: int = BINS) -> Backbone:
    """Build the backbone of a YAML file with random, non-trivial statistics in its normalisation layers."""
    torch.manual_seed(0)
    cfg = OmegaConf.load(FOLDER / f"{name}.yaml")
    network = instantiate(cfg, _partial_=True, _convert_="all")(channels=channels, bins=bins, **SMALL.get(name, {}))
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif "norm" in key and key.endswith("bias"):
            value.normal_(0, 0.1)  # zeros would hide that a convolution turns cleared frames into a constant
        elif value.is_floating_point() and not value.any():
            value.normal_(0, 0.1)  # timm starts some scales at zero, which stops the gradients behind them
    return network


class Networks(dict[str, Backbone]):
    """One network per YAML in eval mode, made when it is first asked for."""

    def __missing__(self, name: str) -> Backbone:
        self[name] = make(name).eval()
        return self[name]


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Return networks that are shared by the tests that do not train them."""
    return Networks()


def test_the_folder_is_not_empty() -> None:
    assert {"cnn", "crnn", "conformer", "timm", "tiny"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_yaml_holds_every_keyword_with_its_default(name: str) -> None:
    cfg: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    parameters = inspect.signature(get_class(cfg.pop("_target_"))).parameters
    defaults = {
        key: value.default for key, value in parameters.items() if key not in ("channels", "bins", "bins_per_octave")
    }
    expected = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert cfg == expected | VARIANTS.get(name, {})


@pytest.mark.parametrize("frames", [*range(1, 11), 31, 32, 33, FRAMES])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_frames(networks: dict[str, Backbone], name: str, frames: int) -> None:
    network = networks[name]
    with torch.no_grad():
        h = network(torch.randn(2, 1, BINS, frames))
        masked = network(torch.randn(2, 1, BINS, frames), torch.ones(2, frames, dtype=torch.bool))
    expected = int(network.frames(torch.tensor([frames])))
    assert h.shape == masked.shape == (2, expected, network.dim)
    assert h.isfinite().all()
    assert masked.isfinite().all()
    assert abs(expected - frames / network.stride) <= 2


@pytest.mark.parametrize("name", NAMES)
def test_three_channels_and_few_bins(name: str) -> None:
    bins = type(make(name)).min_bins
    network = make(name, channels=3, bins=bins).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 3, bins, 40)).shape[::2] == (2, network.dim)
    if bins > 1:
        with pytest.raises(UserError, match="bins"):
            make(name, bins=bins - 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_gets_a_gradient(name: str, masked: bool) -> None:
    network = make(name).train()
    mask = length_mask(torch.tensor([FRAMES, 50, 20]), FRAMES) if masked else None
    h = network(torch.randn(3, 1, BINS, FRAMES), mask)
    (h * torch.randn_like(h)).sum().backward()
    trained = {key: value.grad for key, value in network.named_parameters() if value.requires_grad}
    assert trained
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())
    # biases before a BatchNorm or a softmax have a zero gradient by construction; weights never do
    weights = {key: grad for key, grad in trained.items() if grad is not None and grad.ndim > 1}
    assert [key for key, grad in weights.items() if grad.abs().max() == 0] == []


@pytest.mark.parametrize("name", NAMES)
def test_padding(networks: dict[str, Backbone], name: str) -> None:
    network, lengths = networks[name], torch.tensor([FRAMES, 50, 33, 4, 1])
    mask = length_mask(lengths, FRAMES)
    x = torch.randn(5, 1, BINS, FRAMES)
    noise = torch.where(mask[:, None, None], x, torch.full_like(x, torch.nan))
    valid = length_mask(network.frames(lengths), int(network.frames(lengths).max()))
    with torch.no_grad():
        h, other = network(x, mask), network(noise, mask)
        torch.testing.assert_close(h[valid], other[valid])
        if not network.exact_padding:
            return
        for index, length in enumerate(lengths.tolist()):
            alone = network(x[index : index + 1, ..., :length])[0]
            torch.testing.assert_close(h[index, : alone.shape[0]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_enter_the_training_step(name: str) -> None:
    network, lengths = make(name).train(), torch.tensor([FRAMES, 20])
    mask = length_mask(lengths, FRAMES)
    x = torch.randn(2, 1, BINS, FRAMES)
    torch.manual_seed(1)  # the same dropout
    network(x.masked_fill(~mask[:, None, None], 1e6), mask)
    other = make(name).train()
    torch.manual_seed(1)
    other(x, mask)
    for (key, value), (_, expected) in zip(network.state_dict().items(), other.state_dict().items(), strict=True):
        torch.testing.assert_close(value, expected, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_examples_do_not_influence_each_other(networks: dict[str, Backbone], name: str) -> None:
    network, x = networks[name], torch.randn(4, 1, BINS, FRAMES)
    with torch.no_grad():
        h = network(x)
        torch.testing.assert_close(h[2:3], network(x[2:3]), rtol=1e-4, atol=1e-5)
        assert torch.equal(h, network(x))
    assert (h[0] - h[1]).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_taps(networks: dict[str, Backbone], name: str, masked: bool) -> None:
    network, x = networks[name], torch.randn(3, 1, BINS, FRAMES)
    mask = length_mask(torch.tensor([FRAMES, 50, 20]), FRAMES) if masked else None
    with torch.no_grad():
        h, layers = network(x, mask), network.layers(x, mask)
    assert tuple(layers) == network.taps
    assert len(layers) == 1 if name in SINGLE else len(layers) > 1
    assert {value.shape[:2] for value in layers.values()} == {h.shape[:2]}
    torch.testing.assert_close(list(layers.values())[-1], h)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "timm"])
def test_taps_do_not_see_padding(networks: dict[str, Backbone], name: str) -> None:
    network, x = networks[name], torch.randn(1, 1, BINS, FRAMES)
    with torch.no_grad():
        alone = network.layers(x[..., :37])
        padded = network.layers(x, length_mask(torch.tensor([37]), FRAMES))
    for tap, value in alone.items():
        torch.testing.assert_close(padded[tap][:, : value.shape[1]], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_autocast(name: str) -> None:
    network, x = make(name).train(), torch.randn(2, 1, BINS, FRAMES)
    with torch.autocast("cpu", torch.bfloat16):
        h = network(x, length_mask(torch.tensor([FRAMES, 40]), FRAMES))
    h.float().square().mean().backward()
    assert h.isfinite().all()
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = network(x).float()
    with torch.no_grad():
        high = network(x)
    assert torch.nn.functional.cosine_similarity(low.flatten(), high.flatten(), 0) > 0.98


def test_tiny_takes_raw_audio() -> None:
    network = make("tiny", bins=1).eval()
    assert network(torch.randn(2, 1, 1, 16001)).shape == (2, 4001, network.dim)


def test_length_mask_is_a_prefix() -> None:
    expected = [[False, False, False], [True, False, False], [True, True, True], [True, True, True]]
    assert length_mask(torch.tensor([0, 1, 3, 9]), 3).tolist() == expected


@pytest.mark.parametrize("training", [True, False])
def test_input_norm_uses_valid_frames_only(training: bool) -> None:
    """A naive loop over channels and bins gives the same values and running statistics."""
    norm, mask = InputNorm(2, 3).train(training), length_mask(torch.tensor([5, 2]), 5)
    norm.norm.running_mean.normal_()
    start = norm.norm.running_mean.clone()
    x = torch.randn(2, 2, 3, 5)
    h = norm(x, mask)
    assert (h.masked_select(~mask[:, None, None]) == 0).all()
    for channel in range(2):
        for bin_ in range(3):
            index = 3 * channel + bin_
            values = torch.cat([x[0, channel, bin_], x[1, channel, bin_, :2]])
            result = torch.cat([h[0, channel, bin_], h[1, channel, bin_, :2]])
            mean, var = (values.mean(), values.var(unbiased=False)) if training else (start[index], torch.tensor(1.0))
            torch.testing.assert_close(result, (values - mean) / (var + 1e-5).sqrt())
            moved = 0.9 * start[index] + 0.1 * values.mean() if training else start[index]
            torch.testing.assert_close(norm.norm.running_mean[index], moved)
