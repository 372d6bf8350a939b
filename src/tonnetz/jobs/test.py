"""job=test: score a checkpoint on a split of its own corpus or of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from safetensors.torch import save_file

from tonnetz.atomic import replacing
from tonnetz.build import build_trainer, restore
from tonnetz.callbacks import Dashboard, History
from tonnetz.errors import UserError
from tonnetz.jobs.prepare import show, summary
from tonnetz.manifest import Run
from tonnetz.metrics.ranking import KEPT
from tonnetz.quiet import quiet
from tonnetz.report import show_scores, write_scores


def run(cfg: DictConfig, run: Run) -> float:
    """Print and write the scores of ``cfg.ckpt``; its thresholds are used as they are."""
    quiet()
    experiment, path = restore(cfg, list(HydraConfig.get().overrides.task), judge=True)
    data, task, split = experiment.data, experiment.task, cfg.job.split
    known = ("train", "valid", "test", *data.sets)
    if split not in known:
        raise UserError(f"job.split={split}: known are {', '.join(known)}")
    task.tested = split
    show(data)
    if cfg.job.distances:
        check_distances(task, data, split)
    dashboard = Dashboard(run.folder, History(run.folder / "metrics.csv"), {split: data.split(split)["id"].to_list()})
    trainer = build_trainer(cfg, logger=False, callbacks=[dashboard], default_root_dir=run.folder)
    data.trainer = trainer
    trainer.test(task, data.windows(split), verbose=False)
    scores = {"test": task.outcome["test"]["values"]}
    if trainer.is_global_zero:
        if cfg.job.baseline:
            scores |= task.baselines(data)
        write_scores(
            run.folder,
            scores,
            {"test": task.outcome["test"]["per_class"]},
            task.spec,
            {"ckpt": str(path), "split": split, **task.facts(data)},
        )
        if cfg.job.distances:
            write_distances(run.folder, task)
        show_scores(scores, task)
        task.report(run.folder, data)
    run.facts |= {
        "data": summary(data),
        "metrics": {f"test/{k}": v for k, v in scores["test"].items()},
        "ckpt": str(path),
    }
    if split == "valid":  # what a choice, of a reduction for one, may rest on
        run.facts["score"] = float(scores["test"][task.score])
    return float(scores["test"][task.score])


def check_distances(task: Any, data: Any, split: str) -> None:
    """Raise UserError, before anything is embedded, where a test keeps no distances to write."""
    from tonnetz.tasks.csi import CSI

    if not isinstance(task, CSI):
        raise UserError("job.distances=true: this task ranks nothing; take job.distances=false")
    frame, roles = data.split(split), data.roles(split)
    asking = len(roles["queries"]) if "queries" in roles else frame["work"].count()  # without a work none asks
    answering = len(roles["references"]) if "references" in roles else frame.height
    if asking * answering > KEPT:
        lists = {"test": "data.lists", **{name: f"data.sets.{name}.lists" for name in data.sets}}  # others have none
        fewer = f"name fewer in {lists[split]}.queries, or " if split in lists else ""
        raise UserError(
            f"job.distances=true: {asking:,} queries and {answering:,} references have more than {KEPT:,} distances, "
            f"the most that are kept; {fewer}take job.distances=false"
        )


def write_distances(folder: Path, task: Any) -> None:
    """Write distances.safetensors (queries x references) and distances.csv, the tracks of its rows and columns."""
    result = task.outcome["test"]["result"]
    names = task.outcome["test"]["names"]
    with replacing(folder / "distances.safetensors") as part:
        save_file({"distances": result.distance.float().cpu().contiguous()}, part)
    sides = (("query", result.asked), ("reference", result.references))
    place = {row: i for i, row in enumerate(names["row"].to_list())}
    rows = [
        {"side": side, "place": i, **names.row(place[int(row)], named=True)}
        for side, many in sides
        for i, row in enumerate(many)
    ]
    with replacing(folder / "distances.csv") as part:
        pl.DataFrame(rows).drop("row").write_csv(part)
