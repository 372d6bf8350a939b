"""What the folders of runs tell afterwards: all validations of all parts, the best ones, the trend at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

LAST = 6  # validations that the trend at the end is taken from


def read_history(folder: Path) -> pl.DataFrame:
    """The validations of a run (its metrics.csv), empty when there are none."""
    path = folder / "metrics.csv"
    if not path.exists():
        return pl.DataFrame()
    frame = pl.read_csv(path, infer_schema=False)
    return frame.select(pl.col(name).cast(pl.Float64, strict=False) for name in frame.columns).cast(
        {name: pl.Int64 for name in ("step", "epoch") if name in frame.columns}
    )


def histories(folders: Mapping[str, Path]) -> pl.DataFrame:
    """The validations of runs that followed one another, in this order; `elapsed` seconds since the first began."""
    parts, before = [], 0.0
    for name, folder in folders.items():
        frame = read_history(folder)
        if frame.height:
            seconds = frame["seconds"] if "seconds" in frame.columns else pl.Series([0.0] * frame.height)
            parts.append(frame.select(pl.lit(name).alias("run"), elapsed=seconds + before).hstack(frame))
            before += float(seconds[-1])
    return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame()


def add_mean(frame: pl.DataFrame, monitor: str, score: str) -> pl.DataFrame:
    """Add the column `mean`: of the score over further sets where there are some, else the monitored value."""
    sets = [name for name in frame.columns if name.startswith("sets/") and name.endswith(f"/{score}")]
    chosen = sets or [name for name in [monitor] if name in frame.columns]
    mean = pl.mean_horizontal(chosen) if chosen else pl.lit(None, pl.Float64)
    return frame.with_columns(mean=mean)


def leaders(frame: pl.DataFrame, columns: Sequence[str], mode: str = "max", count: int = 3) -> dict[str, Any]:
    """The `count` best validations by each of the columns, as plain rows; earlier ones first among equals."""
    found: dict[str, Any] = {}
    for column in columns:
        scored = frame.filter(pl.col(column).is_not_null() & pl.col(column).is_not_nan())
        top = scored.sort(column, descending=mode == "max", maintain_order=True).head(count)
        found[column] = top.select("run", "epoch", "step", "elapsed", *columns).to_dicts()
    return found


def slope(values: Sequence[float]) -> float | None:
    """Change of a metric by validation at the end: least squares over the last six; none of fewer than two."""
    last = np.array(values[-LAST:], float)
    last = last[np.isfinite(last)]
    return float(np.polyfit(np.arange(len(last)), last, 1)[0]) if len(last) > 1 else None
