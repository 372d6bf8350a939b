"""Checkpoints of CLMR and TUNe: SampleCNN and the TUNe family, as plain state dicts or written by Lightning, and back.

Sizes come from the shapes of the tensors. Layers of SampleCNN are numbered (``sequential.0.0.weight``); those of TUNe
have names by role and numbers that differ from class to class, so here the widths, which double from level to level,
say where a layer belongs; only the tail is in the order of its numbers (``convDown1.layers.0.weight``). What is
written has the names of the authors' classes, where there is one of these sizes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tonnetz.checkpoint import load_plain
from tonnetz.errors import UserError
from tonnetz.models import SampleCNN, Tune, TuneHybrid
from tonnetz.models.pooling import Mean
from tonnetz.models.tune import UNet
from tonnetz.models.waveform import Waveform

State = dict[str, Tensor]

ANCHORS = ("conv1.layers.0.weight", "sequential.0.0.weight")  # the first layer of TUNe, of SampleCNN
HEADS = re.compile(r"(?:model\.)?(?:module\.)?(projector\.[02]\.weight)$")
FC = re.compile(r"fc\.(weight|bias)$")
TUNED = re.compile(r"model\.[02]\.(weight|bias)$")  # the head of a linear evaluation: one layer, or two
MODULE = re.compile(r"(?P<role>conv|deeperDown|deeperUp|transposedConv|transposedDeeper|convDown)\d+$")
KINDS: dict[str, type[Waveform]] = {"samplecnn": SampleCNN, "tune": Tune, "tune_hybrid": TuneHybrid}


@dataclass(frozen=True)
class Found:
    """A network of this framework: a YAML file of `model`, its sizes, the values that it gives, its tensors; a
    projector; heads left over.
    """

    model: str
    sizes: dict[str, Any]
    dim: int
    network: State
    projector: State
    left: State


def load(path: str | Path, trust: bool = False) -> State:
    """Load the tensors of a file by name, on the CPU.

    Objects other than tensors and plain values (and the namespace of arguments of old Lightning) are refused, for they
    may run code; ``trust`` loads them. Raises UserError for a file without a state dict.
    """
    remedy = "job.trust=true loads it if you know where it is from"
    content = load_plain(path, known=[argparse.Namespace], trust=trust, remedy=remedy)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{path}: holds no state dict of tensors; give one of CLMR or TUNe (one of CoverHunter: task=csi)"
        )
    return {str(name): value for name, value in state.items()}


def to_tonnetz(state: Mapping[str, Tensor]) -> Found:
    """Recognise the network of a state dict and rename its tensors; the last linear layer and such are left over.

    Raises UserError for tensors that lack, do not fit or are not known.
    """
    body, projector, left = _parts(state)
    model, sizes, table = _samplecnn(body) if ANCHORS[1] in body else _tune(body)
    names = {f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in table.items() for leaf in _leaves(ours)}
    unknown = [name for name in body if name not in names]
    if unknown:
        raise UserError(f"checkpoint: {len(unknown)} unknown tensors, first '{unknown[0]}'; not of CLMR or TUNe")
    own = {names[name]: value.unsqueeze(2) if value.ndim == 3 else value for name, value in body.items()}
    with torch.device("meta"):
        network = KINDS[model](channels=1, bins=1, **sizes)
    expected = network.state_dict()
    for theirs, ours in names.items():
        if ours not in own:
            raise UserError(f"checkpoint: lacks '{theirs}'; is the file complete?")
        if own[ours].shape != expected[ours].shape:
            shapes = f"{tuple(body[theirs].shape)} but must be {tuple(expected[ours].squeeze(2).shape)}"
            raise UserError(f"checkpoint: {theirs} is {shapes} between its neighbours")
    _check_projector(projector, network.dim)
    return Found(model, sizes, network.dim, own, projector, left)


def head_of(left: Mapping[str, Tensor], dim: int) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer of a classifier on `dim` values: that of a linear evaluation, else the network's.

    None where there is no such layer. Raises UserError for one that does not fit.
    """
    layers = []
    for name in ("model.0", "model.2", *(["fc"] if "model.0.weight" not in left else [])):
        if f"{name}.weight" in left:
            layers.append((left[f"{name}.weight"], left.get(f"{name}.bias", torch.zeros(len(left[f"{name}.weight"])))))
    widths = [dim, *(len(weight) for weight, _ in layers)]
    for width, (weight, bias) in zip(widths, layers, strict=False):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != (len(weight),):
            raise UserError(f"checkpoint: its head takes {tuple(weight.shape)[1:]} values, the network gives {width}")
    return layers


def _check_projector(projector: State, dim: int) -> None:
    """Two matrices, the first for vectors of ``dim`` values, or none at all."""
    if not projector:
        return
    first, last = projector.get("0.weight"), projector.get("2.weight")
    if first is None or last is None or first.shape[1] != dim or last.shape[1] != len(first):
        shapes = {name: tuple(value.shape) for name, value in projector.items()}
        raise UserError(f"checkpoint: its projector {shapes} is not the two layers of SimCLR on {dim} values")


def _parts(state: Mapping[str, Tensor]) -> tuple[State, State, State]:
    """The tensors of the encoder without its prefix, of the projector, and of linear heads."""
    prefixes = [n.removesuffix(a) for a in ANCHORS for n in state if n.endswith(a) and "model_down." not in n]
    if not prefixes:
        raise UserError(f"checkpoint: has no layer {' or '.join(ANCHORS)}; not of CLMR or TUNe")
    body: State = {}
    projector: State = {}
    left: State = {}
    for name, value in state.items():
        # Lightning wrote the same encoder twice: by itself and inside of SimCLR
        short = next(
            (name.removeprefix(p) for p in sorted(prefixes, key=len, reverse=True) if name.startswith(p)), name
        )
        if found := HEADS.match(name):
            projector[found[1].removeprefix("projector.")] = value
        elif FC.match(short) or TUNED.match(name):
            left[short if FC.match(short) else name] = value
        elif short in body and not torch.equal(body[short], value):
            raise UserError(f"checkpoint: holds two networks, which differ in '{short}'; keep one of them")
        else:
            body[short] = value
    return body, projector, left


BLOCK = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _leaves(ours: str) -> tuple[str, ...]:
    return BLOCK if ours.endswith("norm") else BLOCK[:2]


def _blocks(pairs: Mapping[str, str]) -> dict[str, str]:
    """Their and our name of every convolution and normalisation, given those of blocks."""
    parts = {"0": "conv", "1": "norm"}
    return {f"{theirs}.{i}": f"{ours}.{part}" for theirs, ours in pairs.items() for i, part in parts.items()}


def _samplecnn(body: State, place: str = "sequential", prefix: str = "") -> tuple[str, dict[str, Any], dict[str, str]]:
    """Model, sizes and table of a SampleCNN under ``place``; own names get the prefix."""
    numbers = sorted({int(found[1]) for name in body if (found := re.match(rf"{re.escape(place)}\.(\d+)\.", name))})
    first, *blocks, last = numbers if len(numbers) > 2 else (0, 0, 0)
    widths = [_size(body, f"{place}.{n}.0.weight", 0) for n in blocks]
    pairs = {f"{place}.{n}": f"{prefix}blocks.{i}" for i, n in enumerate(blocks)}
    pairs |= {f"{place}.{first}": f"{prefix}stem", f"{place}.{last}": f"{prefix}output"}
    return "samplecnn", {"widths": widths}, _blocks(pairs)


def _size(body: State, name: str, axis: int) -> int:
    if name not in body or body[name].ndim != 3:
        raise UserError(f"checkpoint: lacks the convolution '{name}'; is the file complete?")
    return body[name].shape[axis]


def _tune(body: State) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Model, sizes and table of a member of the TUNe family."""
    down, merge, up, tail = _roles(body)
    sizes: dict[str, Any] = {"width": _size(body, ANCHORS[0], 0), "down": len(down), "up": len(up)}
    pairs = {name: f"unet.down.{i}" for i, name in enumerate(down)}
    pairs |= {name: f"unet.merge.{i}" for i, name in enumerate(merge)}
    table = _blocks({f"{name}.layers": ours for name, ours in pairs.items()})
    table |= {name: f"unet.up.{i}" for i, name in enumerate(up)}
    if not tail:
        _, extra, inner = _samplecnn(body, "model_down.sequential", "samplecnn.")
        return "tune_hybrid", sizes | extra, table | inner
    table |= _blocks({f"{name}.layers": f"tail.{i}" for i, name in enumerate(tail)})
    before = _size(body, f"{(merge or down)[-1]}.layers.0.weight", 0)
    sizes["skips"] = _size(body, f"{tail[0]}.layers.0.weight", 1) > before
    sizes["tail"] = [_size(body, f"{name}.layers.0.weight", 0) for name in tail]
    return "tune", sizes, table


def _roles(body: State) -> tuple[list[str], list[str], list[str], list[str]]:
    """Names of the modules on the way down, after joins on the way up, of upsampling, and in the tail, in order."""
    found: dict[str, list[tuple[int, str]]] = {"down": [], "merge": [], "up": [], "tail": []}
    for name, role in _modules(body):
        if role.startswith("transposed"):
            found["up"].append((-_size(body, f"{name}.weight", 0), name))
        elif role == "convDown":
            found["tail"].append((int(name.removeprefix(role)), name))
        else:
            weight = f"{name}.layers.0.weight"
            outputs, inputs = _size(body, weight, 0), _size(body, weight, 1)
            found["down" if outputs > inputs else "merge"].append((outputs if outputs > inputs else -inputs, name))
    down, merge, up, tail = ([name for _, name in sorted(members)] for members in found.values())
    return down, merge, up, tail


def _modules(body: State) -> Iterator[tuple[str, str]]:
    """Name and role of every module of TUNe's own, each once."""
    for name in dict.fromkeys(name.partition(".")[0] for name in body):
        if role := MODULE.match(name):
            yield name, role["role"]


LEVELS = 5  # of the U-Net in most classes of TUNe; what is deeper has names of its own


def to_clmr(network: nn.Module) -> State:
    """The tensors of a network by their names in CLMR or TUNe, which `to_tonnetz` reads back bit by bit.

    Raises UserError for another network, and for one that reads more than one channel.
    """
    if isinstance(network, SampleCNN):
        places = _samplecnn_places(network)
    elif isinstance(network, Tune):
        places = _unet_places(network.unet)
        level = network.unet.level
        places |= _layers({f"tail.{i}": f"convDown{level + 1 + i}" for i in range(len(network.tail))})
    elif isinstance(network, TuneHybrid):
        places = _unet_places(network.unet) | _samplecnn_places(network.samplecnn, "model_down.", "samplecnn.")
    else:
        known = ", ".join(KINDS)
        raise UserError(f"job.format=clmr: only model={known} have that layout; this is {type(network).__name__}")
    state = {}
    for name, value in network.state_dict().items():
        place, _, leaf = name.rpartition(".")
        state[f"{places[place]}.{leaf}"] = (value.squeeze(2) if value.ndim == 4 else value).contiguous()
    read = state[ANCHORS[isinstance(network, SampleCNN)]].shape[1]
    if read != 1:
        raise UserError(f"job.format=clmr: that layout has one channel, of frontend=raw; this network reads {read}")
    return state


def _samplecnn_places(network: SampleCNN, outer: str = "", prefix: str = "") -> dict[str, str]:
    """Our and their name of every convolution and normalisation of a SampleCNN."""
    own = ["stem", *(f"blocks.{i}" for i in range(len(network.blocks))), "output"]
    return _places({f"{prefix}{name}": f"{outer}sequential.{i}" for i, name in enumerate(own)})


def _unet_places(unet: UNet) -> dict[str, str]:
    """The same of the U-Net of TUNe, where blocks after a join are numbered on from those on the way down."""
    count, edge = len(unet.down), LEVELS - 1
    names = {f"down.{i}": f"conv{i + 1}" if i < LEVELS else f"deeperDown{i - edge}" for i in range(count)}
    levels = dict(enumerate(range(count - 2, unet.level - 1, -1)))
    names |= {
        f"merge.{i}": f"conv{2 * LEVELS - 1 - n}" if n < edge else f"deeperUp{n - edge + 1}" for i, n in levels.items()
    }
    up = {
        f"unet.up.{i}": f"transposedConv{2 * LEVELS - 1 - n}" if n < edge else f"transposedDeeper{n - edge + 1}"
        for i, n in levels.items()
    }
    return up | _layers({f"unet.{own}": theirs for own, theirs in names.items()})


def _layers(pairs: Mapping[str, str]) -> dict[str, str]:
    return _places({own: f"{theirs}.layers" for own, theirs in pairs.items()})


def _places(pairs: Mapping[str, str]) -> dict[str, str]:
    """Our and their name of the convolution and normalisation of blocks, given those of the blocks."""
    return {ours: theirs for theirs, ours in _blocks({theirs: own for own, theirs in pairs.items()}).items()}


PARTS = {  # of a task: the name of a part there, and what it must consist of
    "projection": ("projector.", (nn.Linear, nn.ReLU, nn.Linear)),
    "head": ("encoder.fc.", (nn.Dropout, nn.Linear)),
}


def heads_of(task: nn.Module) -> tuple[State, list[str]]:
    """A projector of CLMR's and a linear classifier of a task by their names there, and parts that have no place.

    Theirs follow the mean over time; behind another pooling nothing is of use.
    """
    state, mean = State(), isinstance(getattr(task, "pooling", None), Mean)
    left = [] if mean else ["pooling"]
    for name, module in task.named_children():
        prefix, kinds = PARTS.get(name, ("", ()))
        if name in ("encoder", "pooling") or not list(module.parameters()):
            continue
        if mean and tuple(map(type, module.children())) == kinds:
            last = module[-1] if name == "head" else module  # type: ignore[index]
            state |= {f"{prefix}{key}": value.contiguous() for key, value in last.state_dict().items()}
        else:
            left.append(name)
    return state, left
