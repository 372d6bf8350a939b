"""By how much the model is ahead of the rows beside it, tested on the same tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tonnetz.metrics.bootstrap import percentiles


def add_leads(rows: Sequence[dict[str, Any]], reference: Mapping[str, Any], metric: str) -> None:
    """Give every other row `lead`: the reference's test score minus its own, and the paired bootstrap's 95 % of it.

    Rows must have been tested on the same tracks, with one seed (see metrics.bootstrap.resampled).
    """
    for row in rows:
        if row is reference or "draws" not in row or len(row["draws"]) != len(reference.get("draws", [])):
            continue
        apart = torch.tensor(reference["draws"], dtype=torch.float64) - torch.tensor(row["draws"], dtype=torch.float64)
        low, high = percentiles(apart)
        row["lead"] = {"value": reference["test"][metric] - row["test"][metric], "low": low, "high": high}


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row that validation would choose, the first of equal ones."""
    return max(rows, key=lambda row: row["valid"])
