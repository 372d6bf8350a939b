"""job=episodes: the episodes that a test or a validation judges by, as a list that others can use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from tonnetz.data import EpisodePlan
from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Episodes, Pool, left_out, save_episodes
from tonnetz.fewshot.protocol import PARTS, Protocol
from tonnetz.manifest import Run


def run(cfg: DictConfig, run: Run) -> None:
    """Write `job.out` (episodes.jsonl), one line of clip ids an episode, and print what is in it."""
    from tonnetz.build import build_data, connect

    stage = cfg.job.stage
    if stage not in PARTS:
        raise UserError(f"job.stage={stage}: known are {', '.join(PARTS)}")
    if "evaluation" not in cfg.task:
        raise UserError("job=episodes: this task has none; add task=fewshot")
    protocol = _counted(connect(cfg.task.evaluation), cfg.job.count)
    data = build_data(cfg, connect(cfg.frontend))
    frame, pool = data.split(stage), data.pool(stage)
    if not frame.height or pool is None or not isinstance(data.plan, EpisodePlan):
        raise UserError(f"job.stage={stage}: no tracks in this split; see data.valid, data.test and data.fixed")
    ids = frame["id"].to_list()
    _check_ids(ids)
    how = {"again": data.plan.replacement, "insufficient": data.plan.insufficient}
    episodes = protocol.draw(pool, stage, ids, **how).part(0, cfg.job.count)
    needed = protocol.sizes(stage)
    dropped = pool.dropped(*needed, data.plan.insufficient, data.plan.replacement)
    if dropped:
        print(left_out(stage, dropped, *needed, data.plan.insufficient))
    out = Path(cfg.job.out) if cfg.job.out else run.folder / "episodes.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_episodes(episodes, out, ids, pool.names)
    facts = summary(episodes, pool)
    show(facts, stage)
    print(out)
    run.facts["episodes"] = {"file": str(out), "stage": stage, **facts, "dropped": dropped}


def _counted(protocol: Protocol, count: Any) -> Protocol:
    """The protocol with so many episodes; null keeps its own number."""
    if count is None:
        return protocol
    if not isinstance(count, int) or count < 1:
        raise UserError(f"job.count={count}: must be a whole number above 0, or null")
    return replace(protocol, episodes=count, valid_episodes=count)


def _check_ids(ids: list[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"clip '{name}' is there twice, so a list cannot name it; rename one of them")
        seen.add(name)


def summary(episodes: Episodes, pool: Pool) -> dict[str, Any]:
    """What a list of episodes holds: numbers, and for each class in how many episodes it is and which clips it uses."""
    used = np.concatenate([getattr(episodes, name).ravel() for name in ("support", "query", "unknown")])
    clips = np.unique(used[used >= 0])
    known = np.bincount(episodes.classes[episodes.classes >= 0], minlength=len(pool.names))
    first = episodes.unknown[:, :, 0] if episodes.unknown.size else np.zeros(0, np.int64)
    strange = np.bincount(pool.groups[first[first >= 0]], minlength=len(pool.names))
    drawn = np.bincount(pool.groups[clips], minlength=len(pool.names))
    classes = {
        name: {"episodes": int(known[c]), "unknown": int(strange[c]), "used": int(drawn[c]), "clips": len(pool.rows[c])}
        for c, name in enumerate(pool.names)
        if c in pool.rows
    }
    return {
        "episodes": len(episodes),
        "ways": _range((episodes.classes >= 0).sum(1)),
        "shots": _range(_sizes(episodes.support)),
        "queries": _range(_sizes(episodes.query)),
        "used": len(clips),
        "clips": sum(len(rows) for rows in pool.rows.values()),
        "classes": classes,
    }


def _sizes(rows: np.ndarray) -> np.ndarray:
    """Clips of every class that is there, of rows (E, C, S)."""
    sizes: np.ndarray = (rows >= 0).sum(2)
    return sizes[sizes > 0]


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}-{high}"


def show(facts: dict[str, Any], stage: str) -> None:
    """Print how often each class is drawn, and how many of its clips."""
    from rich.console import Console
    from rich.table import Table

    sizes = ", ".join(f"{facts[name]} {name}" for name in ("ways", "shots", "queries"))
    title = f"{facts['episodes']:,} {stage} episodes: {sizes}"
    table = Table("class", "episodes", "as unknown", "clips used", "of", title=title)
    for name, row in facts["classes"].items():
        table.add_row(name, *(f"{row[key]:,}" for key in ("episodes", "unknown", "used", "clips")))
    table.add_row("all", "", "", f"{facts['used']:,}", f"{facts['clips']:,}", style="bold")
    Console().print(table)
