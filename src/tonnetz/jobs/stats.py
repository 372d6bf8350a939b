"""job=stats: works and performances of a corpus, by split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig

from tonnetz.atomic import replacing
from tonnetz.datasets.lists import read_list
from tonnetz.errors import UserError
from tonnetz.figures import save, works_histogram
from tonnetz.manifest import Run, write_json
from tonnetz.tracks import SPLITS

ALL = "all"


def run(cfg: DictConfig, run: Run) -> None:
    """Print and write the numbers of works, recordings and hours, and how many performances a work has."""
    frame = read_list(cfg.job.table) if cfg.job.table else _corpus(cfg, run.folder)
    works = per_work(frame)
    rows = [describe(works, name) for name in _splits(frame)]
    spread = distribution(works)
    _write(run.folder / "works.csv", works)
    _write(run.folder / "performances.csv", spread)
    _write(run.folder / "stats.csv", pl.DataFrame(rows))
    write_json(run.folder / "stats.json", {"splits": {row["split"]: row for row in rows}})
    names = [row["split"] for row in rows[1:]] or [ALL]
    sizes = {name: works.filter(pl.col(name) > 0)[name].to_list() for name in names}
    save(works_histogram(sizes, "performances of works"), run.folder / "figures" / "works.png")
    show(rows)
    run.facts["works"] = {row["split"]: row for row in rows}


def _corpus(cfg: DictConfig, folder: Path) -> pl.DataFrame:
    """The tracks of the corpora of `data`; recordings without audio are written into the folder."""
    from tonnetz.build import build_data, connect
    from tonnetz.jobs.prepare import tell_missing

    data = build_data(cfg, connect(cfg.frontend))
    table = data.table  # reading it finds what is missing
    tell_missing(data, folder)
    return table


def _splits(frame: pl.DataFrame) -> list[str]:
    return [ALL, *(name for name in SPLITS if name in set(frame["split"]))]


def per_work(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a work: recordings and hours, of all and by split; the largest work first.

    A recording is a group or, without one of its own, a file. Raises UserError when no track has a work.
    """
    known = frame.filter(pl.col("work").is_not_null())
    if not known.height:
        raise UserError(
            "no track names its work: take data=folder_works (a sub-folder a work), or a spreadsheet with a column work"
        )
    corpus = "corpus" if "corpus" in frame.columns else pl.lit(None, pl.String)
    whole = pl.coalesce(pl.concat_str(corpus, "work", separator="/"), "work")  # groups carry the name of their corpus
    group = pl.col("group")
    own = pl.when((group != whole) & (group != pl.col("work"))).then(group)  # a group may be the work itself
    recording = pl.coalesce(own, "path", "id")
    counts, hours = [], []
    for name in (ALL, *SPLITS):
        here = pl.lit(True) if name == ALL else pl.col("split").eq_missing(name)
        long = pl.col("duration").filter(here)  # null where a list does not say how long
        counts.append(recording.filter(here).n_unique().alias(name))
        hours.append(pl.when(long.count() > 0).then(long.sum() / 3600).alias(f"hours_{name}"))
    return known.group_by("work").agg(*counts, *hours).sort(ALL, "work", descending=[True, False])


def describe(works: pl.DataFrame, split: str) -> dict[str, Any]:
    """Numbers of one split (or of all): works, those that training does not have, recordings, and their spread."""
    here = works.filter(pl.col(split) > 0)
    sizes, hours = here[split], here[f"hours_{split}"]
    unseen = here.filter(pl.col("train") == 0).height
    return {
        "split": split,
        "works": here.height,
        "unseen": unseen if split in ("valid", "test") else None,
        "recordings": int(sizes.sum()),
        "hours": round(float(hours.sum()), 3) if hours.count() else None,
        "single": int((sizes == 1).sum()),  # works without a pair
        "least": sizes.min(),
        "median": sizes.median(),
        "mean": round(float(sizes.mean() or 0.0), 3),  # type: ignore[arg-type]
        "most": sizes.max(),
    }


def distribution(works: pl.DataFrame) -> pl.DataFrame:
    """How many works have how many performances: columns performances, all, train, valid, test."""
    columns = [ALL, *SPLITS]
    long = works.unpivot(columns, variable_name="split", value_name="performances").filter(pl.col("performances") > 0)
    wide = long.group_by("performances", "split").len().pivot("split", index="performances", values="len")
    absent = [pl.lit(0).alias(name) for name in columns if name not in wide.columns]
    return wide.with_columns(absent).select("performances", *columns).fill_null(0).sort("performances")


def show(rows: list[dict[str, Any]]) -> None:
    """Print the numbers, one row a split."""
    from rich.console import Console
    from rich.table import Table

    plain = ("split", "works", "unseen", "single", "recordings", "hours")
    spread = ("least", "median", "mean", "most")
    table = Table(*plain, ", ".join(spread), title="works and their performances")
    for row in rows:
        cells = ("" if row[name] is None else str(row[name]) for name in plain)
        table.add_row(*cells, ", ".join(f"{row[name]:g}" for name in spread))
    Console().print(table)


def _write(path: Path, frame: pl.DataFrame) -> None:
    with replacing(path) as part:
        frame.write_csv(part)
