"""job=analyze: few-shot tests of many runs side by side, with intervals, paired tests and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig

from tonnetz.atomic import replacing
from tonnetz.errors import UserError, suggest
from tonnetz.fewshot import compare
from tonnetz.fewshot.compare_figures import instrument_bars, settings_boxes, shots_boxes
from tonnetz.fewshot.runs import Found, check, gather, settings, tables
from tonnetz.figures import save
from tonnetz.heads.chance import BLIND
from tonnetz.manifest import Run
from tonnetz.tasks.fewshot import OWN


def run(cfg: DictConfig, run: Run) -> None:
    """Write tables, paired tests and pictures of the runs in `job.runs`, and print the table of one metric."""
    job = cfg.job
    groups = settings(gather([job.runs] if isinstance(job.runs, str) else list(job.runs)))
    counted = [one for mine in groups.values() for one in mine if not one.left_out]
    if not counted:
        raise UserError(f"job.runs: no run is a completed few-shot test; {_reasons(groups)[0]}")
    check(counted)
    heads, episodes, answers = tables(groups, job.head)
    metrics = [name for name in compare.measured(heads) if heads[name].dtype.is_numeric()]
    if job.metric not in metrics:
        raise UserError(f"job.metric={job.metric}: is not measured{suggest(job.metric, metrics)}")
    reference = _reference(job.reference, groups)
    paired = [name for name in compare.measured(episodes) if name in metrics]
    blind = blind_heads(counted)
    parts = [(heads, episodes), *(tables({name: counted}, name)[:2] for name in blind)]
    summaries = {
        name: pl.concat([compare.summary(*part, name) for part in parts], how="diagonal_relaxed") for name in metrics
    }
    tests = {name: compare.episode_pairs(episodes, name, job.rounds) for name in paired}
    for name, table in summaries.items():
        _write(run.folder / "tables" / f"{name}.csv", table)
    for name, table in tests.items():
        _write(run.folder / "significance" / f"{name}.csv", table)
    _draw(run.folder / "figures", heads, episodes, paired)
    if job.metric in paired:
        won = compare.extremes(episodes, answers, reference, job.metric, job.episodes)
        _write(run.folder / "episodes.csv", won)
    recordings = pl.DataFrame()
    if job.head == OWN:
        recordings = _answers(run.folder, answers, reference, job.rounds)
    shown = dict(groups) | dict.fromkeys(blind, counted)
    rows = brief(summaries[job.metric], tests.get(job.metric, pl.DataFrame()), recordings, reference, shown)
    _texts(run.folder, summaries, rows, shown, _reasons(groups), counted[0].protocol, job.metric)
    show(rows, job.metric, groups, run.folder)
    run.facts["analysis"] = {"reference": reference, "rows": rows, "left_out": _reasons(groups)}


def _reference(wanted: str | None, groups: Mapping[str, Sequence[Found]]) -> str:
    """The setting to compare with. Raises UserError for what is neither a setting with runs nor a run's folder."""
    counted = {name: mine for name, mine in groups.items() if any(not run.left_out for run in mine)}
    if wanted is None:
        return next(iter(counted))
    place = Path(str(wanted)).resolve()
    by_run = (name for name, mine in counted.items() if any(run.folder.resolve() == place for run in mine))
    found = wanted if wanted in counted else next(by_run, None)
    if found is None:
        raise UserError(f"job.reference={wanted}: is no setting or run that was tested{suggest(wanted, counted)}")
    return found


def blind_heads(runs: Sequence[Found]) -> list[str]:
    """Those of `BLIND` that every run has a row of; over all runs, for they are the same whatever was trained."""
    known = [set(pl.read_csv(run.folder / "heads.csv", columns=["head"])["head"]) for run in runs]
    return [name for name in BLIND if all(name in heads for heads in known)]


def _reasons(groups: Mapping[str, Sequence[Found]]) -> list[str]:
    """One line a run that is not counted."""
    return [
        f"{run.folder} ({name}, seed={run.seed}): {run.left_out}"
        for name, mine in groups.items()
        for run in mine
        if run.left_out
    ]


def _answers(folder: Path, answers: pl.DataFrame, reference: str, rounds: int) -> pl.DataFrame:
    """Write what only answers tell: recordings and instruments; return the test over recordings."""
    pairs = compare.recording_pairs(answers, rounds)
    _write(folder / "significance" / "recordings.csv", pairs)
    found = compare.instruments(answers, reference)
    _write(folder / "instruments.csv", found)
    others = found.filter(pl.col("setting") != reference)
    column, label = ("difference", f"difference of F1 to {reference}") if others.height else ("f1", "F1")
    bars = {
        str(name): dict(part.select("class", column).fill_null(float("nan")).rows())
        for (name,), part in (others if others.height else found).group_by("setting", maintain_order=True)
    }
    save(instrument_bars(bars, label), folder / "figures" / "instruments.png")
    return pairs


def _draw(folder: Path, heads: pl.DataFrame, episodes: pl.DataFrame, metrics: Sequence[str]) -> None:
    """Box plots of each metric over shots, and over settings at most shots."""
    most = int(str(heads["shots"].max()))
    for metric in metrics:
        boxes: dict[str, dict[int, list[float]]] = {}
        means = compare.mean_episodes(episodes, metric).with_columns(pl.col("value").fill_null(float("nan")))
        for (name, shots), part in means.group_by("setting", "shots", maintain_order=True):
            boxes.setdefault(str(name), {})[int(str(shots))] = part["value"].to_list()
        last = heads.filter(pl.col("shots") == most)
        runs = {name: last.filter(pl.col("setting") == name)[metric].to_list() for name in boxes}
        save(shots_boxes(boxes, metric), folder / f"{metric}_shots.png")
        at_most = {name: mine[most] for name, mine in boxes.items()}
        save(settings_boxes(at_most, runs, f"{metric}, {most} shots"), folder / f"{metric}_settings.png")


def brief(
    table: pl.DataFrame,
    tests: pl.DataFrame,
    recordings: pl.DataFrame,
    reference: str,
    groups: Mapping[str, Sequence[Found]],
) -> list[dict[str, Any]]:
    """A row a setting, tested or not: runs, mean and interval by shots; difference to the reference at most shots."""
    most = table["shots"].max()
    rows = []
    for name, mine in groups.items():
        found = table.filter(pl.col("setting") == name)
        row: dict[str, Any] = {"setting": name, "runs": sum(not run.left_out for run in mine), "of": len(mine)}
        row |= {f"{part['shots']}-shot": _mean(part) for part in found.iter_rows(named=True)}
        if tests.height and name != reference:
            row |= _gap(tests.filter(pl.col("shots") == most), name, reference, "p episodes")
        if recordings.height and name != reference:
            row |= {k: v for k, v in _gap(recordings, name, reference, "p recordings").items() if k != "difference"}
        rows.append(row)
    return rows


def _mean(row: Mapping[str, Any]) -> str:
    half = None if row["low"] is None else (row["high"] - row["low"]) / 2
    return "" if row["mean"] is None else f"{row['mean']:.3f}" + ("" if half is None else f" ±{half:.3f}")


def _gap(pairs: pl.DataFrame, name: str, reference: str, title: str) -> dict[str, str]:
    """Difference of a setting to the reference, and p after Holm."""
    for first, second, sign in ((name, reference, 1), (reference, name, -1)):
        for row in pairs.filter(pl.col("first") == first, pl.col("second") == second).iter_rows(named=True):
            if row["p_holm"] is not None:
                return {"difference": f"{sign * row['difference']:+.3f}", title: _p(row["p_holm"])}
    return {}


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _texts(
    folder: Path,
    summaries: Mapping[str, pl.DataFrame],
    rows: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[Found]],
    reasons: Sequence[str],
    protocol: Mapping[str, Any],
    metric: str,
) -> None:
    """Write analysis.md, and a table of each metric beside its CSV."""
    for name, table in summaries.items():
        _text(folder / "tables" / f"{name}.md", [_markdown(brief(table, pl.DataFrame(), pl.DataFrame(), "", groups))])
    left = [f"- {line}" for line in reasons]
    rules = ", ".join(f"{key} {value}" for key, value in protocol.items())
    parts = [f"# {metric}", _markdown(rows), NOTE, f"Protocol: {rules}."]
    _text(folder / "analysis.md", parts + (["Left out:\n\n" + "\n".join(left)] if left else []))


NOTE = (
    "± is half of Student's 95 % interval over seeds, none for a single seed. p is of the difference to the reference "
    "at most shots, corrected after Holm: Wilcoxon over episodes and seeds, and a bootstrap over recordings and "
    "classes, which episodes drawn from the same recordings do not make too small."
)


def _text(path: Path, parts: Sequence[str]) -> None:
    with replacing(path) as part:
        part.write_text("\n\n".join(parts) + "\n")


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines = [header, ["---"] * len(header), *([str(row.get(key, "")) for key in header] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _write(path: Path, table: pl.DataFrame) -> None:
    """Write a table as CSV where there is one: a single setting has no pairs."""
    if table.width:
        with replacing(path) as part:
            table.write_csv(part)


def show(rows: Sequence[Mapping[str, Any]], metric: str, groups: Mapping[str, Sequence[Found]], folder: Path) -> None:
    """Print the table, and below it what was left out and why."""
    from rich.console import Console
    from rich.table import Column, Table

    header = list(dict.fromkeys(key for row in rows for key in row if key not in ("setting", "of")))
    if "p recordings" in header:
        header.remove("p episodes")  # analysis.md has both
    shots = [key for key in header if key.endswith("-shot")]
    table = Table(Column("setting", min_width=16, overflow="fold"), *header, title=f"{metric}: {folder}")
    for row in rows:
        cells = [str(row.get(key, "")) for key in header[1:]]
        cells = [cell.split(" ")[0] if key in shots[:-1] else cell for key, cell in zip(header[1:], cells, strict=True)]
        count = f"{row['runs']} of {row['of']}"
        table.add_row(row["setting"], count, *cells, style=None if row["runs"] == row["of"] else "red")
    Console().print(table)
    print("± over seeds (Student, 95 %); p of the difference at most shots, after Holm")
    for line in _reasons(groups):
        print(f"left out: {line}")
