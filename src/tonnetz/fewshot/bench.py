"""What embedding every clip once saves: few-shot episodes as index arithmetic, against embedding each one anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonnetz.data.excerpts import Loader, Windows
from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Episodes
from tonnetz.fewshot.protocol import Answers, Protocol, answer
from tonnetz.windows import mean_by_row

TIE = 1e-2  # of the range of a query's scores: below it the rounding of other batches may decide


@torch.no_grad()
def judging_times(experiment: Any, device: torch.device, count: int, shots: Sequence[int]) -> dict[str, Any]:
    """Seconds that all test episodes take both ways, at all numbers of shots; the slow way is timed on `count` of them.

    The slow way reads and embeds the clips of every episode, for every number of shots, with the same loader, and
    answers as many questions. Raises RuntimeError when one of its answers is another.
    """
    task, data = experiment.task.to(device).eval(), experiment.data
    protocol = getattr(task, "protocol", None)
    if not isinstance(protocol, Protocol):
        raise UserError("job.episodes: judges few-shot episodes; take task=fewshot, or job.episodes=null")
    if count < 1:
        raise UserError(f"job.episodes={count}: must be at least 1, or null")
    protocol = replace(protocol, shots=list(shots))
    task.on_test_start()
    windows = data.dataset("test")
    ids = data.split("test")["id"].to_list()
    how = {"again": data.plan.replacement, "insufficient": data.plan.insufficient}
    clips = np.arange(len(ids))
    _vectors(task, data, windows, clips[:1], device)  # everything is loaded and has run

    start = time.perf_counter()
    episodes = protocol.draw(data.pool("test"), "test", ids, **how)
    drawn = time.perf_counter() - start
    z = _vectors(task, data, windows, clips, device)
    embedded = time.perf_counter() - start - drawn
    quick = {n: answer(z, episodes.fewer(n), task.own) for n in protocol.settings}
    once = time.perf_counter() - start

    some = episodes.part(0, count)
    start = time.perf_counter()
    slow = {}
    for n in protocol.settings:
        fewer = some.fewer(n)
        slow[n] = [_alone(task, data, windows, fewer.part(i, i + 1), device) for i in range(len(some))]
    each = (time.perf_counter() - start) / len(some)
    same = [_same(quick[n], slow[n]) for n in protocol.settings]
    return {
        "episodes": len(episodes),
        "shots": protocol.settings,
        "clips": len(ids),
        "once": {"draw": drawn, "embed": embedded, "answer": once - drawn - embedded, "all": once},
        "again": {"episodes": len(some), "seconds_each": each, "all": each * len(episodes)},
        "answers": {"same": sum(a for a, _ in same), "compared": sum(b for _, b in same)},
        "ratio": each * len(episodes) / once,
        "accuracy": {n: float(found.accuracy.mean()) for n, found in quick.items()},
    }


def _vectors(task: Any, data: Any, windows: Windows, rows: np.ndarray, device: torch.device) -> Tensor:
    """Vectors (rows, D) of some rows (R,) of the split: means over their windows; zeros elsewhere."""
    places = np.flatnonzero(np.isin(windows.rows, rows))
    chunks = [places[i : i + data.batch_size] for i in range(0, len(places), data.batch_size)]
    parts, found = [], []
    for batch in Loader(windows, chunks, data.workers):
        parts.append(task.embed({key: value.to(device) for key, value in batch.items()}).float())
        found.append(batch["row"].to(device))
    return mean_by_row(torch.cat(parts), torch.cat(found), len(windows.tracks))


def _alone(task: Any, data: Any, windows: Windows, episode: Episodes, device: torch.device) -> Answers:
    """The answers in one episode whose clips are embedded for it."""
    rows = np.unique(np.concatenate([side.ravel() for side in (episode.support, episode.query, episode.unknown)]))
    return answer(_vectors(task, data, windows, rows[rows >= 0], device), episode, task.own)


def _same(quick: Answers, slow: Sequence[Answers]) -> tuple[int, int]:
    """How many answers are the same, of how many. Raises RuntimeError when one that is no near tie is another."""
    count = len(slow)
    best = quick.logits[:count].topk(2).values  # (E, M, 2)
    low = torch.where(quick.logits.isinf(), torch.inf, quick.logits).amin(-1)[:count]
    asked = quick.asked[:count]
    clear = (best[..., 0] - best[..., 1] > TIE * (best[..., 0] - low)) & asked
    other = torch.cat([found.answer for found in slow]) != quick.answer[:count]
    if (other & clear).any():
        raise RuntimeError(f"{int((other & clear).sum())} answers change when clips are embedded anew for an episode")
    return int((asked & ~other).sum()), int(asked.sum())


def show_judging(found: dict[str, Any]) -> None:
    """Print both ways side by side."""
    once, again, answers = found["once"], found["again"], found["answers"]
    shots = ", ".join(map(str, found["shots"]))
    print(
        f"judging {found['episodes']:,} episodes at {shots} shots: {once['all']:.2f} s with "
        f"{found['clips']:,} clips embedded once (drawing {once['draw']:.2f}, embedding {once['embed']:.2f}, answering "
        f"{once['answer']:.2f}); embedding each episode anew {again['all']:,.0f} s (from {again['episodes']} episodes, "
        f"{answers['same']:,} of {answers['compared']:,} answers the same): {found['ratio']:,.0f} times as long"
    )
