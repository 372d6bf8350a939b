"""Tables and the figure of probe results: rows of a table, in Markdown, on a terminal, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tonnetz import figures
from tonnetz.tracks import SPLITS

Row = dict[str, Any]


def show_all(table: Sequence[Mapping[str, Any]], metric: str, title: str, listing: Path) -> None:
    """Print what compares the rows, and below it how the models fare on deformed sound; all of it is in `listing`."""
    show(brief(table, metric, deformed=False), title, listing)
    start = f"{metric} "
    found = {
        row["features"]: {"as it is": row[metric]} | {k.removeprefix(start): row[k] for k in row if k.startswith(start)}
        for row in table
    }
    found = {name: values for name, values in found.items() if len(values) > 1}
    for kinds in list(found.values())[:1]:
        lines = [{"test sound": kind, **{name: found[name][kind] for name in found}} for kind in kinds]
        show(lines, f"{metric} of deformed sound", listing)


def caption(facts: Mapping[str, Any]) -> str:
    """One line that says what the numbers are."""
    split = facts["split"]
    sizes = "/".join(f"{split[name]:,}" for name in SPLITS)
    warning = ", TRANSDUCTIVE: the model has learned from test tracks" if facts.get("transductive") else ""
    unit = facts.get("unit")
    sizes += (
        f" tracks, judged by {unit} ({'/'.join(str(facts['units'][name]) for name in SPLITS)})" if unit else " tracks"
    )
    return (
        f"{facts['preset']}: {facts['target']} ({facts['goal']['kind']}), {split.get('name', '')} {sizes}, "
        f"split seed {split['seed']}, seed {facts['seed']}, data {facts['data']['fingerprint']}{warning}"
    )


def name_of(row: Row) -> str:
    """Name of a row in tables and figures."""
    return row["features"] if row["fraction"] == 1 else f"{row['features']} ({row['fraction']:.0%})"


def flat(row: Row, metric: str) -> dict[str, Any]:
    """A row of the table: text and numbers only."""
    winner, seeds = row.get("winner"), row.get("seeds")
    low, high = row.get("interval", (None, None))
    cells: dict[str, Any] = {"features": name_of(row), "dimensions": row["dimensions"], "examples": row["examples"]}
    cells |= {"valid": row["valid"], **row["test"], "low": low, "high": high}
    lead = row.get("lead") or dict.fromkeys(("value", "low", "high"))
    cells |= {"lead": lead["value"], "lead_low": lead["low"], "lead_high": lead["high"]}
    cells |= {"seeds_mean": seeds["mean"] if seeds else None, "seeds_std": seeds["std"] if seeds else None}
    layers = "x".join(map(str, winner["hidden"])) or "linear" if winner else None
    cells["winner"] = f"{layers} lr {winner['lr']:g}" if winner else None
    cells |= {f"{metric} {name}": values[metric] for name, values in row.get("deformed", {}).items()}
    cells |= {"undefined": len(row["undefined"]), "failed": row.get("failed", 0)}
    cells["transductive"] = row.get("transductive", 0)  # test tracks that were learned from
    return cells


def brief(rows: Sequence[Mapping[str, Any]], metric: str, deformed: bool = True) -> list[dict[str, Any]]:
    """The columns of `flat` that a reader compares, what matters most first."""
    lines = []
    for row in rows:
        line = {"features": row["features"], metric: row[metric]}
        line["95 %"] = f"{row['low']:.3f}-{row['high']:.3f}" if row["low"] is not None else None
        lead = row["lead"]
        line["lead"] = None if lead is None else f"{lead:.3f} ({row['lead_low']:.3f} to {row['lead_high']:.3f})"
        line["seeds"] = f"{row['seeds_mean']:.3f}±{row['seeds_std']:.3f}" if row["seeds_mean"] is not None else None
        line |= {"valid": row["valid"], "dim": row["dimensions"]}
        names = list(row)
        others = names[names.index("valid") + 1 : names.index("low")]
        line |= {name: row[name] for name in others if name != metric}
        if deformed:
            line |= {name.removeprefix(f"{metric} "): row[name] for name in names if name.startswith(f"{metric} ")}
        lines.append(line | {key: row[key] for key in ("undefined", "failed", "transductive")})
    return lines


def cells_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns that say something, and their cells as text."""
    columns = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key) not in (None, 0) for row in rows)
    ]
    return columns, [[text(row.get(key)) for key in columns] for row in rows]


def text(value: Any) -> str:
    """A cell: four places for a measure."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown."""
    columns, cells = cells_of(rows)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(rows: Sequence[Mapping[str, Any]], title: str, listing: Path) -> None:
    """Print a table of so many columns as fit the terminal, none of them broken; `listing` has the others."""
    from rich.console import Console
    from rich.table import Table

    columns, cells = cells_of(rows)
    console = Console()
    shown = fitting(columns, cells, console.width)
    table = Table()
    for i, name in enumerate(columns[:shown]):
        table.add_column(name, no_wrap=i > 0, overflow="fold")
    for line in cells:
        table.add_row(*line[:shown])
    console.print(title, markup=False, highlight=False)
    console.print(table)
    if shown < len(columns):
        console.print(f"also in {listing}: {', '.join(columns[shown:])}", markup=False, highlight=False)


def fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> int:
    """How many columns, from the left, fit so many characters; the first may be folded to 24, and two always stay."""
    need = [max(len(line[i]) for line in [columns, *cells]) + 3 for i in range(len(columns))]  # with padding and rule
    need[0] = min(need[0], 24 + 3)
    fits = [n for n in range(1, len(columns) + 1) if sum(need[:n]) + 1 <= width]
    return max([2, *fits])


def score_bars(rows: Mapping[str, Row], metric: str, title: Any) -> Any:
    """Test scores by name with their intervals."""
    figure = figures.Figure(figsize=(7, 1.4 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    names = list(rows)[::-1]
    values = [rows[name]["test"][metric] for name in names]
    axis.barh(names, values, color=["tab:gray" if rows[name]["baseline"] else "tab:blue" for name in names])
    for place, name in enumerate(names):
        if rows[name].get("interval"):
            axis.plot(rows[name]["interval"], [place, place], "k-", lw=2)
    axis.set(xlabel=f"{metric} of test tracks", title=str(title))
    axis.grid(axis="x", alpha=0.3)
    return figure
