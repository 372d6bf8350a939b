"""Networks on the waveform: published sizes of every preset, values against plain 1-D layers, any length, padding."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import ROOT
from tests.test_clmr import samplecnn, samplecnn_layers, tune, tune_layers
from tonnetz import clmr
from tonnetz.errors import UserError
from tonnetz.models import SampleCNN, Tune, TuneHybrid, length_mask
from tonnetz.models.waveform import Waveform

WINDOW = 59049
TAIL = (22, 44, 88, 176, 352, 352, 352, 352, 512)
# parameters with a linear layer to 50 classes, without it, millions of products a window where they are known
PUBLISHED = {
    "samplecnn": (2394162, 2368512, 1728.6),
    "tune": (2122620, 2096970, 648),
    "tune_plus": (2246040, 2220390, 833),
    "tune_hybrid": (2548155, 2522505, 2081),
    "tune/vanilla": (2366046, 2340396, 5296),
    "tune/vanilla_xs": (364908, 339258, 622),
    "tune/vanilla_free": (1675098, 1649448, None),
    "tune/cont1": (2284350, 2258700, 2166),
    "tune/cont1_free": (5292250, 5266600, None),
    "tune/cont2": (2144256, 2118606, 784),
    "tune/cont2_free": (19751898, 19726248, None),
    "tune/cont3": (1656394, 1630744, 228),
    "tune/cont3_free": (77572570, 77546920, 9652),
    "tune/expa1": (2344898, 2319248, 4614),
    "tune/expa1_free": (1660706, 1635056, None),
    "tune/expa2": (2381496, 2355846, 3915),
    "tune/expa2_free": (1603698, 1578048, None),
    "tune/expa3": (2344426, 2318776, 3069),
    "tune/expa3_free": (1376786, 1351136, None),
    "tune/tail1": (2321562, 2295912, 3773),
    "tune/tail2": (2258508, 2232858, 1872),
    "tune/tail3": (2266836, 2241186, 1196),
    "tune/tail4": (2315784, 2290134, 903),
    "tune/tail2_free": (3109530, 3083880, None),
    "tune/tail3_free": (3897498, 3871848, None),
    "tune/tail4_free": (4685466, 4659816, None),
    "tune/tail5_free": (5473434, 5447784, None),
    "tune/tail5_xl": (4387116, 4361466, 1869),
    "tune/plus_free": (6273114, 6247464, None),
    "tune/plus_xl": (7432782, 7407132, 7313),
    "tune/dim32": (248256, 246606, None),
    "tune/dim64": (335392, 332142, None),
    "tune/dim128": (588936, 582486, None),
    "tune/dim256": (1436296, 1423446, None),
    "tune/dim1024": (9820024, 9768774, 944),
}


def bare(name: str) -> Waveform:
    """The network of a YAML file without memory for its weights."""
    with torch.device("meta"):
        make = instantiate(OmegaConf.load(ROOT / "config/model" / f"{name}.yaml"), _partial_=True, _convert_="all")
        return make(channels=1, bins=1)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_preset_is_here() -> None:
    folder = ROOT / "config" / "model"
    assert {name for name in PUBLISHED if "/" in name} == {f"tune/{p.stem}" for p in (folder / "tune").glob("*.yaml")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    network, (total, encoder, products) = bare(name), PUBLISHED[name]
    assert size(network) == encoder
    assert size(network) + size(nn.Linear(network.dim, 50)) == total
    if products:
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.empty(1, 1, 1, WINDOW, device="meta"))
        assert counter.get_total_flops() / 2e6 == pytest.approx(products, abs=1.5)


def test_xl_has_twice_and_four_times_the_width_at_its_end() -> None:
    network = bare("samplecnn_xl")
    widths = [block.conv.out_channels for block in network.blocks]
    assert widths == [128, 128, 256, 256, 512, 512, 1024, 1024, 2048]
    assert (network.dim, network.output.conv.out_channels, size(network)) == (2048, 2048, 25190400)


def test_presets_are_chosen_on_the_command_line() -> None:
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        config = compose("main", overrides=["model=tune/plus_xl", "model.width=32"])
    assert config.model == {
        "_target_": "tonnetz.models.Tune",
        "width": 32,
        "down": 5,
        "up": 4,
        "tail": [68, 136, 272, *[512] * 6],
        "skips": True,
    }


def load(network: Waveform, state: dict[str, torch.Tensor]) -> Waveform:
    found = clmr.to_tonnetz(state)
    network.load_state_dict(found.network)
    return network.eval()


@pytest.mark.parametrize("skips", [False, True])
def test_all_layers_of_tune_are_those_of_plain_layers(skips: bool) -> None:
    torch.manual_seed(0)
    state, x = tune(11, tail=TAIL, skips=skips), torch.randn(1, 1, WINDOW)
    network = load(Tune(1, 1, skips=skips), state)
    with torch.no_grad():
        taps = network.layers(x[:, None])
        expected = list(tune_layers(state, x, tail=9, skips=skips))
        assert len(taps) == len(expected) == len(network.taps) == 18
        for h, activation in zip(taps.values(), expected, strict=True):
            assert h.shape == (1, 3, activation.shape[1])
            torch.testing.assert_close(h.mean(1), activation.mean(2), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(network(x[:, None]), expected[-1].transpose(1, 2), rtol=1e-3, atol=1e-5)


def test_taps_are_the_eval_layers() -> None:
    network = Tune(1, 1).eval()
    with torch.no_grad():
        taps = network.layers(torch.randn(2, 1, 1, WINDOW))
    widths = [taps[network.taps[-1 - k]].shape[2] for k in range(18)]
    assert widths == [512, 352, 352, 352, 352, 176, 88, 44, 22, 11, 22, 44, 88, 176, 88, 44, 22, 11]
    means = [h.mean(1) for h in taps.values()]
    same = [(i, j) for i in range(18) for j in range(i) if means[i].shape == means[j].shape]
    assert all(not torch.allclose(means[i], means[j]) for i, j in same)


def test_all_layers_of_samplecnn_are_those_of_plain_layers() -> None:
    torch.manual_seed(0)
    widths = (128, 128, 256, 256, 256, 256, 256, 256, 512)
    state, x = samplecnn(widths), torch.randn(1, 1, WINDOW)
    network = load(SampleCNN(1, 1), state)
    with torch.no_grad():
        expected = list(samplecnn_layers(state, x))
        assert [h.shape[2] for h in expected] == [19683, 6561, 2187, 729, 243, 81, 27, 9, 3, 1, 1]
        for (_, h, _), activation in zip(network.stages(x[:, None], None), expected, strict=True):
            h = h.transpose(1, 2)[:, :, None] if h.ndim == 3 else h
            torch.testing.assert_close(h[:, :, 0], activation, rtol=1e-3, atol=1e-5)


def test_gradients_are_those_of_plain_layers() -> None:
    """The maximum before ReLU, not after it, changes no gradient."""
    torch.manual_seed(0)
    state, x = samplecnn((4, 6, 8)), torch.randn(2, 1, 162, requires_grad=True)
    direction = torch.randn(2, 8, 2)
    network = load(SampleCNN(1, 1, (4, 6, 8)), state)
    (own,) = torch.autograd.grad((network(x[:, None]).transpose(1, 2) * direction).sum(), x)
    (expected,) = torch.autograd.grad(([*samplecnn_layers(state, x)][-1] * direction).sum(), x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 3, 29524, 29525, 59048, WINDOW, 59050, 59409, 88573, 88574, 2 * WINDOW])
def test_any_length(samples: int) -> None:
    sizes = {"widths": (2, 2, 2, 2, 2, 2, 2, 2, 4)}
    hybrid = TuneHybrid(1, 1, 2, **sizes)
    networks = {SampleCNN(1, 1, **sizes): WINDOW, Tune(1, 1, 2, tail=(2,) * 9): 19683, hybrid: WINDOW}
    for network, window in networks.items():
        with torch.no_grad():
            h = network.eval()(torch.randn(1, 1, 1, samples))
        frames = max(1, int(samples / window + 0.5))  # a rest counts from half a frame on
        assert h.shape[1] == frames == network.frames(torch.tensor([samples]))
        assert h.isfinite().all()


@pytest.mark.parametrize("make", [SampleCNN, Tune, lambda c, b: Tune(c, b, skips=True)])
def test_padding_at_all_levels(make) -> None:
    torch.manual_seed(0)
    network, lengths = make(1, 1).eval(), torch.tensor([WINDOW, 40000, 777])
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
    x, mask = torch.randn(3, 1, 1, WINDOW), length_mask(lengths, WINDOW)
    x = x.masked_fill(~mask[:, None, None], torch.nan)
    with torch.no_grad():
        together = network.layers(x, mask)
        for index, length in enumerate(lengths.tolist()):
            for tap, alone in network.layers(x[index : index + 1, ..., :length]).items():
                torch.testing.assert_close(together[tap][index, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)


def test_deep_taps_serve_several_frames() -> None:
    network = Tune(1, 1, 2, 6, 5, (4, 8)).eval()
    x = torch.randn(1, 1, 1, 1000)
    with torch.no_grad():
        h = network.layers(x)["down6"]
        stages = {name: stage for name, stage, _ in network.stages(x, None)}
    assert network.stride == 9
    assert h.shape[1] == 111
    torch.testing.assert_close(h[0, 27:54], stages["down6"][0, :, :, 1].T.expand(27, -1))


def test_a_frozen_samplecnn_stays_as_it_is() -> None:
    network = TuneHybrid(1, 1, 2, widths=(2, 4), frozen=True).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.randn(4, 1, 1, 500)).sum().backward()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("unet.") for key in moved)
    assert not any(key.startswith("samplecnn.") for key in moved)
    assert all(p.grad is None for p in network.samplecnn.parameters())


def test_a_hybrid_starts_from_a_checkpoint(tmp_path) -> None:
    source, path = SampleCNN(1, 1, (2, 4)), tmp_path / "best.ckpt"
    state = {f"encoder.backbone.{key}": value for key, value in source.state_dict().items()}
    torch.save({"tonnetz": {"format": 1}, "state_dict": state}, path)
    network = TuneHybrid(1, 1, 2, widths=(2, 4), pretrained=str(path))
    own = network.samplecnn.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in source.state_dict().items())
    with pytest.raises(UserError, match="pretrained"):
        TuneHybrid(1, 1, 2, widths=(2, 6), pretrained=str(path))


def test_mistakes() -> None:
    for make, text in (
        (lambda: Tune(1, 1, up=5), "up below down"),
        (lambda: Tune(1, 1, width=0), "width"),
        (lambda: Tune(1, 1, tail=()), "model.tail"),
        (lambda: SampleCNN(1, 1, ()), "model.widths"),
        (lambda: TuneHybrid(1, 1, up=3), "model.up=3"),
    ):
        with pytest.raises(UserError, match=text):
            make()
