"""Checkpoints in the layout of CLMR and TUNe against networks of plain 1-D layers that read them as they are."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tonnetz import clmr
from tonnetz.errors import UserError
from tonnetz.models import CNN, SampleCNN, Tune, TuneHybrid

State = dict[str, Tensor]
NETWORKS = {"samplecnn": SampleCNN, "tune": Tune, "tune_hybrid": TuneHybrid}


def block(name: str, inputs: int, outputs: int) -> State:
    """A random convolution and its normalisation, numbered 0 and 1."""
    return {
        f"{name}.0.weight": torch.randn(outputs, inputs, 3) / (1.5 * inputs) ** 0.5,
        f"{name}.0.bias": 0.1 * torch.randn(outputs),
        f"{name}.1.weight": 0.5 + torch.rand(outputs),
        f"{name}.1.bias": 0.1 * torch.randn(outputs),
        f"{name}.1.running_mean": 0.1 * torch.randn(outputs),
        f"{name}.1.running_var": 0.5 + torch.rand(outputs),
        f"{name}.1.num_batches_tracked": torch.tensor(7),
    }


def samplecnn(widths: tuple[int, ...], place: str = "sequential", fc: int = 0) -> State:
    """A random SampleCNN as CLMR keeps it."""
    all_widths = (1, widths[0], *widths, widths[-1])
    state: State = {}
    for index in range(len(all_widths) - 1):
        state |= block(f"{place}.{index}", all_widths[index], all_widths[index + 1])
    return state | ({"fc.weight": torch.randn(fc, widths[-1]), "fc.bias": torch.randn(fc)} if fc else {})


def tune_names(down: int, up: int) -> tuple[list[str], list[str], list[str]]:
    """How the classes of TUNe name what goes down, up and joins: five levels, whatever is deeper apart."""
    deeper = down - 5
    downs = [f"conv{i + 1}" for i in range(5)] + [f"deeperDown{i + 1}" for i in range(deeper)]
    merges = [f"deeperUp{deeper - i}" for i in range(deeper)] + [f"conv{i + 6}" for i in range(up - deeper)]
    ups = [f"transposedDeeper{deeper - i}" for i in range(deeper)]
    ups += [f"transposedConv{i + 6}" for i in range(up - deeper)]
    return downs, ups, merges


def tune(
    width: int = 3, down: int = 5, up: int = 4, tail: tuple[int, ...] = (6, 12, 24), skips: bool = False, last: int = 0
) -> State:
    """A random member of the TUNe family as its authors keep it."""
    downs, ups, merges = tune_names(down, up)
    widths = [width * 2**level for level in range(down)]
    state: State = {}
    for name, inputs, outputs in zip(downs, [1, *widths], widths, strict=False):
        state |= block(f"{name}.layers", inputs, outputs)
    levels = list(range(down - 2, down - 2 - up, -1))
    for name, level in zip(ups, levels, strict=True):
        state[f"{name}.weight"] = torch.randn(widths[level + 1], widths[level], 3) / widths[level + 1] ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(widths[level])
    for name, level in zip(merges, levels, strict=True):
        state |= block(f"{name}.layers", 2 * widths[level], last if last and level == 0 else widths[level])
    before, top = widths[down - 1 - up], down - 1 - up
    for level, outputs in enumerate(tail, top + 1):
        joined = widths[level] if skips and level < down else 0
        state |= block(f"convDown{level}.layers", before + joined, outputs)
        before = outputs
    return state


def apply_block(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution, normalisation by the running statistics, ReLU, in one dimension."""
    weight, bias, gain, shift, mean, var = (
        state[f"{name}.{leaf}"]
        for leaf in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    )
    h = functional.conv1d(x, weight, bias, stride, padding=0 if stride == 3 else 1)
    return functional.batch_norm(h, mean, var, gain, shift).relu()


def samplecnn_layers(state: State, x: Tensor, place: str = "sequential") -> Iterator[Tensor]:
    """All activations of SampleCNN for x (B, 1, N), N a multiple of its window, pooled as in the original."""
    last = max(int(name.removeprefix(place + ".").split(".")[0]) for name in state if name.startswith(place))
    x = apply_block(state, f"{place}.0", x, stride=3)
    yield x
    for index in range(1, last):
        x = functional.max_pool1d(apply_block(state, f"{place}.{index}", x), 3)
        yield x
    yield apply_block(state, f"{place}.{last}", x)


def tune_layers(
    state: State, x: Tensor, down: int = 5, up: int = 4, tail: int = 3, skips: bool = False
) -> Iterator[Tensor]:
    """All activations of a TUNe for x (B, 1, N), N a multiple of its window."""
    downs, ups, merges = tune_names(down, up)
    levels: list[Tensor] = []
    for name in downs:
        x = apply_block(state, f"{name}.layers", functional.max_pool1d(x, 3) if levels else x)
        levels.append(x)
        yield x
    level = down - 1
    for name, merge in zip(ups, merges, strict=True):
        level -= 1
        x = functional.conv_transpose1d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=3)
        x = apply_block(state, f"{merge}.layers", torch.cat([x, levels[level]], 1))
        levels[level] = x
        yield x
    for _ in range(tail):
        level += 1
        x = functional.max_pool1d(x, 3)
        if skips and level < down:
            x = torch.cat([x, levels[level]], 1)
        x = apply_block(state, f"convDown{level}.layers", x)
        yield x


CASES = {
    "samplecnn": (lambda: samplecnn((4, 6, 6, 8)), lambda s, x: [*samplecnn_layers(s, x)][-1], 243),
    "vanilla": (lambda: tune(), lambda s, x: [*tune_layers(s, x)][-1], 81),
    "plus": (
        lambda: tune(tail=(6, 12, 24, 48, 10, 10), skips=True),
        lambda s, x: [*tune_layers(s, x, tail=6, skips=True)][-1],
        729,
    ),
    "expa2": (lambda: tune(up=2), lambda s, x: [*tune_layers(s, x, up=2)][-1], 243),
    "cont2": (lambda: tune(down=7, up=6), lambda s, x: [*tune_layers(s, x, down=7, up=6)][-1], 729),
    "hybrid": (
        lambda: tune(tail=(), last=1) | samplecnn((4, 6, 6, 8), "model_down.sequential"),
        lambda s, x: [*samplecnn_layers(s, [*tune_layers(s, x, tail=0)][-1], "model_down.sequential")][-1],
        243,
    ),
}


def rebuilt(found: clmr.Found) -> torch.nn.Module:
    """The network that was found, in evaluation."""
    network = NETWORKS[found.model](1, 1, **found.sizes)
    network.load_state_dict(found.network)
    return network.eval()


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_the_source(name: str) -> None:
    torch.manual_seed(0)
    make, reference, window = CASES[name]
    state, x = make(), torch.randn(2, 1, 2 * window)
    found = clmr.to_tonnetz(dict(reversed(state.items())))  # whatever the order of the file
    with torch.no_grad():
        h = rebuilt(found)(x[:, None])
        torch.testing.assert_close(h, reference(state, x).transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert h.std() > 1e-3
    assert not found.projector
    assert not found.left


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_written_with_the_names_it_came_with(name: str) -> None:
    torch.manual_seed(0)
    state = CASES[name][0]()
    written = clmr.to_clmr(rebuilt(clmr.to_tonnetz(state)))
    assert written.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in written.items())


def test_what_that_layout_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match=r"only model=samplecnn, tune, tune_hybrid have that layout; this is CNN"):
        clmr.to_clmr(CNN(1, 40))
    for network in (Tune(1, 40, width=2, tail=(4,)), SampleCNN(2, 1, (4,)), TuneHybrid(1, 2, width=2, widths=(4,))):
        with pytest.raises(UserError, match=r"one channel, of frontend=raw; this network reads \d+"):
            clmr.to_clmr(network)


def wrapped(state: State, form: str) -> State:
    """The encoder as the original programs write it, with a projector and a last layer."""
    projector = {"projector.0.weight": torch.randn(8, 8), "projector.2.weight": torch.randn(5, 8)}
    whole = state | {"fc.weight": torch.randn(50, 8), "fc.bias": torch.randn(50)}
    if form == "bare":
        return whole
    if form == "raw":
        return {f"encoder.{name}": value for name, value in whole.items()} | projector
    if form == "parallel":
        return {f"module.encoder.{name}": value for name, value in whole.items()} | {
            f"module.{name}": value for name, value in projector.items()
        }
    twice = {f"{p}encoder.{name}": value for p in ("", "model.") for name, value in whole.items()}
    return twice | {f"model.{name}": value for name, value in projector.items()}


@pytest.mark.parametrize("form", ["bare", "raw", "parallel", "lightning"])
def test_all_forms_hold_the_same(form: str) -> None:
    state = samplecnn((4, 8))
    expected, found = clmr.to_tonnetz(state), clmr.to_tonnetz(wrapped(state, form))
    assert (found.model, found.sizes) == (expected.model, expected.sizes) == ("samplecnn", {"widths": [4, 8]})
    assert found.network.keys() == expected.network.keys()
    assert all(torch.equal(value, expected.network[name]) for name, value in found.network.items())
    assert set(found.left) == {"fc.weight", "fc.bias"}
    assert [value.shape[0] for value in found.projector.values()] == ([] if form == "bare" else [8, 5])


def test_sizes_of_published_networks() -> None:
    plus = tune(width=11, tail=(22, 44, 88, 176, 352, 352, 352, 352, 512), skips=True)
    assert clmr.to_tonnetz(plus).sizes == {
        "width": 11,
        "down": 5,
        "up": 4,
        "skips": True,
        "tail": [22, 44, 88, 176, 352, 352, 352, 352, 512],
    }
    assert sum(value.numel() for name, value in plus.items() if "running" not in name and "num" not in name) == 2220390


def test_mistakes_name_the_tensor() -> None:
    state = tune()
    with pytest.raises(UserError, match=r"1 unknown tensors, first 'extra\.weight'"):
        clmr.to_tonnetz(state | {"extra.weight": torch.zeros(3)})
    with pytest.raises(UserError, match=r"lacks 'conv7\.layers\.1\.bias'"):
        clmr.to_tonnetz({name: value for name, value in state.items() if name != "conv7.layers.1.bias"})
    with pytest.raises(UserError, match=r"convDown2\.layers\.0\.weight is \(12, 5, 3\) but must be \(12, 6, 3\)"):
        clmr.to_tonnetz(state | {"convDown2.layers.0.weight": torch.zeros(12, 5, 3)})
    with pytest.raises(UserError, match="two networks, which differ in 'conv1"):
        clmr.to_tonnetz({f"model.{n}": v for n, v in state.items()} | {n: v + 1 for n, v in state.items()})
    with pytest.raises(UserError, match="has no layer conv1"):
        clmr.to_tonnetz({"layer.weight": torch.zeros(3)})
    with pytest.raises(UserError, match=r"projector .* on 24 values"):
        clmr.to_tonnetz(state | {"projector.0.weight": torch.zeros(9, 9), "projector.2.weight": torch.zeros(5, 9)})
    for cut in ("sequential.0.0.weight", "sequential.0.1.weight"):
        with pytest.raises(UserError, match=r"lacks|has no"):
            clmr.to_tonnetz({name: value for name, value in samplecnn((4, 8)).items() if name != cut})
    hybrid = tune(tail=(), last=1)
    with pytest.raises(UserError, match="lacks"):
        clmr.to_tonnetz(hybrid)


class Foreign:
    """An object such as an unsafe file holds; loading it leaves a trace."""

    def __reduce__(self):
        return print, ("code was run",)


def test_files_are_data(tmp_path, capsys) -> None:
    state, path = samplecnn((4, 8)), tmp_path / "clmr.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": argparse.Namespace(lr=3e-4), "epoch": 3}, path)
    assert clmr.load(path).keys() == state.keys()
    torch.save({"state_dict": state, "callbacks": Foreign()}, path)
    with pytest.raises(UserError, match=r"refused, nothing was run; job\.trust=true"):
        clmr.load(path)
    assert capsys.readouterr().out == ""
    assert clmr.load(path, trust=True).keys() == state.keys()
    for content in ({"state_dict": {}}, [1, 2], {"a": 1}):
        torch.save(content, path)
        with pytest.raises(UserError, match="no state dict of tensors"):
            clmr.load(path)
    path.write_bytes(pickle.dumps("text")[:-3])
    with pytest.raises(UserError, match=r"refused|cannot be read"):
        clmr.load(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        clmr.load(tmp_path / "absent")
