"""CoverHunter checkpoints: sizes, names, values, and refusal of anything else."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonnetz import coverhunter
from tonnetz.errors import UserError


def source_shapes(
    bins: int = 96, dim: int = 128, depth: int = 6, heads: int = 4, ffn: int = 256, classes: int = 50, low: int = 0
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a generator as published, in registration order."""
    out, embed = dim * (((bins - 1) // 2 - 1) // 2), low or dim
    norm = {"weight": (1,), "bias": (1,), "running_mean": (1,), "running_var": (1,), "num_batches_tracked": ()}
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, weight: tuple[int, ...], bias: bool = True) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    def add_norm(name: str, size: int) -> None:
        shapes.update({f"{name}.{leaf}": (size,) if shape else () for leaf, shape in norm.items()})

    add_norm("_global_cmvn", bins)
    add("_encoder.embed.conv.0", (dim, 1, 3, 3))
    add("_encoder.embed.conv.2", (dim, dim, 3, 3))
    add("_encoder.embed.out.0", (dim, out))
    add("_encoder.after_norm", (dim,))
    for i in range(depth):
        block = f"_encoder.encoders.{i}"
        shapes[f"{block}.self_attn.pos_bias_u"] = shapes[f"{block}.self_attn.pos_bias_v"] = (heads, dim // heads)
        for name in ("q", "k", "v", "out"):
            add(f"{block}.self_attn.linear_{name}", (dim, dim))
        add(f"{block}.self_attn.linear_pos", (dim, dim), bias=False)
        for name in ("feed_forward", "feed_forward_macaron"):
            add(f"{block}.{name}.w_1", (ffn, dim))
            add(f"{block}.{name}.w_2", (dim, ffn))
        add(f"{block}.conv_module.pointwise_conv1", (2 * dim, dim, 1))
        add(f"{block}.conv_module.depthwise_conv", (dim, 1, 15))
        add_norm(f"{block}.conv_module.norm", dim)
        add(f"{block}.conv_module.pointwise_conv2", (dim, dim, 1))
        for name in ("norm_ff", "norm_mha", "norm_ff_macaron", "norm_conv", "norm_final"):
            add(f"{block}.{name}", (dim,))
    if low:
        add("_embed_lo", (low, dim))
    add_norm("_bottleneck", embed)
    add("_pool_layer._linear.linear_layer", (embed, 3 * embed))
    add("_pool_layer._conv.conv", (embed, embed, 1))
    add("_pool_layer._final_layer", (embed, 2 * embed), bias=False)
    add("_ce_layer", (classes, embed), bias=False)
    shapes["_center_loss.centers"] = (classes, embed)
    return shapes


def generator(**sizes: int) -> dict[str, Tensor]:
    """Random weights, at the scale of trained ones."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in source_shapes(**sizes).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1234)
        elif name.endswith("running_var") or (("norm" in name or "cmvn" in name) and name.endswith("weight")):
            state[name] = torch.rand(shape, generator=random) + 0.5
        else:
            fan = math.prod(shape[1:]) if len(shape) > 1 else 25
            state[name] = torch.randn(shape, generator=random) / math.sqrt(fan)
    return state


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published forward pass in eval mode, from the source's names: x (B, T, F) to embeddings (B, D)."""

    def linear(name: str, h: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return h @ weight.flatten(1).T + state.get(f"{name}.bias", torch.zeros(len(weight)))

    def layer_norm(name: str, h: Tensor) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        spread = torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]

    def batch_norm(name: str, h: Tensor) -> Tensor:
        scale = state[f"{name}.weight"] / torch.sqrt(state[f"{name}.running_var"] + 1e-5)
        return (h - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]

    def feed_forward(name: str, h: Tensor) -> Tensor:
        h = linear(f"{name}.w_1", h)
        return linear(f"{name}.w_2", h * torch.sigmoid(h))

    def attention(name: str, h: Tensor, place: Tensor) -> Tensor:
        u, v = state[f"{name}.pos_bias_u"], state[f"{name}.pos_bias_v"]
        heads, size = u.shape
        q, k, value = (linear(f"{name}.linear_{x}", h).unflatten(-1, (heads, size)) for x in "qkv")  # (B, T, H, d)
        p = linear(f"{name}.linear_pos", place).unflatten(-1, (heads, size))  # (T, H, d)
        content = torch.einsum("bihd,bjhd->bhij", q + u, k)
        position = torch.einsum("bihd,jhd->bhij", q + v, p)
        weight = ((content + position) / math.sqrt(size)).softmax(-1)
        return linear(f"{name}.linear_out", torch.einsum("bhij,bjhd->bihd", weight, value).flatten(2))

    def convolution(name: str, h: Tensor) -> Tensor:
        value, gate = linear(f"{name}.pointwise_conv1", h).chunk(2, -1)
        h = value * torch.sigmoid(gate)
        kernel, bias = state[f"{name}.depthwise_conv.weight"][:, 0], state[f"{name}.depthwise_conv.bias"]
        padded = F.pad(h, (0, 0, 7, 7))  # (B, T + 14, D)
        h = sum(padded[:, i : i + h.shape[1]] * kernel[:, i] for i in range(15)) + bias
        h = batch_norm(f"{name}.norm", h)
        return linear(f"{name}.pointwise_conv2", h * torch.sigmoid(h))

    h = batch_norm("_global_cmvn", x)[:, None]  # (B, 1, T, F)
    for layer in (0, 2):
        name = f"_encoder.embed.conv.{layer}"
        h = F.conv2d(h, state[f"{name}.weight"], state[f"{name}.bias"], stride=2).clamp(min=0)  # (B, C, T', F')
    frames = torch.cat([h[:, c] for c in range(h.shape[1])], -1)  # (B, T', C F'), channel by channel
    h = linear("_encoder.embed.out.0", frames)
    dim = h.shape[-1]
    angle = torch.arange(h.shape[1])[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)  # (T', D / 2)
    place = torch.empty(h.shape[1], dim)
    place[:, 0::2], place[:, 1::2] = angle.sin(), angle.cos()
    h = h * math.sqrt(dim)
    for i in range(len({name.split(".")[2] for name in state if name.startswith("_encoder.encoders.")})):
        block = f"_encoder.encoders.{i}"
        h = h + 0.5 * feed_forward(f"{block}.feed_forward_macaron", layer_norm(f"{block}.norm_ff_macaron", h))
        h = h + attention(f"{block}.self_attn", layer_norm(f"{block}.norm_mha", h), place)
        h = h + convolution(f"{block}.conv_module", layer_norm(f"{block}.norm_conv", h))
        h = h + 0.5 * feed_forward(f"{block}.feed_forward", layer_norm(f"{block}.norm_ff", h))
        h = layer_norm(f"{block}.norm_final", h)
    h = layer_norm("_encoder.after_norm", h)
    if "_embed_lo.weight" in state:
        h = linear("_embed_lo", h)
    mean, std = h.mean(1, keepdim=True), h.var(1, correction=0, keepdim=True).clamp(min=1e-12).sqrt()
    joined = torch.cat([h, mean.expand_as(h), std.expand_as(h)], -1)
    e = linear("_pool_layer._conv.conv", torch.tanh(linear("_pool_layer._linear.linear_layer", joined)))
    alpha = e.softmax(1)
    mean = (alpha * h).sum(1)
    std = (alpha * (h - mean[:, None]).square()).sum(1).clamp(min=1e-12).sqrt()
    return linear("_pool_layer._final_layer", torch.cat([mean, std], -1))


def load(state: dict[str, Tensor]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Our encoder and pooling with these weights, loaded strictly, in eval mode."""
    own = coverhunter.to_tonnetz(state)
    backbone, pooling = coverhunter.make_network(coverhunter.infer_sizes(state))
    for module, prefix in ((backbone, "backbone."), (pooling, "pooling.")):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in own.items() if k.startswith(prefix)})
    return backbone.eval(), pooling.eval()


def embed(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Our embeddings (B, D) of x (B, T, F)."""
    backbone, pooling = load(state)
    with torch.no_grad():
        return pooling(backbone(x.transpose(1, 2)[:, None]))


def test_counts_of_the_published_network() -> None:
    state = generator(classes=30000)
    assert len(state) == 265
    assert len(coverhunter.parameter_names(state)) == 241
    assert sum(state[name].numel() for name in coverhunter.parameter_names(state)) == 9_910_976
    backbone, pooling = load(state)
    own = sum(p.numel() for module in (backbone, pooling) for p in module.parameters())
    neck = sum(coverhunter.to_tonnetz(state)[f"neck.{leaf}"].numel() for leaf in ("weight", "bias"))
    assert own + neck == 2_230_976


def test_embeddings_equal_a_plain_forward_pass() -> None:
    state, x = generator(), torch.randn(2, 1125, 96, generator=torch.Generator().manual_seed(1))
    expected = reference(state, x)
    assert expected.shape == (2, 128)
    assert expected.std() > 0.1
    assert (embed(state, x) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "sizes",
    [
        {"bins": 84, "dim": 32, "depth": 2, "heads": 2, "ffn": 48},
        {"dim": 16, "depth": 1, "heads": 8, "low": 12},  # a layer before the pooling
        {"dim": 16, "depth": 11, "heads": 2},  # two digits sort otherwise
    ],
)
def test_other_sizes(sizes: dict[str, int]) -> None:
    state = generator(**sizes)
    found = coverhunter.infer_sizes(state)
    assert (found.bins, found.dim, found.depth, found.heads) == (
        sizes.get("bins", 96),
        sizes["dim"],
        sizes["depth"],
        sizes["heads"],
    )
    assert (found.output_dim, found.embed_dim) == (sizes.get("low"), sizes.get("low", sizes["dim"]))
    x = torch.randn(2, 61, found.bins)
    torch.testing.assert_close(embed(state, x), reference(state, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("low", [0, 12])
def test_round_trip_is_exact(tmp_path: Path, low: int) -> None:
    state = generator(dim=16, depth=2, low=low)
    torch.save({"generator": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "g_00000042")
    loaded = coverhunter.load_generator(tmp_path / "g_00000042")
    back = coverhunter.to_coverhunter(coverhunter.to_tonnetz(loaded))
    assert list(back) == list(state) == list(loaded)
    assert all(torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in state.items())


def test_heads_are_optional() -> None:
    state = generator(dim=16, depth=1)
    bare = {k: v for k, v in state.items() if not k.startswith(("_bottleneck", "_ce_layer", "_center_loss"))}
    assert coverhunter.infer_sizes(bare).classes is None
    assert coverhunter.infer_sizes(state).classes == 50
    assert list(coverhunter.to_coverhunter(coverhunter.to_tonnetz(bare))) == list(bare)
    own, plain = coverhunter.to_tonnetz(state), coverhunter.to_tonnetz(bare)
    assert coverhunter.fingerprint(own) == coverhunter.fingerprint(plain)
    changed = {**plain, "backbone.output.bias": plain["backbone.output.bias"] + 1e-6}
    assert coverhunter.fingerprint(changed) != coverhunter.fingerprint(plain)
    assert len(coverhunter.fingerprint(plain)) == 16


def test_optimizer_state_follows_its_parameters() -> None:
    """AdamW over the source's parameters in their order; one of them never gets a gradient."""
    state = generator(dim=16, depth=2)
    parameters = {name: torch.nn.Parameter(state[name].clone()) for name in coverhunter.parameter_names(state)}
    optimizer = torch.optim.AdamW(parameters.values(), lr=3e-4, betas=(0.8, 0.99))
    for name, parameter in parameters.items():
        parameter.grad = None if name == "_bottleneck.bias" else torch.randn_like(parameter)
    optimizer.step()
    own = coverhunter.optimizer_to_tonnetz(optimizer.state_dict(), state)
    table = coverhunter.names(depth=2)
    assert table["_bottleneck.bias"] not in own
    for name, parameter in parameters.items():
        if name != "_bottleneck.bias":
            moments = optimizer.state[parameter]
            torch.testing.assert_close(own[table[name]]["exp_avg"].flatten(), moments["exp_avg"].flatten())
    weights = coverhunter.to_tonnetz(state)
    assert all(moments["exp_avg"].shape == weights[name].shape for name, moments in own.items())
    group = {key: value for key, value in optimizer.state_dict()["param_groups"][0].items() if key != "params"}
    back = coverhunter.optimizer_to_coverhunter(own, state, group)
    assert back["param_groups"] == optimizer.state_dict()["param_groups"]
    assert set(back["state"]) == set(optimizer.state_dict()["state"])
    for index, moments in optimizer.state_dict()["state"].items():
        assert all(torch.equal(back["state"][index][key], value) for key, value in moments.items())
    with pytest.raises(UserError, match="moves"):
        coverhunter.optimizer_to_tonnetz(optimizer.state_dict(), generator(dim=16, depth=1))
    with pytest.raises(UserError, match="shape"):
        coverhunter.optimizer_to_tonnetz(optimizer.state_dict(), generator(dim=24, depth=2))


@pytest.mark.parametrize("folder", ["", "checkpoints", "pt_model", "prod_checkpoints"])
def test_the_last_epoch_of_a_folder(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UserError, match="no file g_000000NN"):
        coverhunter.find_generator(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    for name in ("g_00000000", "g_00000009", "g_00000010", "do_00000011", "g_best"):
        (tmp_path / folder / name).touch()
    assert coverhunter.find_generator(tmp_path).name == "g_00000010"
    assert coverhunter.find_generator(tmp_path / folder / "g_00000009").name == "g_00000009"


class Attack:
    """An object whose unpickling would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    good, bad = tmp_path / "g_00000001", tmp_path / "g_00000002"
    torch.save({"generator": generator(dim=16, depth=1)}, good)
    contents = {"cut": good.read_bytes()[:-2000], "empty": b"", "text": b"not a checkpoint"}
    for content in contents.values():
        bad.write_bytes(content)
        with pytest.raises(UserError, match=r"g_00000002: ") as error:
            coverhunter.load_generator(bad)
        assert "\n" not in str(error.value)
    for content in ({"weights": {}}, {"generator": {}}, {"generator": {"a": 1}}, [1]):
        torch.save(content, bad)
        with pytest.raises(UserError, match="no CoverHunter generator"):
            coverhunter.load_generator(bad)
    torch.save({"generator": {"weight": Attack(tmp_path / "trace")}}, bad)
    with pytest.raises(UserError, match="refused"):
        coverhunter.load_generator(bad)
    assert not (tmp_path / "trace").exists()
    with pytest.raises(UserError, match="no such checkpoint"):
        coverhunter.load_generator(tmp_path / "missing")
    with pytest.raises(UserError, match="optim_g"):
        coverhunter.load_optimizer(good)


def test_tensors_that_are_no_coverhunter_network() -> None:
    with pytest.raises(UserError, match="no CoverHunter network"):
        coverhunter.to_tonnetz({"conv.weight": torch.zeros(3)})
    state = generator(dim=16, depth=1)
    with pytest.raises(UserError, match=r"unknown tensors, first 'extra'"):
        coverhunter.to_tonnetz({**state, "extra": torch.zeros(1)})
    with pytest.raises(UserError, match=r"lacks '_encoder\.encoders\.0\.norm_ff\.bias'"):
        coverhunter.to_tonnetz({k: v for k, v in state.items() if k != "_encoder.encoders.0.norm_ff.bias"})
    with pytest.raises(UserError, match="must be"):
        coverhunter.to_tonnetz({**state, "_encoder.embed.out.0.bias": torch.zeros(3)})
    # the original code made this layer but never ran it, so its pooling has the encoder's size
    unused = {**state, "_embed_lo.weight": torch.zeros(8, 16), "_embed_lo.bias": torch.zeros(8)}
    with pytest.raises(UserError, match="never applied"):
        coverhunter.to_tonnetz(unused)
    own = coverhunter.to_tonnetz(state)
    with pytest.raises(UserError, match=r"pooling\.output\.weight"):
        coverhunter.to_coverhunter({k: v for k, v in own.items() if k != "pooling.output.weight"})
