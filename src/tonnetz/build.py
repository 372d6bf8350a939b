"""Config to objects. Beside `cli`, the only module that knows Hydra."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from tonnetz import __version__
from tonnetz.augment import Augment
from tonnetz.checkpoint import load_checkpoint
from tonnetz.data import AudioData
from tonnetz.data.sets import EvaluationSet
from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError, suggest
from tonnetz.frontend import fingerprint
from tonnetz.models.encoder import Encoder
from tonnetz.paths import config_folder
from tonnetz.tasks.base import Task
from tonnetz.tracks import DataSpec

FROM_CHECKPOINT = ("frontend", "augment", "model", "pooling", "loss", "optimizer", "schedule", "task")
# Of these keys a restored task may take new values: its weights do not depend on them.
FREE = (
    "task.plan",
    "task.aggregate",
    "task.distance",
    "task.reduction",
    "task.transpositions",
    "task.segment_hop",
    "task.query_seconds",
    "task.reference_seconds",
    "task.rounds",
    "task.compat",
    "task.projection",
    "task.evaluation",
    "task.heads",
    "task.bank",
    "task.neighbours",
    "task.kin",
)
SHARED = ("encoder.", "pooling.", "projection.")  # weights that have no row for a class or work


@dataclass
class Experiment:
    """All objects of a run."""

    cfg: DictConfig
    data: AudioData
    task: Task


def connect(node: DictConfig, **facts: Any) -> Any:
    """Build what a config node names; hand it those `facts` that its signature asks for.

    The node is instantiated as a partial and then called, so objects keep their identity and types.
    """
    target = get_object(node._target_)
    known = inspect.signature(target).parameters
    accepted = {name: value for name, value in facts.items() if _takes(known, name)}
    try:
        made = instantiate(node, _partial_=True, _convert_="all")
        return made(**accepted)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{node._target_}: {_first_line(error)}") from error
    except TypeError as error:
        if "argument" in str(error) and _by_the_call(error):
            odd = [str(key) for key in node if not str(key).startswith("_") and not _takes(known, str(key))]
            reason = f"takes no '{odd[0]}'{suggest(odd[0], known)}" if odd else f"{error}; see the keys of its YAML"
            raise UserError(f"{node._target_}: {reason}") from error
        raise


def _by_the_call(error: TypeError) -> bool:
    """Whether a call of ours, or of Hydra's, was refused, and not one within what was called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith((__name__, "hydra."))


def _takes(parameters: Any, name: str) -> bool:
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _first_line(error: BaseException) -> str:
    """The first line of what went wrong, with the next one where it only announces that."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def build(cfg: DictConfig, spec: DataSpec | None = None) -> Experiment:
    """Connect front-end -> data -> backbone -> task. `spec` comes from a checkpoint when there is one."""
    check_start(cfg)
    torch.manual_seed(cfg.seed)
    frontend = connect(cfg.frontend)
    data = build_data(cfg, frontend, spec)
    task = build_task(cfg, frontend, data.spec)
    data.plan = task.placed(data.plan)
    task.data = data
    if cfg.get("init"):
        load_encoder(task, cfg.init)
        if cfg.warm:
            load_warm(task, cfg.init, moments=cfg.warm == "all")
    return Experiment(cfg, data, task)


def check_start(cfg: DictConfig) -> None:
    """Raise UserError for something missing that an experiment `needs`, and for `warm` with nothing to start from."""
    for key, what in (cfg.get("needs") or {}).items():
        if not OmegaConf.select(cfg, str(key)):
            raise UserError(f"{key} is missing: give {what}")
    if cfg.get("warm") not in (None, "weights", "all"):
        raise UserError(f"warm={cfg.warm}: known are weights, all, or null")
    if cfg.get("warm") and not cfg.get("init"):
        raise UserError(f"warm={cfg.warm}: needs a checkpoint to start from, init=outputs/RUN/checkpoints/best.ckpt")


def build_data(cfg: DictConfig, frontend: Any, spec: DataSpec | None = None) -> AudioData:
    """The data module of the `data` node and the task's sampling plan."""
    node = cfg.data.copy()
    with_roots = [_corpus(node)] if OmegaConf.select(node, "corpus") is not None else []
    corpora = with_roots + [_source(source) for source in node.sources]
    rest = OmegaConf.masked_copy(node, [key for key in node if key not in ("corpus", "root", "sources", "sets")])
    facts = {"corpora": corpora, "frontend": frontend, "plan": connect(cfg.task.plan), "sets": _sets(node)}
    return connect(rest, **facts, cache=cfg.paths.data, seed=cfg.seed, spec=spec)


def _sets(node: DictConfig) -> dict[str, EvaluationSet]:
    """The further evaluation sets of `data.sets`."""
    found = {}
    for name, entry in (node.get("sets") or {}).items():
        keys = dict(cast(dict[str, Any], OmegaConf.to_container(entry)))
        unknown = set(keys) - {"source", "role", "every", "lists"}
        if unknown or "source" not in keys:
            raise UserError(f"data.sets.{name}: needs source (NAME:FOLDER) and may have role, every, lists")
        if isinstance(keys["source"], dict) and keys["source"].get("split"):
            split = keys["source"]["split"]
            raise UserError(f"data.sets.{name}: is a split of its own; only={split} takes the {split} recordings alone")
        found[str(name)] = EvaluationSet(_source(keys.pop("source")), **keys)
    return found


def _corpus(node: DictConfig, root: str | None = None, split: str | None = None) -> Corpus:
    name = node.corpus._target_.split(".")[-1].lower()
    if root is None and OmegaConf.is_missing(node, "root"):
        raise UserError(f"data.root is missing: say where {name} is, data.root=FOLDER")
    facts = {"root": root or node.root} | ({"split": split} if split else {})
    return connect(node.corpus, **facts)


def _source(source: str | dict[str, Any] | DictConfig) -> Corpus:
    """A corpus of `data.sources`: ``name:root``, or a mapping with name, root and other keys of its corpus."""
    if isinstance(source, str):
        name, colon, root = source.partition(":")
        if not colon:
            raise UserError(f"data.sources: '{source}' is not NAME:FOLDER, e.g. philharmonia:/sounds")
        keys: dict[str, Any] = {}
    else:
        keys = dict(source if isinstance(source, dict) else cast(dict[str, Any], OmegaConf.to_container(source)))
        if "name" not in keys:
            raise UserError(f"data.sources: {keys} has no name; give name, root and optionally only, split")
        name, root = keys.pop("name"), keys.pop("root", None)
    only = keys.pop("only", None)
    folder = config_folder() / "data"
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"data.sources: no corpus '{name}'{suggest(name, (p.stem for p in folder.glob('*.yaml')))}")
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    split = keys.pop("split", None)
    node.corpus.update(keys)
    corpus = _corpus(node, root, split)
    corpus.only = only
    return corpus


def build_task(cfg: DictConfig, frontend: Any, spec: DataSpec) -> Task:
    """The task of the `task` node with its encoder, pooling, loss and augmentation."""
    augment = build_augment(cfg.augment, frontend)
    if len(augment.wave_chain) and OmegaConf.select(cfg, "task.plan.source") == "features":
        names = ", ".join(augment.wave_chain)
        raise UserError(
            f"task.plan.source=features: stored features have no waveform for augment.wave ({names}); "
            "take augment=specaugment or augment=none, or read sound: task.plan.source=audio task.plan.stretch=null"
        )
    backbone = build_backbone(cfg, frontend)
    encoder = Encoder(frontend, backbone, augment)
    multilabel = spec.multilabel
    pooling = connect(cfg.pooling, dim=backbone.dim)
    size = OmegaConf.select(cfg, "task.dim") or pooling.out_dim
    if size < 1:
        raise UserError(f"task.dim={size}: must be above 0, or null")
    pitches = getattr(backbone, "pitches", 0)
    facts = {"multilabel": multilabel, "classes": len(spec.groups or spec.classes), "pitches": pitches}
    facts |= {"dim": size, "frame_dim": backbone.dim}
    loss = _loss(cfg.loss, facts)
    if hasattr(loss, "fit_counts"):
        loss.fit_counts(torch.tensor(spec.positives), torch.tensor(spec.known))
    kind = get_class(cfg.task._target_)
    node = OmegaConf.masked_copy(cfg.task, [key for key in cfg.task if key != "plan"])
    task: Task = _partial(node)(
        **_wanted(kind, pooling=pooling, loss=loss),
        encoder=encoder,
        augment=augment,
        optimizer=instantiate(cfg.optimizer, _partial_=True, _convert_="all"),
        schedule=instantiate(cfg.schedule, _partial_=True, _convert_="all"),
        spec=spec,
        seed=cfg.seed,
    )
    task.payload = {
        "format": 1,
        "version": __version__,
        "config": plain(cfg),
        "spec": spec.to_dict(),
        "frontend": fingerprint(frontend),
    }
    return task


def _partial(node: DictConfig) -> Any:
    """The node as a partial whose inner nodes are built; what they refuse is the user's mistake, not Hydra's."""
    try:
        return instantiate(node, _partial_=True, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{node._target_}: {_first_line(error)}") from error


def _loss(node: DictConfig, facts: dict[str, Any]) -> Any:
    """The loss of a node; one with `parts` is a sum of losses, each of which gets the facts that it asks for."""
    if "parts" not in node:
        return connect(node, **facts)
    parts = {str(name): connect(part, **facts) for name, part in node.parts.items() if part}
    return connect(OmegaConf.masked_copy(node, [str(key) for key in node if key != "parts"]), parts=parts, **facts)


def _wanted(kind: type, **facts: Any) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    return {name: value for name, value in facts.items() if name in known}


def build_backbone(cfg: DictConfig, frontend: Any) -> Any:
    """The network of ``cfg.model`` for what a front-end gives. Raises UserError when that has too few bins."""
    kind: Any = get_object(cfg.model._target_)
    if frontend.bins < kind.min_bins:
        name = cfg.model._target_.split(".")[-1]
        raise UserError(
            f"model {name} needs a front-end with at least {kind.min_bins} bins, "
            f"{cfg.frontend._target_.split('.')[-1]} has {frontend.bins}; take frontend=logmel, or model=tiny"
        )
    facts = {"channels": frontend.channels, "bins": frontend.bins}
    if reads_octaves(kind):
        if not gives_octaves(frontend):
            raise UserError(
                f"model {cfg.model._target_.split('.')[-1]} reads decibels of pitches and their octaves, which "
                f"{type(frontend).__name__} does not give; take frontend=cqt_coverhunter, cqt or hcqt"
            )
        facts["bins_per_octave"] = frontend.bins_per_octave
    return connect(cfg.model, **facts)


def reads_octaves(kind: type) -> bool:
    """Whether a network asks how many bins an octave has: it folds them into pitch classes."""
    return "bins_per_octave" in inspect.signature(kind).parameters


def gives_octaves(frontend: Any) -> bool:
    """Whether the bins of a front-end are pitches, in decibels."""
    return frontend.decibels and frontend.bins_per_octave is not None


def build_augment(node: DictConfig, frontend: Any) -> Augment:
    """The augmentations of the `augment` node, in their order. Raises UserError where the front-end does not fit."""
    rate = frontend.sample_rate
    wave = {name: connect(item, sample_rate=rate) for name, item in (node.get("wave") or {}).items() if item}
    parts = {str(name): item for name, item in (node.get("features") or {}).items() if item}
    features = {name: connect(item, **_octave(name, item, frontend)) for name, item in parts.items()}
    for name, part in features.items():
        if part.decibels and not frontend.decibels:
            raise UserError(
                f"augment.features.{name}: changes decibels, and {type(frontend).__name__} gives none; leave it out, "
                f"augment.features.{name}=null, or give it other numbers where it has them"
            )
    return Augment(wave, features)


def _octave(name: str, item: DictConfig, frontend: Any) -> dict[str, int]:
    """The front-end's bins of an octave, for an augmentation that does not say how many."""
    own, given = frontend.bins_per_octave, item.get("bins_per_octave")
    if given is None:
        return {"bins_per_octave": own or 12}
    if own not in (None, given):
        key = f"augment.features.{name}.bins_per_octave"
        raise UserError(f"{key}={given}: the front-end has {own} bins an octave; take {key}=null, which follows it")
    return {}


def _follow_octaves(node: DictConfig) -> None:
    """Forget bins of octaves that an old checkpoint names whatever its front-end has: it is not trained here."""
    for item in (node.get("features") or {}).values():
        if item and "bins_per_octave" in item:
            item.bins_per_octave = None


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config as plain containers, fit for a weights-only checkpoint."""
    keys = [str(key) for key in cfg if key != "hydra"]
    bare = OmegaConf.masked_copy(cfg, keys)
    return cast(dict[str, Any], OmegaConf.to_container(bare, resolve=True, throw_on_missing=False))


def restore(cfg: DictConfig, overrides: list[str], judge: bool = False) -> tuple[Experiment, Path]:
    """Rebuild the experiment of ``cfg.ckpt``. The command line may change what its weights do not depend on.

    To `judge` it on another corpus, that is split by class where the checkpoint's own was.
    Raises UserError for a checkpoint that is missing, foreign or unsafe, and for an override it cannot obey.
    """
    if not cfg.ckpt:
        raise UserError("ckpt is missing: give the checkpoint, ckpt=outputs/RUN/checkpoints/best.ckpt")
    path = Path(cfg.ckpt)
    checkpoint = load_checkpoint(path)
    stored = OmegaConf.create(checkpoint["tonnetz"]["config"])
    _check_targets(stored, path)
    merged = merge_overrides(stored, cfg, overrides, judge)
    if "pretrained" in merged.model:
        merged.model.pretrained = False  # the weights are in the checkpoint
    spec = DataSpec.from_dict(checkpoint["tonnetz"]["spec"])
    with _of_this_version(path):
        frontend = connect(merged.frontend)
        connect(merged.task.plan)
    if fingerprint(frontend) != checkpoint["tonnetz"]["frontend"]:
        raise UserError(
            f"{path}: was made with another version of its front-end ({merged.frontend._target_}); train it anew"
        )
    _follow_octaves(merged.augment)
    data = build_data(merged, frontend, spec)
    with _of_this_version(path):
        task = build_task(merged, frontend, spec)
    try:
        task.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{path}: does not fit this version of the task ({_reason(error)}); train it anew") from None
    task.payload |= _learned(checkpoint) | {"selected_on": _selected_on(checkpoint)}
    data.plan = task.placed(data.plan)
    task.data = data
    return Experiment(merged, data, task.eval()), path


def _learned(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What the checkpoint's task was trained on, where it says (`tonnetz.learned`)."""
    return {key: value for key, value in checkpoint["tonnetz"].items() if key == "learned"}


def _selected_on(checkpoint: dict[str, Any]) -> str | None:
    """The split that chose the checkpoint; an old one tells which was asked to, by its config."""
    told = checkpoint["tonnetz"]
    split: str | None = told["selected_on"] if "selected_on" in told else told["config"]["data"].get("select")
    return split


@contextmanager
def _of_this_version(path: Path) -> Iterator[None]:
    """Name the checkpoint, and the remedy, where a class of this version does not take what it has stored."""
    try:
        yield
    except (UserError, ImportError) as error:
        reason = str(error) if isinstance(error, UserError) else _first_line(error)
        ours = isinstance(error.__cause__, InstantiationException | TypeError) or isinstance(error, ImportError)
        if not ours or "tonnetz" not in reason:  # an optional package may be missing
            raise
        raise UserError(f"{path}: was made by another version ({reason}); train it anew") from error


def _reason(error: RuntimeError) -> str:
    """The first weights that a checkpoint lacks, or has too many of."""
    return " ".join(str(error).split()).partition(": ")[2][:150]


def merge_overrides(stored: DictConfig, cfg: DictConfig, overrides: list[str], judge: bool = False) -> DictConfig:
    """The checkpoint's config with what the command line says about data, trainer, job and paths."""
    merged = stored.copy()
    for name in ("trainer", "job", "paths", "ckpt", "run"):
        merged[name] = cfg[name]
    chosen = dict(item.lstrip("+~").partition("=")[::2] for item in overrides)
    if "data" in chosen:
        merged.data = cfg.data
        if judge and "data.split" not in chosen and stored.data.get("split") == "classes":
            merged.data.split = "classes"  # a task of classes cannot be judged by another
    for key in chosen:
        group = key.split(".")[0].split("@")[0]
        if group in FROM_CHECKPOINT and not key.startswith(FREE):
            if group != "task" or "." in key:
                raise UserError(
                    f"{key}: is stored in the checkpoint and cannot be changed; only data, trainer, job and paths can"
                )
        elif ("." in key and group in ("data", "task") and "data" not in chosen) or key.startswith(FREE):
            OmegaConf.update(merged, key, OmegaConf.select(cfg, key))
    _check_task(stored, cfg, chosen)
    return merged


def _check_task(stored: DictConfig, cfg: DictConfig, chosen: dict[str, str]) -> None:
    if "task" in chosen and stored.task._target_ != cfg.task._target_:
        raise UserError(
            f"{cfg.ckpt}: is a checkpoint of {stored.task._target_}, not of task={chosen['task']}; leave task out"
        )


def _check_targets(node: Any, path: Path) -> None:
    """Refuse a checkpoint whose config would build anything but our own and torch's classes."""
    if isinstance(node, DictConfig):
        target = node.get("_target_")
        allowed = ("tonnetz.", "torch.nn.", "torch.optim.", "lightning.pytorch.Trainer")
        if target is not None and not str(target).startswith(allowed):
            raise UserError(f"{path}: names the foreign class {target}; refused")
        children: Any = [node._get_node(key) for key in node]
    elif isinstance(node, ListConfig):
        children = list(node)
    else:
        return
    for child in children:
        _check_targets(child, path)


def inherit(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The config with front-end and model of the checkpoint that ``init=`` names; what the command line chose stays.

    Raises UserError for a checkpoint that is missing, foreign or unsafe.
    """
    if not cfg.get("init"):
        return cfg
    path = Path(cfg.init)
    stored = OmegaConf.create(load_checkpoint(path)["tonnetz"]["config"])
    _check_targets(stored, path)
    inherited = cfg.copy()
    chosen = [item.lstrip("+~").partition("=")[0] for item in overrides]
    for group in ("frontend", "model"):
        if group in chosen:
            continue
        inherited[group] = stored[group]
        if "pretrained" in inherited[group]:
            inherited[group].pretrained = False  # the weights are in the checkpoint
        for key in (key for key in chosen if key.startswith(f"{group}.")):
            OmegaConf.update(inherited, key, OmegaConf.select(cfg, key))
        if inherited[group] != cfg[group]:
            print(f"init: {group} {stored[group]._target_.rpartition('.')[2]} as in {path}")
    return inherited


def load_encoder(task: Task, path: str) -> None:
    """Start from the encoder of a checkpoint (``init=``). Raises UserError when shapes or front-end differ."""
    checkpoint = load_checkpoint(Path(path))
    own = task.payload["frontend"]
    if checkpoint["tonnetz"]["frontend"] != own:
        theirs = checkpoint["tonnetz"]["config"]["frontend"]
        raise UserError(f"init={path}: its front-end is {theirs}; leave frontend out")
    weights = {k.removeprefix("encoder."): v for k, v in checkpoint["state_dict"].items() if k.startswith("encoder.")}
    try:
        task.encoder.load_state_dict(weights)
    except RuntimeError as error:
        theirs, ours = checkpoint["tonnetz"]["config"]["model"], task.payload["config"]["model"]
        detail = difference(theirs, ours) if theirs != ours else _first_line(error)
        raise UserError(f"init={path}: its encoder has model: {detail}; leave model out") from None
    task.payload |= _learned(checkpoint)


def load_warm(task: Task, path: str, moments: bool = True) -> None:
    """Take over all weights of a checkpoint, heads too (``warm=weights``), and its optimizer's state (``all``)."""
    checkpoint = load_checkpoint(Path(path))
    own, weights = task.state_dict(), checkpoint["state_dict"]
    fits = own.keys() == weights.keys() and all(own[k].shape == v.shape for k, v in weights.items())
    if not fits or (moments and not checkpoint.get("optimizer_states")):
        raise UserError(
            f"warm: {path} is no checkpoint of this very model and data, or holds no optimizer state; take warm=null"
        )
    stored = DataSpec.from_dict(checkpoint["tonnetz"]["spec"])
    theirs, ours = (found.groups or found.classes for found in (stored, task.spec))
    odd = odd_one(theirs, ours)
    if odd and any(v.numel() >= len(ours) for k, v in own.items() if not k.startswith(SHARED)):
        kind = "groups" if task.spec.groups else "classes"
        raise UserError(f"warm: {path} has weights for other {kind}: {odd}; take warm=null")
    task.load_state_dict(weights)
    if moments:
        task.warm_state = checkpoint["optimizer_states"][0]


def odd_one(stored: Sequence[str], found: Sequence[str]) -> str | None:
    """Say which name stands in one of two lists only: in the checkpoint's or in the data's."""
    odd = set(stored) ^ set(found)
    if not odd:
        return None if list(stored) == list(found) else "their order differs"
    name = min(odd)
    return f"'{name}' is {'not in the data' if name in stored else 'new in the data'}"


def difference(old: Any, new: Any) -> str:
    """Name the first key in which two plain configs differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return f"{key} {difference(old.get(key), new.get(key))}"
    return f"{old} (now {new})"


def build_trainer(cfg: DictConfig, **keywords: Any) -> Any:
    """The Lightning trainer of the `trainer` node."""
    try:
        make = instantiate(cfg.trainer, _partial_=True, _convert_="all")
        if cfg.trainer.get("sync_batchnorm"):
            from tonnetz.sync import SyncBatchNorm

            keywords["plugins"] = [*(make.keywords.get("plugins") or []), SyncBatchNorm()]
        return make(**keywords)
    except Exception as error:
        if type(error).__name__ == "MisconfigurationException":
            raise UserError(f"trainer: {_first_line(error)}") from None
        raise
