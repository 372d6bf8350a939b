"""Folders of few-shot tests: which settings and seeds they are, and whether they may stand side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from tonnetz.errors import UserError, suggest

FILES = ("heads.csv", "episodes.csv", "answers.csv", "metrics.json")  # what a few-shot test leaves
FREE = ("valid_episodes", "valid_ways", "valid_shots", "valid_queries", "rounds", "dropped")  # they judge no test
NO_SETTING = ("seed", "run")  # keys that vary and tell no setting


@dataclass(frozen=True)
class Found:
    """A run, or what is known of one that cannot be counted: `left_out` says why it is not."""

    folder: Path
    overrides: dict[str, str]
    config: Mapping[str, Any]
    protocol: Mapping[str, Any]
    left_out: str = ""

    @property
    def seed(self) -> str:
        """Of the training."""
        return self.value("seed")

    def value(self, key: str) -> str:
        """What was said for a key of the configuration, or what it was when nothing was said."""
        if key in self.overrides:
            return self.overrides[key]
        node: Any = self.config
        for name in key.split("."):
            if not isinstance(node, Mapping) or name not in node:
                return "default"
            node = node[name]
        return "default" if isinstance(node, Mapping) else _plain(node)


def _plain(value: Any) -> str:
    """A value as one says it on the command line."""
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_plain, value))}]" if isinstance(value, list) else str(value)


def gather(folders: Sequence[str | Path]) -> list[Found]:
    """The runs of sweeps (every job, missing ones too) and single runs. Raises UserError for a folder with neither."""
    found: list[Found] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"job.runs: {folder}: no such folder; name a sweep, or a list of runs")
        planned = plan(folder)
        numbers = {int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit()}
        jobs = sorted(numbers | set(range(len(planned))))
        if not jobs and not (folder / "manifest.json").is_file():
            raise UserError(f"job.runs: {folder}: holds no run (manifest.json) and no jobs of a sweep")
        found += [read(folder / str(n), planned[n] if n < len(planned) else []) for n in jobs] or [read(folder)]
    return found


def plan(folder: Path) -> list[list[str]]:
    """Overrides of each job that a sweep in this folder was to have; none for other folders and for tuners."""
    path = folder / "multirun.yaml"
    node = yaml.safe_load(path.read_text())["hydra"] if path.is_file() else {}
    if not str(node.get("sweeper", {}).get("_target_", "")).endswith(".BasicSweeper"):
        return []
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [f"{key}={value}" for key, value in (node["sweeper"].get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*words, *node["overrides"]["task"]])
    return BasicSweeper.split_arguments(parsed, None)[0]


def read(folder: Path, planned: Sequence[str] = ()) -> Found:
    """One run, by its manifest, overrides and protocol."""
    record = folder / ".hydra" / "overrides.yaml"
    words = yaml.safe_load(record.read_text()) if record.is_file() else planned
    overrides = dict(word.lstrip("+~").partition("=")[::2] for word in words or [])
    if not (folder / "manifest.json").is_file():
        return Found(folder, overrides, {}, {}, "missing: it never began")
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["status"] != "completed":
        why = ": ".join(filter(None, (manifest["status"], manifest.get("reason"))))
        return Found(folder, overrides, manifest.get("config", {}), {}, why)
    absent = [name for name in FILES if not (folder / name).is_file()]
    scores = {} if "metrics.json" in absent else json.loads((folder / "metrics.json").read_text())
    if absent or "protocol" not in scores:
        why = f"no few-shot test: {', '.join(absent) or 'metrics.json without protocol'}"
        return Found(folder, overrides, manifest.get("config", {}), {}, why)
    return Found(folder, overrides, manifest.get("config", {}), scores["protocol"])


def settings(runs: Sequence[Found]) -> dict[str, list[Found]]:
    """The runs of each setting, in order; seeds repeat a setting. Raises UserError where a seed stands twice."""
    said = dict.fromkeys(key for run in runs for key in run.overrides)
    keys = [key for key in said if key not in NO_SETTING and not key.startswith(("paths.", "hydra."))]
    keys = [key for key in keys if len({run.value(key) for run in runs}) > 1]
    groups: dict[str, list[Found]] = {}
    for run in runs:
        name = ", ".join(f"{key}={run.value(key)}" for key in keys) or "all"
        twin = next((other for other in groups.get(name, ()) if _twins(run, other)), None)
        if twin:
            raise UserError(f"job.runs: {twin.folder} and {run.folder} are one setting and seed; leave one out")
        groups.setdefault(name, []).append(run)
    return groups


def _twins(a: Found, b: Found) -> bool:
    return a.seed == b.seed and not a.left_out and not b.left_out


def check(runs: Sequence[Found]) -> None:
    """Raise UserError, naming both, for runs that were judged differently: by protocol, reference tree or queries."""
    first = runs[0]
    asked = _asked(first.folder)
    for run in runs[1:]:
        for key in dict.fromkeys([*first.protocol, *run.protocol]):
            a, b = (other.protocol.get(key) for other in (first, run))
            if a != b and key not in FREE:
                what = "reference trees" if key == "reference" else f"protocols: {key}"
                raise UserError(
                    f"job.runs: {first.folder} and {run.folder} were judged by different {what} "
                    f"({_plain(a)} and {_plain(b)}); analyze them apart"
                )
        if not asked.equals(_asked(run.folder)):
            raise UserError(
                f"job.runs: {first.folder} and {run.folder} were asked other queries (data or splits differ); "
                "analyze them apart"
            )


def _asked(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "answers.csv", columns=["episode", "clip", "true"], infer_schema=False)


def tables(groups: Mapping[str, Sequence[Found]], head: str) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """heads.csv and episodes.csv of one head, and answers.csv, of all counted runs, with the columns setting and seed.

    Raises UserError for a head that a run does not have.
    """
    heads, episodes, answers = [], [], []
    for name, runs in groups.items():
        for run in runs:
            if run.left_out:
                continue
            mark = [pl.lit(name).alias("setting"), pl.lit(run.seed).alias("seed")]
            rows = pl.read_csv(run.folder / "heads.csv", infer_schema_length=None)
            if head not in rows["head"]:
                raise UserError(f"job.head={head}: {run.folder} has no such head{suggest(head, rows['head'].unique())}")
            one = pl.read_csv(run.folder / "episodes.csv", infer_schema_length=None)
            heads.append(rows.filter(pl.col("head") == head).select(*mark, pl.all()))
            episodes.append(one.filter(pl.col("head") == head).select(*mark, pl.all()))
            schema = {"clip": pl.String, "true": pl.String, "predicted": pl.String}
            told = pl.read_csv(run.folder / "answers.csv", schema_overrides=schema)
            answers.append(told.select(*mark, pl.all()))
    first, second, third = (pl.concat(frames, how="diagonal_relaxed") for frames in (heads, episodes, answers))
    return first, second, third
