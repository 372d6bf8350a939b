"""Tables of a few-shot test: heads by shots with intervals, episodes and answers one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.fewshot.judging import Ladder, answer_table, comparisons, episode_table, measures
from tonnetz.fewshot.protocol import Answers, Protocol
from tonnetz.taxonomy import Taxonomy

ByShots = Mapping[int, Mapping[str, Answers]]
PLACE = ("path", "corpus", "audio", "header", "stamp", "number", "sample_rate")
TOLD = ("id", "class", "labels", "split", *PLACE)  # no colours
SHADES = 40  # values that colours can tell apart, at most
SHOWN = ("accuracy", "severity", "ece", "auroc")


def head_rows(
    answers: ByShots,
    ladder: Ladder,
    reference: str,
    protocol: Protocol,
    heads: Mapping[str, Any],
    units: Tensor | None = None,
) -> list[dict[str, Any]]:
    """One row a head and number of shots: all measures, and the difference to the reference with its p after Holm."""
    rows = []
    for shots, found in answers.items():
        compared = comparisons(found, reference, protocol.rounds, units)
        for name, mine in found.items():
            kind = "transductive" if getattr(heads.get(name), "transductive", False) else "inductive"
            gaps = {key: value for key, value in compared[name].items() if key not in ("mean", "low", "high")}
            over = {f"recordings_{key}": compared[name][key] for key in ("low", "high")}
            rows.append(
                {"head": name, "shots": shots, "kind": kind, **measures(mine, ladder, protocol.mass), **over, **gaps}
            )
    return rows


def write_tables(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    answers: ByShots,
    ladder: Ladder,
    ids: Sequence[str],
    reference: str,
    recordings: Sequence[str] | None = None,
) -> None:
    """Write heads.csv, episodes.csv (every head, shots and episode) and answers.csv (the reference's, most shots)."""
    _write(folder / "heads.csv", pl.DataFrame(rows, infer_schema_length=None))
    episodes = [
        episode_table(mine, ladder).select(pl.lit(name).alias("head"), pl.lit(shots).alias("shots"), pl.all())
        for shots, found in answers.items()
        for name, mine in found.items()
    ]
    _write(folder / "episodes.csv", pl.concat(episodes))
    _write(folder / "answers.csv", answer_table(answers[max(answers)][reference], ladder, ids, recordings))


def write_space(folder: Path, spaces: Sequence[Any], frame: pl.DataFrame, title: str) -> None:
    """Write space.html: episodes as maps whose marks play their files, the part of it that the clip is."""
    from tonnetz.fewshot.figures import space_page

    urls = {}
    for clip, path, offset, duration in frame.select("id", "path", "offset", "duration").iter_rows():
        end = "" if duration is None else f",{offset + duration:.3f}"
        urls[clip] = f"{Path(path).resolve().as_uri()}#t={offset:.3f}{end}"
    plain = frame.select(cs.numeric() | cs.string()).drop(TOLD, strict=False)
    columns = [column.name for column in plain if 1 < column.n_unique() <= SHADES]
    facts = {row.pop("id"): row for row in frame.select("id", *columns).iter_rows(named=True)}
    with replacing(folder / "space.html") as part:
        part.write_text(space_page(spaces, title, urls, facts), encoding="utf-8")


def outline(tree: str, classes: Sequence[str]) -> str:
    """The tree above some classes as indented text (Markdown)."""
    taxonomy = Taxonomy.load(tree)
    pruned = taxonomy.pruned(taxonomy.resolve_all(classes, "task.tree"))
    lines = [f"{tree}, training classes:", ""]
    below: dict[str | None, list[str]] = {}
    for name in pruned.nodes:
        below.setdefault(pruned.parent(name), []).append(name)
    todo = [(name, 0) for name in reversed(below.get(None, []))]
    while todo:
        name, level = todo.pop()
        lines.append("    " * level + f"- {name}")
        todo += [(child, level + 1) for child in reversed(below.get(name, []))]
    return "\n".join(lines)


def _write(path: Path, frame: pl.DataFrame) -> None:
    with replacing(path) as part:
        frame.write_csv(part, float_precision=6)


def show_heads(rows: Sequence[dict[str, Any]]) -> None:
    """Print the heads, best accuracy at most shots first."""
    from rich.console import Console
    from rich.table import Table

    most = max(row["shots"] for row in rows)
    order = sorted((row for row in rows if row["shots"] == most), key=lambda row: -row["accuracy"])
    shown = [name for name in SHOWN if name in order[0]]
    table = Table("shots", "head", *shown, "gain", "p", title="heads on the same episodes")
    for shots in sorted({row["shots"] for row in rows}):
        for name in (row["head"] for row in order):
            row = next(r for r in rows if r["head"] == name and r["shots"] == shots)
            half = (row["accuracy_high"] - row["accuracy_low"]) / 2
            cells = [f"{row[key]:.3f}" + (f" ±{half:.3f}" if key == "accuracy" else "") for key in shown]
            gap = f"{row['difference']:+.3f}" if "difference" in row else ""
            p = f"{row['p']:.3f}" if "p" in row else ""
            title = name + (" *" if row["kind"] == "transductive" else "")
            table.add_row(str(shots), title, *cells, gap, p)
        table.add_section()
    console = Console()
    console.print(table)
    if any(row["kind"] == "transductive" for row in rows):
        console.print("* transductive: all queries of an episode are answered together")
    console.print(
        "± 95 % over episodes; differences and p: bootstrap over recordings and classes, corrected after Holm"
    )
