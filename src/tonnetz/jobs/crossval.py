"""job=crossval: K folds in a relay and a final run on everything, an ensemble of folds, or everything at once."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from tonnetz.atomic import replacing
from tonnetz.averaging import average_checkpoints
from tonnetz.checkpoint import load_checkpoint
from tonnetz.crossval import FINAL, Outcome, Rules, State, Step
from tonnetz.errors import UserError, suggest
from tonnetz.jobs import fit
from tonnetz.jobs.average import publish, score_distances, score_weights
from tonnetz.manifest import Run, first_process, record, write_json
from tonnetz.report import show_table
from tonnetz.runs import add_mean, histories, leaders
from tonnetz.tasks.base import Task

AVERAGES = ("distances", "weights", "none")


def run(cfg: DictConfig, run: Run) -> float:
    """Train all folds that are left; returns the score that sweeps select on.

    That is the mean over an ensemble's folds. In a relay only the first fold is judged on recordings that its weights
    have never seen, so it is that fold's, unless sets with role=stop judge the final run.
    """
    job = cfg.job
    if job.average not in AVERAGES:
        raise UserError(f"job.average={job.average}{suggest(job.average, AVERAGES)}")
    state = State.open(run.folder / "state.json", rules_of(cfg))
    complete = state.advance(partial(train, cfg, run, state))
    if first_process():
        report(cfg, run, state)
    run.facts["runs"] = {outcome.name: asdict(outcome) for outcome in state.finished}
    if not complete:
        run.status = "interrupted"
        return math.nan
    finished = state.finished
    if job.mode == "ensemble":
        finish_ensemble(cfg, run, finished)
        scores = [outcome.score for outcome in finished if outcome.score is not None]
        score = statistics.fmean(scores) if scores else None
    else:
        finish_final(run)
        score = finished[0].score if finished[-1].score is None else finished[-1].score
    run.facts["score"] = math.nan if score is None else score
    return float(run.facts["score"])


def rules_of(cfg: DictConfig) -> Rules:
    """The rules that the config states."""
    job = cfg.job
    given = {name: job[name] for name in ("mode", "folds", "floor", "anchor", "position")}
    steady = cfg.optimizer._target_.endswith(".prodigy")
    return Rules(**given, rate=cfg.optimizer.lr, steady=steady, best=task_of(cfg).mode)


def task_of(cfg: DictConfig) -> type[Task]:
    """The class of the task."""
    return get_class(cfg.task._target_)


def train(cfg: DictConfig, parent: Run, state: State, step: Step) -> Outcome | None:
    """Do one run in its own folder, or go on with it; none when somebody stopped it."""
    folder = parent.folder / step.name
    print(f"{step.name} of {', '.join(state.rules.names)}: rate {step.rate:.3g}, from {step.start or 'scratch'}")
    own = config_of(cfg, parent.folder, state, step)
    with record(own, folder, parent) as part:
        score = fit.run(own, part)
    if part.status == "interrupted":
        return None
    chosen = load_checkpoint(part.facts["best"])
    rate = chosen["optimizer_states"][0]["param_groups"][0]["lr"]
    return Outcome(step.name, None if math.isnan(score) else score, chosen["epoch"], rate)


def config_of(cfg: DictConfig, folder: Path, state: State, step: Step) -> DictConfig:
    """The config of one run."""
    job, own = cfg.job, cfg.copy()
    OmegaConf.set_struct(own, False)
    last = step.name == FINAL
    changes: dict[str, Any] = {
        "run": f"{cfg.run}/{step.name}",
        "optimizer.lr": step.rate,
        "data.folds": job.folds,
        "data.fold": "all" if step.fold is None else step.fold,
        "data.fold_by": job.by,
        "job.test": job.test and last,
        "job.baseline": job.baseline and last,
    }
    if cfg.get("init"):
        changes["aligner"] = cfg.init  # an alignment is checked against the model that the first fold starts from
    if step.start is not None:
        changes |= {"init": str(folder / step.start / "checkpoints" / "best.ckpt")}
        changes |= {"warm": "all" if job.warm else "weights"}
        changes |= schedule_changes(cfg, last)
    if last and job.mode == "relay":
        changes |= {"job.patience": job.final_patience, "trainer.max_epochs": final_epochs(cfg, state)}
    for key, value in changes.items():
        OmegaConf.update(own, key, value)
    return own


def schedule_changes(cfg: DictConfig, last: bool) -> dict[str, Any]:
    """What folds after the first have another schedule in. Raises UserError when the schedule has no such key."""
    asked = {"hold": cfg.job.hold, "gamma": cfg.job.final_gamma if last else cfg.job.gamma}
    chosen = {key: value for key, value in asked.items() if value is not None}
    for key in chosen:
        if key not in cfg.schedule:
            raise UserError(f"job.{'final_' * (last and key == 'gamma')}{key}: needs schedule=decay, which has {key}")
    return {f"schedule.{key}": value for key, value in chosen.items()}


def final_epochs(cfg: DictConfig, state: State) -> int:
    """Epochs of the final run."""
    if cfg.job.final_epochs:
        return int(cfg.job.final_epochs)
    if any(entry.get("role") == "stop" for entry in cfg.data.sets.values()):
        return int(cfg.trainer.max_epochs)
    folds = [outcome.epoch + 1 for outcome in state.finished if outcome.name != FINAL]
    return max(1, round(statistics.fmean(folds)))


def finish_final(run: Run) -> None:
    """Put the results of the final run where those of a plain run are."""
    last = run.folder / FINAL
    facts = json.loads((last / "manifest.json").read_text())
    run.facts |= {"metrics": facts.get("metrics", {}), "best": str(run.folder / "checkpoints" / "best.ckpt")}
    if first_process():
        publish(last / "checkpoints" / "best.ckpt", run.folder / "checkpoints" / "best.ckpt")
        publish(last / "metrics.json", run.folder / "metrics.json")


def finish_ensemble(cfg: DictConfig, run: Run, finished: list[Outcome]) -> None:
    """Test what the members are together."""
    members = [run.folder / outcome.name / "checkpoints" / "best.ckpt" for outcome in finished]
    run.facts["members"] = [str(path) for path in members]
    if cfg.job.average == "weights":
        averaged = run.folder / "checkpoints" / "best.ckpt"
        average_checkpoints(members, averaged)
        scores = {"averaged weights": score_weights(cfg, averaged, cfg.job.refresh, run.folder)}
    elif cfg.job.average == "distances" and cfg.job.test:
        scores = score_distances(cfg, members, run.folder)
    else:
        return
    run.facts["metrics"] = {f"test/{k}": v for k, v in list(scores.values())[-1].items()}
    if first_process():
        write_json(run.folder / "metrics.json", scores)
        show_table(scores, "files of the test split")


def report(cfg: DictConfig, run: Run, state: State) -> None:
    """Write all epochs of all runs so far (epochs.csv); write and print the best by every set and by their mean."""
    task = task_of(cfg)
    frame = histories({name: run.folder / name for name in state.rules.names})
    if not frame.height:
        return
    frame = add_mean(frame, task.monitor, task.score)
    with replacing(run.folder / "epochs.csv") as part:
        frame.write_csv(part)
    sets = [name for name in frame.columns if name.startswith("sets/") and name.endswith(f"/{task.score}")]
    columns = [*(name for name in [task.monitor] if name in frame.columns), *sets, *(["mean"] if sets else [])]
    found = leaders(frame, columns, task.mode)
    write_json(run.folder / "epochs.json", found)
    table = Table("best by", "run", "epoch", "minutes", *columns, title="best epochs")
    for column in columns:
        for row in found[column]:
            cells = ("" if row[name] is None else f"{row[name]:.4f}" for name in columns)
            table.add_row(column, row["run"], str(row["epoch"]), f"{row['elapsed'] / 60:.1f}", *cells)
    Console().print(table)
