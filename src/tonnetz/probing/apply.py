"""What a probe run is good for afterwards: the probe that it chose answers for other recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from tonnetz.build import Experiment, restore
from tonnetz.embedding import model_fingerprint
from tonnetz.errors import UserError
from tonnetz.manifest import Run, write_csv
from tonnetz.predictions import show, write_predictions
from tonnetz.probing.baselines import subjects
from tonnetz.probing.features import Features, concatenated, extract, plan_within, summable
from tonnetz.probing.goal import Goal
from tonnetz.probing.lead import best
from tonnetz.probing.search import evaluation_examples, read_kept, unit_of
from tonnetz.probing.slices import Slices
from tonnetz.tracks import SPLITS


def apply(cfg: DictConfig, run: Run, device: torch.device) -> None:
    """Write what the best probe of the run ``job.apply`` says of all tracks of `data`, whatever their labels.

    Classes: predictions.jsonl and .csv, as job=predict writes them. Numbers: predictions.csv. Raises UserError for a
    folder that no probe run has left, or that probed something else than the checkpoint.
    """
    folder = Path(cfg.job.apply)
    facts, row = read_run(folder)
    subject = find_subject(cfg, folder, facts)
    frame = pl.concat([subject.data.split(split) for split in SPLITS], how="diagonal_relaxed")
    features = features_like(subject, frame, facts, row, device)
    goal = Goal(**{**facts["goal"], "names": tuple(facts["goal"]["names"])})
    unit = unit_of(frame, facts["unit"])
    score = answers(goal, features, unit, row, facts, folder)
    name = facts["unit"] or "id"
    first = np.unique(unit.numpy(), return_index=True)[1]
    places = list(frame[first].select(pl.col(name).alias("id"), "path").iter_rows(named=True))
    if goal.kind == "number":
        names = [f"predicted_{column}" for column in goal.names]
        rows = [dict(zip(names, values, strict=True)) for values in score.T.tolist()]
        write_csv(run.folder / "predictions.csv", [{**place, **one} for place, one in zip(places, rows, strict=True)])
    else:
        found = [{**place, **judgement(goal, each)} for place, each in zip(places, score.T, strict=True)]
        write_predictions(run.folder, found, goal.names, timeline=False)
        show(found)
    what = "tracks" if name == "id" else f"values of '{name}'"
    print(f"{row['features']} of {folder}: {len(places)} {what} judged: {run.folder / 'predictions.csv'}")


def read_run(folder: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What a probe run says of itself, and the row that validation would choose, of all labels if it is there."""
    path = folder / "probe.json"
    if not path.is_file():
        raise UserError(f"job.apply={folder}: has no probe.json; give the folder of a finished run of job=probe")
    facts: dict[str, Any] = json.loads(path.read_text())
    rows = [row for row in subjects(facts["rows"]) if row.get("of")]
    if not rows:
        raise UserError(f"{path}: no probe of a checkpoint that can be used again; run job=probe ckpt=... anew")
    most = max(row["fraction"] for row in rows)
    return facts, best([row for row in rows if row["fraction"] == most])


def find_subject(cfg: DictConfig, folder: Path, facts: Mapping[str, Any]) -> Experiment:
    """The checkpoint that was probed, with the data of the command line. Raises UserError when it is another."""
    cfg.ckpt = cfg.ckpt or facts["checkpoint"]
    if not Path(cfg.ckpt).is_file():
        raise UserError(f"{cfg.ckpt}: the checkpoint that {folder} has probed is not there; say where, ckpt=FILE")
    subject, path = restore(cfg, list(HydraConfig.get().overrides.task))
    if model_fingerprint(subject.task) != facts["model"]:
        raise UserError(f"ckpt={path}: is not the encoder that {folder} has probed; leave ckpt out, or probe this one")
    return subject


def features_like(
    subject: Experiment, frame: pl.DataFrame, facts: Mapping[str, Any], row: Mapping[str, Any], device: torch.device
) -> Features:
    """Features of other tracks, made as those of a row were."""
    slices = Slices(**facts["slices"]) if facts["slices"] else None
    plan = plan_within(subject, facts["window"], facts["hop"], slices)
    parts = list(extract(subject, {"test": frame}, row["of"], plan, facts["tail"], device, slices=slices).values())
    if len(parts) == 1:
        return parts[0]
    return (summable if "taps" in row else concatenated)(parts, row["features"])


def answers(
    goal: Goal, features: Features, unit: Tensor, row: Mapping[str, Any], facts: Mapping[str, Any], folder: Path
) -> Tensor:
    """Chances of classes, or numbers, (K, U) of every unit; `unit` (N,) says of which a track is part."""
    rule, nothing, count = row["rule"], torch.zeros(len(unit)), len(unit.unique())
    examples = evaluation_examples(features, "test", nothing, unit, (rule,), facts["settings"]["train"])
    _, probe = read_kept(folder / "parts" / row["weights"])
    part = torch.arange(count) if examples.unit is None else examples.unit
    return goal.answers(goal.join(probe.outputs(0, examples.x)[None], part, count, rule)[0], rule)


def judgement(goal: Goal, chances: Tensor) -> dict[str, Any]:
    """Labels and chances (K,) of a track: the likeliest class, or all that are likelier than not."""
    order = chances.argsort(descending=True).tolist()
    chosen = [k for k in order if chances[k] > 0.5] if goal.kind == "multilabel" else order[:1]
    return {
        "labels": [goal.names[k] for k in chosen],
        "probabilities": {goal.names[k]: round(chances[k].item(), 6) for k in order},
    }
