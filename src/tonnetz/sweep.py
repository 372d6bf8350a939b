"""What a sweep leaves behind: one table of all its jobs, failed ones too, and a box plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tonnetz.atomic import replacing
from tonnetz.manifest import write_csv

if TYPE_CHECKING:
    from rich.table import Table

failures: list[int] = []  # jobs of this process's sweep that did not complete; the command line exits with 1


@dataclass(frozen=True)
class Job:
    """One job of a sweep as its folder tells it."""

    number: int
    overrides: dict[str, str]
    status: str
    reason: str
    seconds: float | None
    score: float | None  # on validation: what a choice may rest on
    metrics: dict[str, float]
    epoch: int | None = None  # of the best score
    slope: float | None = None  # of the score by validation, at the end


class Collect(Callback):
    """Hydra callback: reads the manifests of a sweep's jobs when it ends."""

    def on_multirun_end(self, config: DictConfig, **keywords: Any) -> None:
        """Write `sweep.csv`, `sweep.md` and `sweep.png` into the sweep's folder and print the table."""
        folder = Path(config.hydra.sweep.dir)
        jobs = read_jobs(folder)
        if not jobs:
            return
        failures.extend(job.number for job in jobs if job.status != "completed")
        write_jobs(folder / "sweep.csv", jobs)
        write_markdown(folder / "sweep.md", jobs)
        print_jobs(folder, jobs)
        draw(folder / "sweep.png", jobs)


def read_jobs(folder: Path) -> list[Job]:
    """All jobs of a sweep's folder in the order of their numbers."""
    manifests = [path for path in folder.glob("*/manifest.json") if path.parent.name.isdigit()]
    return [_read(path) for path in sorted(manifests, key=lambda path: int(path.parent.name))]


def _read(path: Path) -> Job:
    import yaml

    manifest = json.loads(path.read_text())
    record = path.parent / ".hydra" / "overrides.yaml"
    words = yaml.safe_load(record.read_text()) if record.exists() else []
    score = manifest.get("score")
    monitor = manifest.get("monitor")
    return Job(
        number=int(path.parent.name),
        overrides=dict(word.lstrip("+~").partition("=")[::2] for word in words or []),
        status=manifest["status"],
        reason=manifest.get("reason", ""),
        seconds=manifest.get("seconds"),
        score=score if isinstance(score, float) and score == score else None,
        metrics=manifest.get("metrics") or {},
        epoch=manifest.get("best_epoch"),
        slope=_slope(path.parent, monitor) if monitor else None,
    )


def _slope(folder: Path, monitor: str) -> float | None:
    from tonnetz.runs import read_history, slope

    frame = read_history(folder)
    return slope(frame[monitor].drop_nulls().to_list()) if monitor in frame.columns else None


@dataclass(frozen=True)
class Setting:
    """What the jobs of one setting reached, seeds together; null where there is nothing to tell."""

    name: str
    scores: list[float]
    diverged: int
    failed: int
    epoch: float | None
    slope: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the mean over seeds."""
        if len(self.scores) < 2:
            return None
        import torch

        from tonnetz.metrics.bootstrap import interval

        table = torch.tensor([[score, 1.0] for score in self.scores], dtype=torch.float64)
        return interval(table, lambda sums: sums[..., 0] / sums[..., 1], draws=10_000)


def settings(jobs: list[Job]) -> list[Setting]:
    """The settings of a sweep in their order."""
    groups: dict[str, list[Job]] = {}
    for job, name in zip(jobs, names(jobs), strict=True):
        groups.setdefault(name, []).append(job)
    return [
        Setting(
            name=name,
            scores=[job.score for job in mine if job.score is not None],
            diverged=sum(job.status == "diverged" for job in mine),
            failed=sum(job.status == "failed" for job in mine),
            epoch=_mean([job.epoch for job in mine]),
            slope=_mean([job.slope for job in mine]),
        )
        for name, mine in groups.items()
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def varied(jobs: list[Job]) -> list[str]:
    """The overridden keys whose values differ between jobs."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def names(jobs: list[Job]) -> list[str]:
    """The setting of each job; seeds repeat a setting, they are none."""
    keys = [key for key in varied(jobs) if key != "seed"]
    return [", ".join(f"{key}={job.overrides.get(key, '')}" for key in keys) or "all" for job in jobs]


def write_jobs(path: Path, jobs: list[Job]) -> None:
    """One row a job with all its overrides and metrics."""
    rows = [
        {"job": job.number, **job.overrides, "status": job.status, "seconds": job.seconds, "score": job.score}
        | {"best_epoch": job.epoch, "slope": job.slope}
        | job.metrics
        | {"reason": job.reason}
        for job in jobs
    ]
    write_csv(path, rows)


def write_markdown(path: Path, jobs: list[Job]) -> None:
    """What varied and how it ended, job by job, then mean and deviation by setting."""
    keys = varied(jobs)
    rows = [
        [
            str(job.number),
            *(job.overrides.get(key, "") for key in keys),
            job.status,
            _text(job.score),
            "" if job.epoch is None else str(job.epoch),
            _text(job.slope),
            _text(job.seconds),
            job.reason,
        ]
        for job in jobs
    ]
    parts = [
        _markdown(["job", *keys, "status", "score", "best epoch", "slope", "seconds", "reason"], rows),
        _markdown(SUMMARY, [summary(setting) for setting in settings(jobs)]),
    ]
    with replacing(path) as part:
        part.write_text("\n\n".join(parts) + "\n")


SUMMARY = ["setting", "runs", "mean score", "deviation", "95 %", "best epoch", "slope", "diverged", "failed"]


def summary(setting: Setting) -> list[str]:
    """The cells of a setting below `SUMMARY`."""
    scores, bounds = setting.scores, setting.interval
    return [
        setting.name,
        str(len(scores)),
        _text(_mean(scores)),
        _text(statistics.stdev(scores)) if len(scores) > 1 else "",
        f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else "",
        "" if setting.epoch is None else f"{setting.epoch:.1f}",
        _text(setting.slope),
        str(setting.diverged),
        str(setting.failed),
    ]


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def print_jobs(folder: Path, jobs: list[Job]) -> None:
    """Print the table; failed jobs are red and their reasons stand below."""
    from rich.console import Console
    from rich.table import Table

    keys = varied(jobs)
    table = Table("job", *keys, "status", "score", "seconds", title=str(folder))
    for job in jobs:
        cells = [job.overrides.get(key, "") for key in keys]
        style = None if job.status == "completed" else "red"
        table.add_row(str(job.number), *cells, job.status, _text(job.score), _text(job.seconds), style=style)
    Console().print(table)
    if len(jobs) > 1:
        Console().print(_overview([summary(setting) for setting in settings(jobs)]))
    for job in jobs:
        if job.reason:
            print(f"job {job.number} {job.status}: {job.reason}")


def _overview(rows: list[list[str]]) -> Table:
    """The settings, without columns that say nothing of any; in 80 characters only names and intervals are broken."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    cells = list(zip(SUMMARY, *rows, strict=True))
    said = [column for column in cells if column[0] in SUMMARY[:3] or set(column[1:]) - {"", "0"}]
    short, broken = {"mean score": "mean", "best epoch": "epoch"}, (SUMMARY[0], "95 %")
    columns = [Column(short.get(name, name), no_wrap=name not in broken, overflow="fold") for name, *_ in said]
    columns[0].min_width = 10
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in zip(*(column[1:] for column in said), strict=True):
        table.add_row(*row)
    return table


def draw(path: Path, jobs: list[Job]) -> None:
    """Box plot of the scores of each setting."""
    found = {setting.name: setting.scores for setting in settings(jobs) if setting.scores}
    if found:
        from tonnetz.figures import box_figure, save

        save(box_figure(found, "score on validation"), path)
