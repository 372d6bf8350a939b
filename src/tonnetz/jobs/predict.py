"""job=predict: label files, folders or the files of a CSV; JSON Lines and CSV with a timeline of windows."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from tonnetz import web
from tonnetz.atomic import replacing
from tonnetz.build import Experiment, restore
from tonnetz.data.recordings import find_recordings
from tonnetz.device import choose_device
from tonnetz.embedding import file_batches
from tonnetz.errors import UserError
from tonnetz.manifest import Run
from tonnetz.metrics.classification import aggregate
from tonnetz.predictions import show, write_predictions
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet


@web.fetching()
def run(cfg: DictConfig, run: Run) -> None:
    """Write `predictions.jsonl` and `predictions.csv` (and `timeline.csv`) into the run folder."""
    quiet()
    paths = find_recordings(_inputs(cfg))
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    if not hasattr(experiment.task, "probabilities"):
        raise UserError(f"job=predict: {type(experiment.task).__name__} gives no class probabilities; try job=embed")
    found, errors = predict(experiment, paths, choose_device(cfg.trainer.accelerator))
    write_predictions(run.folder, found, experiment.task.spec.classes, cfg.job.timeline)
    show(found)
    print(f"{len(found)} of {len(paths)} files labelled: {run.folder / 'predictions.jsonl'}")
    run.facts["files"] = {"labelled": len(found), "bad": len(errors)}
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(found))


def _inputs(cfg: DictConfig) -> list[str]:
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(cfg.job, "inputs"):
        raise UserError("job.inputs is missing: give files, folders or CSV files, job.inputs=[FILE,FOLDER]")
    inputs = cfg.job.inputs
    return [inputs] if isinstance(inputs, str) else list(inputs)


def predict(
    experiment: Experiment, paths: list[str], device: torch.device
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Judge recordings window by window. Returns one dict a usable file, and path -> reason of the others."""
    task: Any = experiment.task.to(device).eval()
    data = experiment.data
    bad: dict[int, str] = {}
    parts: list[tuple[Tensor, ...]] = []
    with torch.inference_mode(), progress_bar("predicting") as advance:
        for batch in file_batches(experiment, paths, data.plan, bad):
            prob = task.probabilities(task({key: value.to(device) for key, value in batch.items()}))
            step = data.frontend.hop if "features" in batch else 1
            end = batch["start"] + batch["lengths"] * step / data.frontend.sample_rate
            parts.append((prob.cpu(), batch["row"], batch["start"], end))
            advance(int(batch["row"][-1]) + 1, len(paths))
    errors = {paths[i]: reason for i, reason in bad.items()}
    if not parts:
        return [], errors
    prob, row, start, end = (torch.cat(values) for values in zip(*parts, strict=True))
    rows, index = row.unique(return_inverse=True)
    by_file = aggregate(prob, index, len(rows), task.aggregate)
    decided = task.decide(by_file)
    classes = task.spec.classes
    found = []
    for i, file in enumerate(rows.tolist()):
        mine = index == i
        order = by_file[i].argsort(descending=True).tolist()
        found.append(
            {
                "path": paths[file],
                "labels": [classes[k] for k in order if decided[i, k]],
                "probabilities": {classes[k]: round(by_file[i, k].item(), 6) for k in order},
                "start": start[mine].tolist(),
                "end": end[mine].tolist(),
                "windows": prob[mine],  # (n, K)
            }
        )
    return found, errors


def report_bad(errors: dict[str, str], folder: Path, on_error: str, good: int, each: bool = False) -> None:
    """List bad files; raise UserError unless the user wants to skip them and something is left.

    The first is named, or `each` of them in a line of its own beside good ones.
    """
    if not errors:
        return
    with replacing(folder / "skipped.csv") as part, part.open("w", newline="") as file:
        reasons = [[path, reason.removeprefix(f"{path}: ")] for path, reason in errors.items()]
        csv.writer(file).writerows([["path", "reason"], *reasons])
    message, *others = errors.values()
    if others:
        count = f"{len(errors)} bad files in all, listed in {folder / 'skipped.csv'}"
        if each and good:
            print(*(f"left out: {reason}" for reason in errors.values()), sep="\n", file=sys.stderr)
            message = count
        else:
            message = f"{message} ({count})"
    if on_error == "fail" or not good:
        kept = "; the results of the others are kept (data.on_error=skip: this is no error)" if each and good else ""
        raise UserError(f"{message}{kept}")
    print(f"left out: {message}", file=sys.stderr)
