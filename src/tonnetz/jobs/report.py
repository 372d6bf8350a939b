"""job=report: probe results side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tonnetz import figures
from tonnetz.atomic import replacing
from tonnetz.errors import UserError
from tonnetz.manifest import Run, write_csv, write_json
from tonnetz.probing.baselines import BASELINES, complaints, subjects
from tonnetz.probing.lead import add_leads, best
from tonnetz.probing.tables import brief, caption, flat, markdown, name_of, score_bars, show_all

FACTS = ("preset", "protocol", "target", "seed", "split", "data", "checkpoint", "transductive", "pretraining")
SAME = ("target", "goal", "split", "unit", "protocol", "tail", "slices")  # of results in one table


def run(cfg: DictConfig, run: Run) -> None:
    """Write report.md, .csv, .json and a figure of the probe results in `job.runs`, and say which rows they lack."""
    names = [cfg.job.runs] if isinstance(cfg.job.runs, str) else list(cfg.job.runs)
    results = {name: read(Path(name)) for name in names}
    first = next(iter(results.values()))
    for name, result in results.items():
        check(first, result, names[0], name)
    metric = cfg.job.metric or first["goal"]["monitor"]
    short = dict(zip(results, tails(list(results)), strict=True))
    rows = joined({short[name]: result for name, result in results.items()})
    for name, row in rows.items():
        if metric not in row["test"]:
            raise UserError(f"job.metric={metric}: {name} has {', '.join(row['test'])}")
    compare(results, rows, metric)
    first = {**first, "transductive": any(result.get("transductive") for result in results.values())}
    facts = {name: {key: result[key] for key in FACTS if key in result} for name, result in results.items()}
    table = [flat(row, metric) | {"features": name} for name, row in rows.items()]
    write_csv(run.folder / "report.csv", table)
    lacking = complaints({short[name]: result for name, result in results.items()})
    found = {"runs": names, "metric": metric, "facts": facts, "rows": rows, "lacking": lacking}
    write_json(run.folder / "report.json", found)
    with replacing(run.folder / "report.md") as part:
        part.write_text("\n\n".join([caption(first), markdown(brief(table, metric)), *lacking]) + "\n")
    figures.save(score_bars(rows, metric, first["target"]), run.folder / "figures" / "report.png")
    show_all(table, metric, caption(first), run.folder / "report.csv")
    print(*lacking, sep="\n", end="\n" if lacking else "")
    run.facts["report"] = {name: row["test"] for name, row in rows.items()}


def tails(names: Sequence[str]) -> list[str]:
    """The ends of paths, as short as they all differ."""
    parts = [Path(name).absolute().parts for name in names]
    sizes = range(1, 1 + max(map(len, parts)))
    size = next((n for n in sizes if len({part[-n:] for part in parts}) == len(names)), sizes[-1])
    return ["/".join(part[-size:]) for part in parts]


def read(folder: Path) -> dict[str, Any]:
    """The result of a probe run. Raises UserError when the folder holds none."""
    path = folder / "probe.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; job.runs names folders of job=probe runs that have ended")
    result: dict[str, Any] = json.loads(path.read_text())
    result["protocol"].setdefault("stop", "score")  # results before these were written
    for row in result["rows"]:
        row.setdefault("baseline", row["features"].startswith(BASELINES))
    return result


def check(first: dict[str, Any], other: dict[str, Any], a: str, b: str) -> None:
    """Raise UserError for results that must not stand in one table."""
    for key in SAME:
        one, two = first.get(key), other.get(key)  # null where it was not written yet
        if one != two:
            raise UserError(f"job.runs: {a} and {b} differ in {key}: {one} and {two}; report them apart")
    train = [result["settings"]["train"] for result in (first, other)]
    if train[0] != train[1]:
        raise UserError(f"job.runs: {a} and {b} differ in job.train: {train[0]} and {train[1]}; report them apart")
    mark = [result["data"]["fingerprint"] for result in (first, other)]
    if mark[0] != mark[1]:
        raise UserError(f"job.runs: {a} and {b} were judged on other data ({mark[0]} and {mark[1]}); report them apart")
    if first["preset"] != other["preset"] or first["axes"] != other["axes"]:
        raise UserError(f"job.runs: {a} and {b} searched other configurations; probe both with one preset")


def compare(results: dict[str, dict[str, Any]], rows: dict[str, dict[str, Any]], metric: str) -> None:
    """Put by how much the first run's model leads, where all runs drew the same test tracks for their intervals."""
    first, *others = results.values()
    for row in rows.values():
        row.pop("lead", None)
    if metric == first["goal"]["monitor"] and all(other["seed"] == first["seed"] for other in others):
        own = best([row for row in subjects(first["rows"]) if row["fraction"] == 1] or subjects(first["rows"]))
        add_leads(list(rows.values()), own, metric)


def joined(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by name: models under the name of their run, each baseline once."""
    found: dict[str, dict[str, Any]] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for run_name, result in results.items():
        for row in result["rows"]:
            name = name_of(row)
            if not row["baseline"]:
                found[f"{run_name} {name}".replace(" model", "")] = row
            elif row["features"].startswith("random"):
                baselines[f"{name} ({run_name})"] = row
            else:
                baselines.setdefault(name, row)
    return found | baselines
