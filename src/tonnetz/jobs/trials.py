"""job=trials: how well would teaching by a few examples work, and how well are strangers told? Over many draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tonnetz.build import restore
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files, plan_of
from tonnetz.enrolment.examples import find_examples
from tonnetz.enrolment.novelty import NOVELTY
from tonnetz.enrolment.trials import Trials, trial
from tonnetz.errors import UserError, suggest
from tonnetz.heads.chance import BLIND
from tonnetz.jobs.enroll import background_of, facts_of
from tonnetz.jobs.index import as_list
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run, write_csv
from tonnetz.metrics.paired import mean_interval
from tonnetz.quiet import quiet

FACTS = ("draw", "novelty", "taught", "unknown")  # columns that are no measures


def run(cfg: DictConfig, run: Run) -> None:
    """Embed ``job.examples`` once, teach and ask ``job.draws`` times; writes trials.csv and classes.csv."""
    quiet()
    job = cfg.job
    if not job.examples or job.draws < 1 or not 0 < job.accept <= 1:
        raise UserError("job.examples must be a folder or CSV file, job.draws 1 or more, job.accept in (0, 1]")
    numbers = {key: job[key] for key in ("classes", "unknown", "shots", "queries", "accept")}
    trials = Trials(**numbers, teach=tuple(as_list(job.teach)), strangers=tuple(as_list(job.strangers)))
    found = chosen(find_examples(job.examples), as_list(job.names))
    trials.check(counted([label for _, _, label in found]))
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    plan = plan_of(experiment, job.window, job.hop, job.pad)
    errors: dict[str, str] = {}
    paths, device = [str(path) for path, _, _ in found], choose_device(cfg.trainer.accelerator)
    vectors = embed_files(experiment, paths, plan, device, errors)
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(found) - len(errors))
    kept, vectors["row"] = vectors["row"].unique(return_inverse=True)
    labels = np.array([label for _, _, label in found])[kept.numpy()]
    trials.check(counted(labels.tolist()))
    background, random = background_of(experiment.task), np.random.default_rng(job.seed)
    ways = NOVELTY if background is not None else NOVELTY[1:]
    facts, rows = facts_of(experiment, plan, None), []
    for i in range(job.draws):
        drawn = trial(trials, facts, vectors, labels, background, ways, random)
        rows += [{"draw": i, **row} for row in drawn]
    classes = [{**one, "novelty": row["novelty"], "draw": row["draw"]} for row in rows for one in row.pop("classes")]
    write_csv(run.folder / "trials.csv", rows)
    write_csv(run.folder / "classes.csv", classes)
    run.facts["trials"] = {"draws": job.draws, "files": len(labels), **summary(rows, (*ways, *BLIND))}
    show(run.facts["trials"], classes, (*ways, *BLIND))
    print(f"every draw: {run.folder / 'trials.csv'}; every class in it: {run.folder / 'classes.csv'}")


def counted(labels: Sequence[str]) -> dict[str, int]:
    """How many files each class has."""
    names, counts = np.unique(labels, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def chosen(found: list[tuple[Path, str, str]], names: Sequence[str]) -> list[tuple[Path, str, str]]:
    """The examples of some classes; of all without names. Raises UserError for a class that is not there."""
    there = sorted({label for _, _, label in found})
    for name in names:
        if name not in there:
            raise UserError(f"job.names: no class '{name}' among the examples{suggest(name, there)}")
    return [item for item in found if not names or item[2] in names]


def summary(rows: Sequence[dict[str, Any]], ways: Sequence[str]) -> dict[str, Any]:
    """Mean of every measure with Student's 95 % interval over draws, by way of measuring novelty, and by chance."""
    measures = [key for key in rows[0] if key not in FACTS]
    found = {}
    for way in ways:
        mine = [row for row in rows if row["novelty"] == way]
        found[way] = {key: mean_interval(torch.tensor([row[key] for row in mine]))._asdict() for key in measures}
    return found


def show(found: dict[str, Any], classes: Sequence[dict[str, Any]], ways: Sequence[str]) -> None:
    """Print the means by way of measuring novelty, and what happens to each class."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("measure", *ways, title=f"{found['draws']} draws: mean and 95 % interval over draws")
    for key in found[ways[0]]:
        cells = (found[way][key] for way in ways)
        table.add_row(key, *(f"{c['mean']:.3f} ({c['low']:.3f} to {c['high']:.3f})" for c in cells))
    heads = ("class", "right when taught", "rejected when taught", "rejected when not")
    each = Table(*(Column(name, overflow="fold") for name in heads), title=f"by class, novelty by {ways[0]}")
    frame = pl.DataFrame(classes, infer_schema_length=None).filter(pl.col("novelty") == ways[0])
    for name, mine in sorted((str(key[0]), part) for key, part in frame.group_by("class")):
        taught, other = mine.filter("taught"), mine.filter(~pl.col("taught"))
        each.add_row(name, *map(_share, (taught["accuracy"], taught["rejected"], other["rejected"])))
    for one in (table, each):
        Console().print(one)


def _share(values: pl.Series) -> str:
    return f"{float(values.cast(pl.Float64).mean() or 0.0):.1%}" if len(values) else ""  # type: ignore[arg-type]
