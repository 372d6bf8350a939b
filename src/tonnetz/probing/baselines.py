"""The rows that every probe stands beside, and what to do where one is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BASELINES = ("random", "mfcc", "chroma", "constant")


def subjects(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that are no baselines."""
    return [row for row in rows if not row["baseline"]]


def absent(rows: Sequence[Mapping[str, Any]], imported: bool) -> dict[str, str]:
    """The baselines that rows lack, with the remedy. `imported`: the features are files, without a checkpoint."""
    there = {row["features"].split()[0] for row in rows if row["baseline"]}
    found = {}
    for kind in BASELINES:
        if kind not in there:
            found[kind] = f"run it again with job.baselines=[{','.join(BASELINES)}], which keeps what is done"
            if kind == "random" and imported:
                found[kind] = (
                    "files do not say which network made them; give ckpt=RUN/checkpoints/best.ckpt beside "
                    "job.features, and its network is the one that stays untrained"
                )
    return found


def complaints(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each baseline that a table of probe results (by run) lacks: which runs, which row, what to do.

    An untrained network is a run's own; of the others one row is for all runs.
    """
    lacking = {name: absent(result["rows"], result["checkpoint"] is None) for name, result in results.items()}
    lines = []
    for kind in BASELINES:
        runs = {name: found[kind] for name, found in lacking.items() if kind in found}
        if kind == "random" or len(runs) == len(results):
            for remedy in dict.fromkeys(runs.values()):
                names = ", ".join(name for name in runs if runs[name] == remedy)
                lines.append(f"{names}: no row '{kind}': {remedy}")
    return lines
