"""job=average: one model from the mean weights of several checkpoints; and what an ensemble needs of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tonnetz.atomic import replacing
from tonnetz.averaging import average_checkpoints, average_distances, refresh, save
from tonnetz.build import Experiment, build_trainer, restore
from tonnetz.checkpoint import load_checkpoint
from tonnetz.errors import UserError
from tonnetz.manifest import Run, write_json
from tonnetz.quiet import quiet
from tonnetz.report import Scores, show_table


def run(cfg: DictConfig, run: Run) -> float:
    """Average ``job.ckpts``, test the mean and each of them; returns the score of the mean."""
    quiet()
    job = cfg.job
    out = run.folder / "checkpoints" / "best.ckpt"
    average_checkpoints(list(job.ckpts), out, job.weights)
    scores: Scores = {"averaged weights": score_weights(cfg, out, job.refresh, run.folder, job.split)}
    for path in job.ckpts if job.members else ():
        scores[f"{Path(path).parents[1].name}/{Path(path).name}"] = evaluated(
            restored(cfg, Path(path)), run.folder, job.split
        )["values"]
    write_json(run.folder / "metrics.json", scores)
    show_table(scores, f"files of the {job.split} split")
    values = scores["averaged weights"]
    run.facts |= {"best": str(out), "metrics": {f"test/{k}": v for k, v in values.items()}}
    return next(iter(values.values()))


def restored(cfg: DictConfig, path: Path) -> Experiment:
    """The experiment of a checkpoint on all data of its corpus, with every track outside the test split to train on."""
    own = cfg.copy()
    OmegaConf.set_struct(own, False)
    own.ckpt = str(path)
    own.data.fold = "all"
    return restore(own, ["data.fold=all"])[0]


def score_weights(cfg: DictConfig, path: Path, batches: int, folder: Path, split: str = "test") -> dict[str, float]:
    """Estimate batch normalisation of an averaged checkpoint anew, store it, and test it."""
    experiment = restored(cfg, path)
    task: Any = experiment.task
    refresh(task, experiment.data.train_dataloader(), batches)
    save({**load_checkpoint(path), "state_dict": task.state_dict()}, path)
    found: dict[str, float] = evaluated(experiment, folder, split)["values"]
    return found


def evaluated(experiment: Experiment, folder: Path, split: str = "test") -> dict[str, Any]:
    """What a test of a restored experiment found."""
    data, task = experiment.data, experiment.task
    task.tested = split
    trainer = build_trainer(experiment.cfg, logger=False, callbacks=[], default_root_dir=folder)
    data.trainer = trainer
    trainer.test(task, data.windows(split), verbose=False)
    return task.outcome["test"]


def score_distances(cfg: DictConfig, paths: Sequence[Path], folder: Path) -> Scores:
    """Test members of an ensemble, and the mean of the distances that they find; the latter stands last."""
    scores: Scores = {}
    results = []
    for path in paths:
        experiment = restored(cfg, path)
        found = evaluated(experiment, folder)
        if "result" not in found:
            raise UserError("job.average=distances: this task finds no distances; take job.average=weights or none")
        scores[path.parent.parent.name] = found["values"]
        results.append(found["result"])
    task: Any = experiment.task
    exclude = experiment.data.roles("test").get("exclude")
    scores["ensemble"] = average_distances(results, exclude, task.compat, task.rounds).values
    return scores


def publish(path: Path, target: Path) -> None:
    """Put a file of a part where the whole run's is looked for."""
    with replacing(target) as part:
        shutil.copyfile(path, part)
