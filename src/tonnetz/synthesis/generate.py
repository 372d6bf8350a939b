"""Write scores as audio files: in parallel, atomically; what is there already is kept. Workers never import
torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tonnetz.atomic import replacing
from tonnetz.synthesis.render import Score, render


@dataclass(frozen=True)
class Job:
    """One file to write: its place, its score, and how it is rendered."""

    path: str
    score: Score
    seconds: float
    rate: int
    seed: int


def write(job: Job) -> str:
    """Render one job as 16-bit mono WAV, through a temporary file; returns its path."""
    import soundfile

    audio = render(job.score, seconds=job.seconds, rate=job.rate, seed=job.seed)
    with replacing(job.path) as part:
        soundfile.write(str(part), audio, job.rate, subtype="PCM_16", format="WAV")
    return job.path


def _write_all(jobs: Sequence[Job]) -> int:
    for job in jobs:
        write(job)
    return len(jobs)


def generate(jobs: Sequence[Job], workers: int = 0, progress: Callable[[int, int], None] | None = None) -> int:
    """Write every job whose file is missing; returns how many were. workers: processes, 0: one a core."""
    todo = [job for job in jobs if not Path(job.path).exists()]
    for folder in {Path(job.path).parent for job in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    processes = min(workers or os.cpu_count() or 1, -(-len(todo) // 8))
    done = 0
    if processes <= 1:
        for job in todo:
            write(job)
            done += 1
            if progress:
                progress(done, len(todo))
        return done
    # a fresh interpreter per worker: forking a process that runs torch threads may hang
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        batches = [pool.submit(_write_all, todo[start : start + 8]) for start in range(0, len(todo), 8)]
        for batch in as_completed(batches):
            done += batch.result()
            if progress:
                progress(done, len(todo))
    return done
