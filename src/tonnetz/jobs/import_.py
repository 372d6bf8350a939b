"""job=import: a checkpoint of the original CoverHunter, CLMR or TUNe becomes one of this framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from tonnetz import clmr, coverhunter
from tonnetz.atomic import replacing
from tonnetz.build import build_task, connect
from tonnetz.datasets.magnatagatune import TAGS
from tonnetz.errors import UserError, suggest
from tonnetz.manifest import Run
from tonnetz.paths import config_folder
from tonnetz.quiet import quiet
from tonnetz.tasks.base import Task
from tonnetz.tasks.optimizer import parameter_groups
from tonnetz.tracks import DataSpec

FRAME = {"sample_rate": 16000, "hop": 640, "bins_per_octave": 12, "fmin": 32.0, "mean_size": 3}
BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "cqt_coverhunter": ("cqt_coverhunter", FRAME),
    "cqt": ("cqt", {**FRAME, "algorithm": "cqt1992v2", "relative": True, "pad": "reflect"}),
    "cqt2010v2": ("cqt", {**FRAME, "algorithm": "cqt2010v2", "relative": True, "pad": "reflect"}),
}  # the fork takes nnAudio's defaults
# One vector a window of 1,125 frames, taken before the BN-neck; a recording is as near as its nearest window.
TASK: dict[str, Any] = {"dim": None, "norm": False, "segment": None, "distance": "cosine", "reduction": "min"}
TASK |= {"transpositions": 1, "plan.seconds": 135.0, "plan.window": None, "plan.hop": None, "plan.stretch": None}
TASK |= {"plan.tempi": [1.0]}


WINDOW = 59049  # samples that CLMR and TUNe were trained on


def run(cfg: DictConfig, run: Run) -> None:
    """Write ``checkpoints/imported.ckpt`` from ``job.source``; every size comes from the file.

    The task says whose file it is: task=csi CoverHunter's, task=contrastive that of CLMR or TUNe; with
    task=classification that of CLMR or TUNe and its classifier.
    """
    quiet()
    kinds = {"CSI": import_coverhunter, "Contrastive": import_clmr, "Classification": import_classifier}
    kind = cfg.task._target_.rpartition(".")[2]
    if kind not in kinds:
        raise UserError(
            "job=import: add task=csi for a file of CoverHunter, task=contrastive for one of CLMR or TUNe, "
            "task=classification for one of these with its classifier"
        )
    kinds[kind](cfg, run)


def _check(job: DictConfig, remedies: dict[str, str]) -> None:
    for key, remedy in remedies.items():
        if OmegaConf.is_missing(job, key):
            raise UserError(f"job.{key} is missing: give {remedy}, job.{key}=...")


def import_coverhunter(cfg: DictConfig, run: Run) -> None:
    """Import a generator, and its optimizer's state if ``job.optimizer`` names it."""
    _check(cfg.job, {"source": "the file g_000000NN", "frontend_backend": f"one of {', '.join(BACKENDS)}"})
    backend = cfg.job.frontend_backend
    if backend not in BACKENDS:
        raise UserError(f"job.frontend_backend={backend}: unknown{suggest(backend, BACKENDS)}")
    source = coverhunter.find_generator(cfg.job.source)
    state = coverhunter.load_generator(source)
    own, sizes = coverhunter.to_tonnetz(state), coverhunter.infer_sizes(state)
    moments = coverhunter.load_optimizer(cfg.job.optimizer) if cfg.job.optimizer else None
    adapted = adapt(cfg, sizes, moments)
    groups = tuple(map(str, range(sizes.classes or 0)))  # the numbers of works of a corpus that is not here
    spec = DataSpec(groups=groups, corpora={"coverhunter": ""})
    task = build_task(adapted, connect(adapted.frontend), spec)
    unplaced = place(task, own)
    checkpoint = describe(task)
    checkpoint["coverhunter"] = {"backend": backend, "unplaced": unplaced, "moments": {}, "progress": {}}
    if moments is not None:
        add_moments(checkpoint, task, coverhunter.optimizer_to_tonnetz(moments["optim_g"], state), moments)
    path = write(checkpoint, run)
    print(f"{source}: {len(state)} tensors")
    report(run, path, backend, own, sizes, unplaced)


def describe(task: Task) -> dict[str, Any]:
    """A checkpoint of a task that was not trained here."""
    start = {"pytorch-lightning_version": L.__version__, "epoch": 0, "global_step": 0}
    return {"state_dict": task.state_dict(), "tonnetz": task.payload, **start}


def write(checkpoint: dict[str, Any], run: Run) -> Path:
    """Write the checkpoint into the run's folder; return its path."""
    path = run.folder / "checkpoints" / "imported.ckpt"
    with replacing(path) as part:
        torch.save(checkpoint, part)
    return path


def adapt(cfg: DictConfig, sizes: coverhunter.Sizes, moments: dict[str, Any] | None) -> DictConfig:
    """The configuration with the front-end, network, pooling, loss and excerpts that the file asks for."""
    cfg = cfg.copy()
    name, values = BACKENDS[cfg.job.frontend_backend]
    cfg.frontend = _member("frontend", name, **values, bins=sizes.bins)
    cfg.model = _member("model", "conformer", **sizes.model)
    cfg.pooling = _member("pooling", "attentive_stats", embed_dim=sizes.embed_dim)
    cfg.loss = _member("loss", "coverhunter" if sizes.classes else "supcon")
    if moments is not None:
        group = moments["optim_g"]["param_groups"][0]
        cfg.optimizer = _member("optimizer", "adamw", lr=group["lr"], betas=list(group["betas"]))
    for key, value in TASK.items():
        OmegaConf.update(cfg.task, key, value)
    return cfg


def _member(group: str, name: str, **values: Any) -> DictConfig:
    """One YAML file of a group with these values."""
    node = OmegaConf.load(config_folder() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    node.update(values)
    return node


def place(task: Task, own: coverhunter.State) -> coverhunter.State:
    """Load the tensors into the task; return those (heads) for which it has no place of their shape."""
    names = coverhunter.task_names(task)
    state = task.state_dict()
    fits = {k: own[name] for k, name in names.items() if name in own and own[name].shape == state[k].shape}
    task.load_state_dict({**state, **fits})
    placed = {names[key] for key in fits}
    left = {name: value for name, value in own.items() if name not in placed}
    lost = [name for name in left if not name.startswith(coverhunter.HEADS)]
    if lost:
        raise UserError(f"job.source: the network has no place for {lost[0]}; was task=csi chosen?")
    return left


def add_moments(
    checkpoint: dict[str, Any], task: Task, found: dict[str, dict[str, Any]], source: dict[str, Any]
) -> None:
    """Put AdamW's moments into the checkpoint in the order of this framework's optimizer."""
    names = coverhunter.task_names(task)
    keys = {id(parameter): key for key, parameter in task.named_parameters()}
    theirs = source["optim_g"]["param_groups"][0]
    groups = parameter_groups(task, float(theirs.get("weight_decay", 0.01)))
    optimizer = torch.optim.AdamW(groups, lr=theirs["lr"], betas=tuple(theirs["betas"]), eps=theirs.get("eps", 1e-8))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.get(keys[id(parameter)])
            if name in found and found[name]["exp_avg"].shape == parameter.shape:
                optimizer.state[parameter] = found.pop(name)
    checkpoint["optimizer_states"] = [optimizer.state_dict()]
    checkpoint["epoch"], checkpoint["global_step"] = int(source.get("epoch", 0)), int(source.get("steps", 0))
    rest = {key: value for key, value in source.items() if key not in ("optim_g", "steps", "epoch")}
    checkpoint["coverhunter"] |= {"moments": found, "progress": rest, "group": theirs}


def report(
    run: Run, path: Path, backend: str, own: coverhunter.State, sizes: coverhunter.Sizes, unplaced: coverhunter.State
) -> None:
    """Print and keep what was imported."""
    body = {name: value for name, value in own.items() if not name.startswith(coverhunter.HEADS)}
    count = sum(v.numel() for name, v in body.items() if not name.endswith(coverhunter.COUNTERS))
    mark = coverhunter.fingerprint(own)
    print(f"{path}: {count:,} parameters, {sizes.bins} bins, {sizes.depth} blocks, fingerprint {mark}")
    if unplaced:
        print(f"kept aside for an export back: {', '.join(unplaced)}")
    run.facts |= {"ckpt": str(path), "sizes": vars(sizes), "fingerprint": mark, "parameters": count}


def import_clmr(cfg: DictConfig, run: Run) -> None:
    """Import an encoder, and its projector if the file has one."""
    _check(cfg.job, {"source": "the checkpoint"})
    found = clmr.to_tonnetz(clmr.load(cfg.job.source, cfg.job.trust))
    adapted = adapt_clmr(cfg, found)
    task = build_task(adapted, connect(adapted.frontend), DataSpec())
    task.encoder.backbone.load_state_dict(found.network)
    task.get_submodule("projection").load_state_dict(found.projector)
    path = write({**describe(task), "clmr": {"unplaced": found.left}}, run)
    count = sum(parameter.numel() for parameter in task.encoder.backbone.parameters())
    print(f"{cfg.job.source}: {'with' if found.projector else 'without'} a projector")
    print(f"{path}: model={found.model}, {count:,} parameters, {cfg.job.sample_rate} Hz")
    if found.left:
        print(f"kept aside: {', '.join(found.left)}")
    run.facts |= {"ckpt": str(path), "model": found.model, "sizes": found.sizes, "parameters": count}


def import_classifier(cfg: DictConfig, run: Run) -> None:
    """Import an encoder with the classifier of its file, or of ``job.head``: of supervised training or evaluation."""
    _check(cfg.job, {"source": "the checkpoint"})
    state = clmr.load(cfg.job.source, cfg.job.trust)
    try:
        found = clmr.to_tonnetz(state)
    except UserError as error:
        raise UserError(f"{error} (task=csi reads files of CoverHunter, task=contrastive encoders alone)") from None
    left = clmr.load(cfg.job.head, cfg.job.trust) if cfg.job.head else found.left
    adapted = _waveform(cfg, found)
    layers = clmr.head_of(left, found.dim)
    if not layers:
        raise UserError(
            f"{cfg.job.head or cfg.job.source}: holds no classifier; job.head=FILE names the file of one, "
            "task=contrastive imports the encoder alone"
        )
    classes, multilabel = class_names(cfg.job, len(layers[-1][0]))
    adapted.loss = _member("loss", "bce" if multilabel else "ce")
    adapted.task.hidden = len(layers[0][0]) if len(layers) > 1 else None
    adapted.task.plan.hop = None
    task: Any = build_task(adapted, connect(adapted.frontend), DataSpec(classes=classes, multilabel=multilabel))
    task.encoder.backbone.load_state_dict(found.network)
    own = [module for module in task.head if isinstance(module, torch.nn.Linear)]
    for module, (weight, bias) in zip(own, layers, strict=True):
        module.load_state_dict({"weight": weight, "bias": bias})
    path = write({**describe(task), "clmr": {"unplaced": {}}}, run)
    count = sum(parameter.numel() for parameter in task.parameters())
    print(f"{path}: model={found.model} with a classifier of {len(classes)} classes, {count:,} parameters")
    run.facts |= {"ckpt": str(path), "model": found.model, "sizes": found.sizes, "parameters": count}


def class_names(job: DictConfig, count: int) -> tuple[tuple[str, ...], bool]:
    """Names of the outputs of a classifier, and whether several may hold: the 50 tags of MagnaTagATune, or others."""
    tags = job.classes == "magnatagatune" or (job.classes is None and count == len(TAGS))
    names = TAGS if tags else tuple(map(str, range(count) if job.classes is None else job.classes))
    if len(names) != count:
        raise UserError(f"job.classes: {len(names)} names, but the classifier has {count} outputs")
    return tuple(names), tags if job.multilabel is None else bool(job.multilabel)


def _waveform(cfg: DictConfig, found: clmr.Found) -> DictConfig:
    """The configuration with raw audio, the network of the file, and its excerpts."""
    cfg = cfg.copy()
    cfg.frontend = _member("frontend", "raw", sample_rate=cfg.job.sample_rate)
    cfg.data.normalize = False  # they take sound as loud as its file
    cfg.model = _member("model", found.model, **found.sizes)
    cfg.pooling = _member("pooling", "mean")
    OmegaConf.update(cfg.task, "plan.seconds", WINDOW / cfg.job.sample_rate)
    return cfg


def adapt_clmr(cfg: DictConfig, found: clmr.Found) -> DictConfig:
    """The configuration with raw audio, the network and projector of the file, its excerpts and its loss."""
    cfg = _waveform(cfg, found)
    cfg.loss = _member("loss", "simclr")
    layers = [found.projector[name] for name in sorted(found.projector)]
    hidden, dim = (len(layer) for layer in layers) if layers else (None, None)
    projector = {"layers": len(layers), "hidden": hidden, "dim": dim, "norm": False}
    for key, value in projector.items():
        OmegaConf.update(cfg.task, key, value)
    return cfg
