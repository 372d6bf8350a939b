"""job=prepare: find, check, decode and resample a corpus, and say what was found."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from omegaconf import DictConfig

from tonnetz.data import AudioData
from tonnetz.manifest import Run, write_csv
from tonnetz.tracks import SPLITS, fingerprint


def run(cfg: DictConfig, run: Run) -> None:
    """Prepare the corpora of `data`; with ``job.features=true`` store the front-end's output too."""
    from tonnetz.build import build_data, connect

    data = build_data(cfg, connect(cfg.frontend))
    show(data)
    tell_missing(data, run.folder)
    if cfg.job.features:
        store = data.features()
        print(f"features: {int(store.frames.sum()):,} frames in {store.folder}")
    run.facts["data"] = summary(data)


def summary(data: AudioData) -> dict[str, object]:
    """What the manifest keeps about the data."""
    table = data.table
    return {
        "fingerprint": fingerprint(table),
        "tracks": {name: int((table["split"] == name).sum()) for name in SPLITS},
        "hours": round(float(table["duration"].sum()) / 3600, 3),
        "coverage": {corpus.name: corpus.coverage for corpus in data.corpora if corpus.coverage},
        "partition": data.partition,
    }


def tell_missing(data: AudioData, folder: Path) -> None:
    """Write `missing.csv`, the recordings that the corpora list but have no audio of, and say so; nothing for none."""
    corpora = [*data.corpora, *(chosen.corpus for chosen in data.sets.values())]
    lost = [(corpus.name, id_) for corpus in corpora for id_ in (corpus.coverage or {}).get("missing", [])]
    path = folder / "missing.csv"
    path.unlink(missing_ok=True)  # of an earlier run in this folder
    if lost:
        write_csv(path, [{"id": id_, "corpus": name} for name, id_ in dict.fromkeys(lost)])
        some = "1 listed recording has" if len(lost) == 1 else f"{len(lost)} listed recordings have"
        print(f"{some} no audio, see {path}")


def show(data: AudioData) -> None:
    """Print what was found: tracks and hours by corpus and split, tracks by class and split.

    Where training asks which tracks are of one work, classes do not matter and works are counted instead.
    """
    from rich.console import Console
    from rich.table import Table

    table, works = data.table, data.plan.group == "work"
    found = Table("corpus", *SPLITS, "hours", title="tracks of works" if works else "tracks")
    for (corpus,), rows in table.group_by("corpus", maintain_order=True):
        counts = [_count(rows.filter(split=name), works) for name in SPLITS]
        found.add_row(str(corpus), *counts, f"{rows['duration'].sum() / 3600:.2f}")
    console = Console()
    console.print(found)
    for note in data.notes:
        console.print(note)
    long = table.select("split", "labels").explode("labels").drop_nulls("labels")
    if works or not long.height:
        return
    wide = (
        long.group_by("labels", "split").len().pivot("split", index="labels", values="len").fill_null(0).sort("labels")
    )
    classes = Table("class", *SPLITS, title=f"{wide.height} classes")
    for row in wide.iter_rows(named=True):
        classes.add_row(row["labels"], *(str(row.get(name, 0)) for name in SPLITS))
    console.print(classes)


def _count(rows: pl.DataFrame, works: bool) -> str:
    """How many tracks, and of how many works."""
    known = rows["work"].drop_nulls().n_unique() if works else 0
    return f"{rows.height} of {known}" if known else str(rows.height)
