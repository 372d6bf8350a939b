"""Checkpoints of CoverHunter (``g_00000042`` and ``do_00000042``) to Tonnetz's names and back, bit by bit.

A file is tensors and plain numbers, and is loaded as nothing else. Sizes come from the shapes of the tensors, never
from a configuration file. Names of Tonnetz here start with ``backbone.``, ``pooling.``, ``neck.`` (the BN-neck),
``linear.`` (the classifier) and ``centers``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tonnetz.checkpoint import load_plain
from tonnetz.errors import UserError
from tonnetz.losses.center import Center
from tonnetz.losses.classifier import FocalClassifier
from tonnetz.models import Conformer
from tonnetz.models.pooling import AttentiveStatistics

HEADS = ("neck.", "linear.", "centers")
FOLDERS = ("checkpoints", "pt_model", "prod_checkpoints")
COUNTERS = ("running_mean", "running_var", "num_batches_tracked")

State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a generator say. ``output_dim`` is None without the linear layer before the pooling."""

    bins: int
    dim: int
    depth: int
    heads: int
    ffn: int
    kernel: int
    output_dim: int | None
    embed_dim: int
    classes: int | None

    @property
    def model(self) -> dict[str, Any]:
        """The keywords of ``model=conformer``."""
        keys = ("dim", "depth", "heads", "ffn", "kernel", "output_dim")
        return {key: getattr(self, key) for key in keys}


def find_generator(path: str | Path) -> Path:
    """The file itself, or the ``g_`` file of the highest epoch in a folder or its folder of checkpoints."""
    path = Path(path)
    if not path.is_dir():
        return path
    places = [path, *(path / name for name in FOLDERS)]
    found = [file for place in places for file in place.glob("g_*") if file.name[2:].isdigit()]
    if not found:
        raise UserError(f"{path}: no file g_000000NN in this folder, nor in {', '.join(FOLDERS)} under it")
    return max(found, key=lambda file: int(file.name[2:]))


def load_generator(path: str | Path) -> State:
    """Load the tensors of a ``g_`` file by name, on the CPU. Raises UserError for any other file."""
    content = load_plain(path)
    state = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: no CoverHunter generator (no tensors under 'generator'); give a file g_000000NN")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def load_optimizer(path: str | Path) -> dict[str, Any]:
    """Load a ``do_`` file: ``optim_g``, ``steps``, ``epoch``, ... Raises UserError for any other file."""
    content = load_plain(path)
    if not isinstance(content, dict) or not isinstance(content.get("optim_g"), dict):
        raise UserError(f"{path}: no CoverHunter optimizer (no 'optim_g'); give a file do_000000NN")
    return content


def infer_sizes(state: Mapping[str, Tensor]) -> Sizes:
    """Read all sizes off the shapes of a generator. Raises UserError for tensors that are no such network."""
    try:
        blocks = [int(found[1]) for name in state if (found := re.match(r"_encoder\.encoders\.(\d+)\.", name))]
        first = "_encoder.encoders.0."
        classifier, project = state.get("_ce_layer.weight"), state.get("_embed_lo.weight")
        sizes = Sizes(
            bins=len(state["_global_cmvn.weight"]),
            dim=len(state["_encoder.after_norm.weight"]),
            depth=max(blocks) + 1,
            heads=state[first + "self_attn.pos_bias_u"].shape[0],
            ffn=state[first + "feed_forward.w_1.weight"].shape[0],
            kernel=state[first + "conv_module.depthwise_conv.weight"].shape[2],
            output_dim=None if project is None else project.shape[0],
            embed_dim=state["_pool_layer._final_layer.weight"].shape[0],
            classes=None if classifier is None else classifier.shape[0],
        )
        frames = state["_pool_layer._linear.linear_layer.weight"].shape[0]
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"generator: no CoverHunter network, it lacks {error}") from None
    if frames != (sizes.output_dim or sizes.dim):
        raise UserError(
            f"generator: the encoder gives {sizes.output_dim or sizes.dim} values a frame but the pooling takes "
            f"{frames}; the original code never applied its layer between them, so such a file cannot be used"
        )
    return sizes


def make_network(sizes: Sizes) -> tuple[Conformer, AttentiveStatistics]:
    """Return the encoder and the pooling of these sizes, with random weights."""
    backbone = Conformer(channels=1, bins=sizes.bins, **sizes.model)
    return backbone, AttentiveStatistics(backbone.dim, sizes.embed_dim)


NORM = ("weight", "bias", *COUNTERS)
LAYER = ("weight", "bias")


def _block(index: int) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """Source prefix, own prefix and leaves of one block, in the order in which the source registers them."""
    source, own = f"_encoder.encoders.{index}.", f"backbone.blocks.{index}."
    attention, convolution = source + "self_attn.", source + "conv_module."
    yield attention + "pos_bias_u", own + "attention.content_bias", ("",)
    yield attention + "pos_bias_v", own + "attention.position_bias", ("",)
    for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output")):
        yield f"{attention}linear_{theirs}", f"{own}attention.{ours}", LAYER
    yield attention + "linear_pos", own + "attention.position", ("weight",)
    for theirs, ours in (("feed_forward", "after"), ("feed_forward_macaron", "before")):
        yield f"{source}{theirs}.w_1", f"{own}{ours}.0", LAYER
        yield f"{source}{theirs}.w_2", f"{own}{ours}.3", LAYER
    yield convolution + "pointwise_conv1", own + "convolution.expand", LAYER
    yield convolution + "depthwise_conv", own + "convolution.depthwise", LAYER
    yield convolution + "norm", own + "convolution.norm", NORM
    yield convolution + "pointwise_conv2", own + "convolution.output", LAYER
    norms = {"ff": "after", "mha": "attention", "ff_macaron": "before", "conv": "convolution", "final": "output"}
    for theirs, ours in norms.items():
        yield f"{source}norm_{theirs}", f"{own}norm_{ours}", LAYER


def names(depth: int, project: bool = False) -> dict[str, str]:
    """Source name -> own name of every entry, heads included, in the order in which the source registers them."""
    parts: list[tuple[str, str, tuple[str, ...]]] = [("_global_cmvn", "backbone.norm.norm", NORM)]
    parts += [(f"_encoder.embed.conv.{i}", f"backbone.subsampling.conv.{i}", LAYER) for i in (0, 2)]
    parts += [("_encoder.embed.out.0", "backbone.subsampling.linear", LAYER)]
    parts += [("_encoder.after_norm", "backbone.output", LAYER)]
    parts += [part for index in range(depth) for part in _block(index)]
    parts += [("_embed_lo", "backbone.project", LAYER)] if project else []
    parts += [("_bottleneck", "neck", NORM)]
    parts += [("_pool_layer._linear.linear_layer", "pooling.hidden", LAYER)]
    parts += [("_pool_layer._conv.conv", "pooling.score", LAYER)]
    parts += [("_pool_layer._final_layer", "pooling.output", ("weight",))]
    parts += [("_ce_layer", "linear", ("weight",)), ("_center_loss.centers", "centers", ("",))]
    return {f"{s}.{leaf}".strip("."): f"{o}.{leaf}".strip(".") for s, o, leaves in parts for leaf in leaves}


POINTWISE = re.compile(r"(pointwise_conv[12]|_pool_layer\._conv\.conv)\.weight$")


def to_tonnetz(state: Mapping[str, Tensor]) -> State:
    """Rename a generator's tensors; kernels of one frame become matrices. The heads come along where there are any.

    Raises UserError for tensors that lack, do not fit or are not known.
    """
    sizes = infer_sizes(state)
    table = names(sizes.depth, sizes.output_dim is not None)
    unknown = [name for name in state if name not in table]
    if unknown:
        raise UserError(f"generator: {len(unknown)} unknown tensors, first '{unknown[0]}'; not a CoverHunter network")
    own = {table[name]: value.squeeze(-1) if POINTWISE.search(name) else value for name, value in state.items()}
    for name, value in _expected(sizes).items():
        if name not in own:
            source = next(theirs for theirs, ours in table.items() if ours == name)
            raise UserError(f"generator: lacks '{source}'; is the file complete?")
        if own[name].shape != value.shape:
            raise UserError(f"generator: {name} is {tuple(own[name].shape)} but must be {tuple(value.shape)}")
    return own


def _expected(sizes: Sizes) -> State:
    """Tensors (without memory) that a network of these sizes must have; heads may be missing."""
    with torch.device("meta"):
        backbone, pooling = make_network(sizes)
    found = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    return found | {f"pooling.{name}": value for name, value in pooling.state_dict().items()}


def to_coverhunter(own: Mapping[str, Tensor]) -> State:
    """Undo :func:`to_tonnetz`, in the source's order; entries that are none of the network's are left out."""
    depth = 1 + max((int(name.split(".")[2]) for name in own if name.startswith("backbone.blocks.")), default=-1)
    table = names(depth, "backbone.project.weight" in own)
    missing = [name for name in table.values() if name not in own and not name.startswith(HEADS)]
    if missing:
        raise UserError(
            f"export: '{missing[0]}' is missing; only model=conformer pooling=attentive_stats is CoverHunter's"
        )
    kept = {theirs: own[ours] for theirs, ours in table.items() if ours in own}
    return {name: value.unsqueeze(-1) if POINTWISE.search(name) else value for name, value in kept.items()}


def parameter_names(state: Iterable[str]) -> list[str]:
    """The names of a generator's parameters (no buffers); its own order is that by which its optimizer counts them."""
    return [name for name in state if not name.endswith(COUNTERS)]


def optimizer_to_tonnetz(optimizer: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Own name -> AdamW's ``step``, ``exp_avg`` and ``exp_avg_sq``, from ``optim_g`` and the generator beside it.

    Parameters that were never moved have no entry. Raises UserError when the two files do not belong together.
    """
    sizes = infer_sizes(state)
    table, order = names(sizes.depth, sizes.output_dim is not None), parameter_names(state)
    indices = [index for group in optimizer["param_groups"] for index in group["params"]]
    if sorted(indices) != list(range(len(order))):
        raise UserError(f"optimizer: moves {len(indices)} parameters but the generator has {len(order)}; other file?")
    found = {}
    for index, moments in optimizer["state"].items():
        name = order[int(index)]
        fits = [v.shape == state[name].shape for k, v in moments.items() if isinstance(v, Tensor) and k != "step"]
        if not all(fits):
            raise UserError(f"optimizer: the moments of {name} have another shape than it; not files of one run")
        found[table[name]] = {key: _flat(name, value) for key, value in moments.items()}
    return found


def optimizer_to_coverhunter(
    moments: Mapping[str, Mapping[str, Any]], state: Mapping[str, Tensor], group: Mapping[str, Any]
) -> dict[str, Any]:
    """Undo :func:`optimizer_to_tonnetz`; ``state`` is the exported generator, ``group`` lr, betas and so on."""
    order = parameter_names(state)
    sizes = infer_sizes(state)
    table = names(sizes.depth, sizes.output_dim is not None)
    kept = {
        index: {key: _kernel(name, value) for key, value in moments[table[name]].items()}
        for index, name in enumerate(order)
        if table[name] in moments
    }
    return {"state": kept, "param_groups": [{**group, "params": list(range(len(order)))}]}


def _flat(name: str, value: Any) -> Any:
    return value.squeeze(-1) if isinstance(value, Tensor) and value.ndim == 3 and POINTWISE.search(name) else value


def _kernel(name: str, value: Any) -> Any:
    return value.unsqueeze(-1) if isinstance(value, Tensor) and value.ndim == 2 and POINTWISE.search(name) else value


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of SHA-256 over sorted names, shapes, types and bytes; without heads and counters.

    Meant for own names, so that a checkpoint has one fingerprint with and without its heads.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.startswith(HEADS) or name.endswith("num_batches_tracked"):
            continue
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def task_names(task: nn.Module) -> dict[str, str]:
    """Name in a task's state dict -> own name, for encoder, pooling and the heads of its loss, where it has them."""
    places = {"encoder.backbone.": "backbone.", "pooling.": "pooling."}
    for path, module in task.named_modules():
        if isinstance(module, FocalClassifier):
            places |= {f"{path}.neck.": "neck.", f"{path}.linear.": "linear."}
        elif isinstance(module, Center):
            places[f"{path}.centers"] = "centers"
    return {
        name: own + name.removeprefix(place)
        for name in task.state_dict()
        for place, own in places.items()
        if name.startswith(place)
    }
