"""The end of a job: a table in the terminal, JSON and CSV beside it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from tonnetz.atomic import replacing
from tonnetz.manifest import write_json
from tonnetz.tracks import DataSpec

Scores = dict[str, dict[str, float]]  # row (test, baseline, ...) -> metric -> value
TITLES = {"baseline": "MFCC + logistic regression", "test": "this model"}


def write_scores(
    folder: Path,
    scores: Scores,
    per_class: dict[str, dict[str, torch.Tensor]],
    spec: DataSpec,
    extra: dict[str, Any],
) -> None:
    """Write `metrics.json`, and one CSV a stage with the metrics of every class."""
    classes = {
        stage: {metric: dict(zip(spec.classes, values.tolist(), strict=True)) for metric, values in found.items()}
        for stage, found in per_class.items()
    }
    write_json(folder / "metrics.json", {**extra, **scores, "classes": classes})
    for stage, found in per_class.items():
        if not found:
            continue
        with replacing(folder / f"{stage}_classes.csv") as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class", *found])
            for i, name in enumerate(spec.classes):
                writer.writerow([name, *(f"{values[i].item():.6f}" for values in found.values())])


def show_scores(scores: Scores, task: Any, best: float | None = None) -> None:
    """Print the test scores of a task, with the baseline's beside them."""
    validated = best is not None and best == best  # not NaN, as where nothing validates
    title = "files of the test split" + (f"; best {task.monitor} {best:.4f}" if validated else "")
    named = {TITLES.get(name, name): values for name, values in scores.items()}
    show_table(named, title, task.score)


def show_table(scores: Scores, title: str, important: str | None = None) -> None:
    """Print metrics as rows, one column for each entry of `scores`."""
    from rich.console import Console
    from rich.table import Table

    if not scores:
        return
    table = Table("metric", *scores, title=title)
    for metric in (name for name in next(iter(scores.values())) if not name.startswith("window_")):
        cells = (_cell(values[metric]) if metric in values else "" for values in scores.values())
        table.add_row(metric, *cells, style="bold" if metric == important else None)
    Console().print(table)


def _cell(value: float) -> str:
    """A count as it is, a measure with four places."""
    return str(value) if isinstance(value, int) else f"{value:.4f}"
