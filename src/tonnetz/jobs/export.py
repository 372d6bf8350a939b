"""job=export: the network as ONNX or TorchScript, or a checkpoint for the original CoverHunter, CLMR or TUNe."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn

from tonnetz import clmr, coverhunter
from tonnetz.atomic import replacing
from tonnetz.build import Experiment, restore
from tonnetz.checkpoint import load_checkpoint
from tonnetz.errors import UserError, suggest
from tonnetz.frontend import fingerprint
from tonnetz.manifest import Run, write_json
from tonnetz.quiet import quiet
from tonnetz.tasks.optimizer import parameter_groups

FORMATS = ("onnx", "torchscript", "coverhunter", "clmr")
INPUTS = ("features", "audio")
OUTPUTS = {"vector": "encoder", "scores": "classifier"}  # and the names of their files


def run(cfg: DictConfig, run: Run) -> None:
    """Write the encoder of ``cfg.ckpt`` to the run's folder, checked against this framework's own vectors."""
    quiet()
    _check(cfg.job)
    experiment, path = restore(cfg, list(HydraConfig.get().overrides.task))
    if cfg.job.format in ("coverhunter", "clmr"):
        write = write_coverhunter if cfg.job.format == "coverhunter" else write_clmr
        files = write(experiment, path, run.folder)
        print("\n".join(f"{file}" for file in files))
        run.facts |= {"ckpt": str(path), "files": [file.name for file in files]}
        return
    segment = whole(experiment.task)
    network = {"vector": Network, "scores": Scores}[cfg.job.output](experiment, cfg.job.input).eval()
    suffix, trace = {"onnx": (".onnx", to_onnx), "torchscript": (".pt", to_torchscript)}[cfg.job.format]
    examples = [example(experiment, cfg.job.input, *size) for size in ((2, 1.0), (1, 0.63), (3, 1.37))]
    with torch.no_grad():
        expected = [answer(experiment.task, batch(x, cfg.job.input), cfg.job.output) for x in examples]
    name = OUTPUTS[cfg.job.output]
    file = run.folder / f"{name}{suffix}"
    with replacing(file) as part:
        forward = trace(network, examples[0], part, cfg.job)
        error = compare(forward, examples, expected, cfg.job)
    facts = describe(experiment, cfg.job, examples[0], expected[0])
    facts |= {"segment": segment, "ckpt": str(path), "difference": error}
    write_json(run.folder / f"{name}.json", facts)
    size = file.stat().st_size / 2**20
    print(f"{file}: {size:.1f} MB, {cfg.job.input} {facts['shape']} to {cfg.job.output} {facts[cfg.job.output]}")
    print(f"checked on {len(examples)} inputs of other lengths: largest relative difference {error:.1e}")
    if segment:
        print(f"one input is one vector: give it segments of {segment} s, as the task cuts them")
    run.facts |= facts


def answer(task: Any, batch: dict[str, Tensor], output: str) -> Tensor:
    """What the task itself makes of a batch: vectors (B, D), or probabilities of the classes (B, K)."""
    return (task.embed(batch) if output == "vector" else task.probabilities(task(batch))).float()


def whole(task: Any) -> float | None:
    """Make the task give one vector to a whole input; return the seconds of the segments that it would cut."""
    segment = getattr(task, "segment", None)
    if segment is not None:
        task.segment = None
    return segment


def _check(job: DictConfig) -> None:
    for key, known in (("format", FORMATS), ("input", INPUTS), ("output", tuple(OUTPUTS))):
        if job[key] not in known:
            raise UserError(f"job.{key}={job[key]}: unknown{suggest(job[key], known)}")
    if job.output == "scores" and job.format not in FORMATS[:2]:
        raise UserError(f"job.output=scores: needs job.format=onnx or torchscript; {job.format} holds weights alone")
    for name in ("onnx", "onnxscript", "onnxruntime") if job.format == "onnx" else ():
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(
                f"job.format=onnx needs the package {name}; pip install 'tonnetz[export]', or job.format=torchscript"
            ) from None


class Network(nn.Module):
    """Features (B, C, F, T) or audio (B, 1, N), all of it valid, to vectors (B, D)."""

    def __init__(self, experiment: Experiment, source: str) -> None:
        super().__init__()
        task: Any = experiment.task
        if not hasattr(task, "pooling"):
            raise UserError(f"job=export: {type(task).__name__} has no pooled vector to export")
        self.frontend = task.encoder.frontend if source == "audio" else nn.Identity()
        self.backbone, self.pooling = task.encoder.backbone, task.pooling
        self.tail = task.tail()

    def forward(self, x: Tensor) -> Tensor:
        """Map x to vectors (B, D) as the task's ``embed`` does."""
        return self.tail(self.pooling(self.backbone(self.frontend(x), None), None).float())


class Scores(Network):
    """Features or audio, all of it valid, to the probabilities of the classes (B, K) that the task's head gives."""

    def __init__(self, experiment: Experiment, source: str) -> None:
        super().__init__(experiment, source)
        task: Any = experiment.task
        if not hasattr(task, "probabilities"):
            raise UserError(f"job.output=scores: {type(task).__name__} has no head for classes; take job.output=vector")
        self.head, self.probabilities = task.head, task.probabilities

    def forward(self, x: Tensor) -> Tensor:
        """Map x to probabilities (B, K) in the order of the task's classes."""
        return self.probabilities(self.head(super().forward(x)))


def example(experiment: Experiment, source: str, count: int, scale: float) -> Tensor:
    """Noise of ``scale`` times the task's excerpt, as audio (B, 1, N) or features (B, C, F, T)."""
    frontend = experiment.task.encoder.frontend
    seconds = max(1.0, min(20.0, experiment.data.plan.span))  # any length will do; short ones are quick
    random = torch.Generator().manual_seed(count)
    audio = 0.1 * torch.randn(count, 1, int(scale * seconds * frontend.sample_rate), generator=random)
    with torch.no_grad():
        return audio if source == "audio" else frontend(audio)


def batch(x: Tensor, source: str) -> dict[str, Tensor]:
    """A batch of whole examples as the task takes it."""
    count = len(x)
    facts = {"lengths": torch.full((count,), x.shape[-1]), "row": torch.arange(count), "start": torch.zeros(count)}
    return {source: x, **facts}


Forward = Callable[[Tensor], Tensor]


def to_torchscript(network: nn.Module, x: Tensor, file: Path, job: DictConfig) -> Forward:
    """Trace the network, write it, and return what a reader of the file computes."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of sizes; the comparison on other lengths decides
        try:
            traced = torch.jit.trace(network, x, check_trace=False)
        except Exception as error:  # the tracer raises whatever the network's code runs into
            raise UserError(
                f"job.format=torchscript: cannot trace this {job.input} network ({_line(error)})"
            ) from error
        torch.jit.save(traced, str(file))
        return torch.jit.load(str(file), map_location="cpu")


def to_onnx(network: nn.Module, x: Tensor, file: Path, job: DictConfig) -> Forward:
    """Export the network with free batch and time axes, write it, and return what ONNX Runtime computes."""
    import onnxruntime

    free = {0: torch.export.Dim.DYNAMIC, x.ndim - 1: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network,
                (x,),
                input_names=[job.input],
                output_names=[job.output],
                dynamic_shapes=(free,),
                opset_version=job.opset,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # torch.export raises whatever the network's code runs into
            remedy = "job.input=features leaves the front-end out; job.format=torchscript may work"
            raise UserError(
                f"job.format=onnx: cannot export this {job.input} network ({_line(error)}); {remedy}"
            ) from None
        assert program is not None
        program.save(str(file), external_data=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {job.input: x.numpy()})[0])


def _line(error: BaseException) -> str:
    """The first telling line of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def compare(forward: Forward, examples: list[Tensor], expected: list[Tensor], job: DictConfig) -> float:
    """Largest difference to what is expected, relative to their largest value. Raises UserError when too large."""
    worst = 0.0
    for x, vectors in zip(examples, expected, strict=True):
        try:
            with torch.no_grad():
                found = forward(x).float()
        except Exception as failure:  # runtimes have error classes of their own
            raise UserError(
                f"job.format={job.format}: the exported network fails on {tuple(x.shape)} ({_line(failure)}); "
                "take another job.format or job.input=features"
            ) from None
        same = found.shape == vectors.shape
        error = float((found - vectors).abs().max() / vectors.abs().max().clamp(min=1e-12)) if same else float("inf")
        if not error <= job.tolerance:
            raise UserError(
                f"job.format={job.format}: the exported network differs by {error:.1e} on {tuple(x.shape)} "
                f"(job.tolerance={job.tolerance}); take another job.format or job.input=features"
            )
        worst = max(worst, error)
    return worst


def describe(experiment: Experiment, job: DictConfig, x: Tensor, answer: Tensor) -> dict[str, Any]:
    """What a program needs to know to use the file."""
    frontend = experiment.task.encoder.frontend
    free = ["batch", *x.shape[1:-1], "samples" if job.input == "audio" else "frames"]
    return {
        "format": job.format,
        "input": job.input,
        "shape": free,
        job.output: ["batch", answer.shape[1]],
        **(_classes(experiment) if job.output == "scores" else {}),
        "sample_rate": frontend.sample_rate,
        "hop": frontend.hop,
        "bins": frontend.bins,
        "frontend": experiment.task.payload["config"]["frontend"],
        "frontend_fingerprint": fingerprint(frontend),
    }


def _classes(experiment: Experiment) -> dict[str, Any]:
    """How the scores are to be read: of windows so long, whose probabilities make those of a file."""
    task: Any = experiment.task
    return {
        "classes": list(task.spec.classes),
        "activation": task.criterion.activation,
        "thresholds": task.thresholds.tolist() if task.spec.multilabel else None,  # null: the most probable class
        "window_seconds": experiment.data.plan.span,
        "aggregate": task.aggregate,
    }


def write_coverhunter(experiment: Experiment, ckpt: Path, folder: Path) -> list[Path]:
    """Write ``g_EPOCH`` and, with the moments of AdamW in the checkpoint, ``do_EPOCH``, for the original code."""
    task = experiment.task
    if list(getattr(task, "projection", nn.Identity()).parameters()):
        raise UserError("job.format=coverhunter: that network has no projection after the pooling; this one has")
    checkpoint = load_checkpoint(ckpt)
    names, extra = coverhunter.task_names(task), checkpoint.get("coverhunter", {})
    own = {names[key]: value for key, value in checkpoint["state_dict"].items() if key in names}
    state = coverhunter.to_coverhunter({**own, **extra.get("unplaced", {})})
    step, epoch = int(checkpoint.get("global_step", 0)), int(checkpoint.get("epoch", 0))
    files = [folder / f"g_{epoch:08d}"]
    with replacing(files[0]) as part:
        torch.save({"generator": state}, part)
    moments = {**own_moments(checkpoint, task, names), **extra.get("moments", {})}
    if moments:
        group = {k: v for k, v in checkpoint["optimizer_states"][0]["param_groups"][0].items() if k != "params"}
        optimizer = coverhunter.optimizer_to_coverhunter(moments, state, extra.get("group", group))
        files.append(folder / f"do_{epoch:08d}")
        with replacing(files[1]) as part:
            torch.save({"optim_g": optimizer, "steps": step, "epoch": epoch, **extra.get("progress", {})}, part)
    return files


def own_moments(checkpoint: dict[str, Any], task: nn.Module, names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Name in tonnetz.coverhunter -> moments of Adam in the checkpoint; nothing of another optimizer."""
    keys = {id(parameter): key for key, parameter in task.named_parameters()}
    order = [keys[id(p)] for group in parameter_groups(task, 0.0) for p in group["params"]]
    states = [item for item in checkpoint.get("optimizer_states", []) if item["state"]][:1]
    found = {order[int(index)]: value for item in states for index, value in item["state"].items()}
    return {names[key]: value for key, value in found.items() if key in names and "exp_avg_sq" in value}


def write_clmr(experiment: Experiment, ckpt: Path, folder: Path) -> list[Path]:
    """Write ``clmr.pt``, a state dict with ``encoder.`` and ``projector.`` as CLMR and TUNe load it."""
    task = experiment.task
    heads, left = clmr.heads_of(task)
    kept = load_checkpoint(ckpt).get("clmr", {}).get("unplaced", {})  # the classifier of an imported file
    state = {f"encoder.{name}": value for name, value in {**kept, **clmr.to_clmr(task.encoder.backbone)}.items()}
    file = folder / "clmr.pt"
    with replacing(file) as part:
        torch.save({**state, **heads}, part)
    if left:
        print(f"left out, for that layout has no place for it: {', '.join(left)}")
    return [file]
