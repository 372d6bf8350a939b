"""How fast cover-song identification is beside its training: metrics of all pairs, queries of an index, preparation."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import scipy.sparse
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tonnetz.audio import read_audible, read_prepared
from tonnetz.build import build_data, connect
from tonnetz.collection import COLUMNS, Collection
from tonnetz.errors import UserError
from tonnetz.frontend import CoverHunterCQT
from tonnetz.frontend.base import mean_pool
from tonnetz.matching import Matching
from tonnetz.metrics.ranking import intervals
from tonnetz.metrics.vectors import Segments
from tonnetz.retrieval import evaluate
from tonnetz.search import search
from tonnetz.store import FeatureStore
from tonnetz.transposition import PITCHES

VERSIONS, DIM, NOISE = 4, 96, 1.0  # recordings of a work, values of a vector, spread of versions about their work
QUERIES = 50  # of an index
PUBLISHED = 5  # recordings that are transformed frame by frame too
DEEPEST = -90.0  # dB below the loudest cell: what is deeper is left out of the comparison of the two ways


def matching_of(task: Any) -> Matching:
    """The matching that the `task` node of a configuration asks for, with a network whose vectors turn with the key."""
    if "reduction" not in task:
        raise UserError("job.recordings, job.vectors: recordings are matched by task=csi; say so")
    return Matching(task.distance, task.reduction, task.transpositions or PITCHES)


def retrieval_times(recordings: int, segments: int, matching: Matching, rounds: int) -> dict[str, Any]:
    """Seconds to rank all recordings for each other and to score that with every metric; of the intervals beside.

    Vectors are random, those of a work about a centre of its own.
    """
    z, row = drawn(recordings, segments)
    start = torch.arange(segments).repeat(recordings).float()
    found = Segments(z, row, row // VERSIONS, start, torch.ones(len(row)))
    scored, spent = timed(lambda: evaluate(found, matching))
    drawing = timed(lambda: intervals(scored, rounds))[1]
    pairs = recordings * (recordings - 1)
    result = {
        "recordings": recordings,
        "segments": segments,
        "seconds": spent.wall,
        "processor_seconds": spent.processor,
    }
    result |= {"microseconds_a_pair": 1e6 * spent.wall / pairs, "interval_seconds": drawing.wall}
    return {**result, "map": scored.values["map"], "memory_gb": memory()}


def query_times(vectors: int, segments: int, matching: Matching) -> dict[str, Any]:
    """Milliseconds that queries take in an index of so many vectors, `segments` a recording: by FAISS, and exactly.

    A query is another version of a recording. `same` is the share of queries whose nearest recording is the exact one.
    """
    z, row = drawn(vectors // segments, segments)
    index = held(z, segments, matching)
    asked = np.random.default_rng(0).integers(len(index), size=QUERIES)
    queries = [z[row == r][None] + 0.5 * NOISE * torch.randn(1, segments, DIM) for r in asked]
    building = timed(index.shortlist)[1]
    quick = [timed(partial(search, index, q, top=10, faiss=True)) for q in queries]
    whole = [timed(partial(search, index, q, top=10, faiss=False)) for q in queries[: QUERIES // 5]]
    same = [a.place[0, 0] == b.place[0, 0] for (a, _), (b, _) in zip(quick, whole, strict=False)]
    wall, processor = 1000 * np.array([spent for _, spent in quick]).T
    result = {"vectors": len(z), "recordings": len(index), "segments": segments, "building_seconds": building.wall}
    result |= {"faiss_ms": np.median(wall), "best_ms": wall.min(), "processor_ms": np.median(processor)}
    result |= {"exact_ms": 1000 * np.median([spent.wall for _, spent in whole]), "same": np.mean(same)}
    return {name: value if isinstance(value, int) else float(value) for name, value in result.items()} | {
        "memory_gb": memory()
    }


def held(z: Tensor, segments: int, matching: Matching) -> Collection:
    """Recordings of so many vectors each, from those of all (M, D), as an index holds them."""
    facts = {"distance": matching.distance, "reduction": matching.reduction, "transpositions": matching.turns}
    index, recordings, norms = Collection(facts), len(z) // segments, z.norm(dim=1)
    columns = {"id": [str(i) for i in range(recordings)], "windows": np.full(recordings, segments)}
    table = pl.DataFrame(columns).with_columns(work=(pl.int_range(pl.len()) // VERSIONS).cast(pl.String))
    lacking = {name: pl.lit(None) for name in COLUMNS if name not in table.columns}
    table = table.with_columns(**lacking).select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
    times = {name: torch.arange(segments).repeat(recordings).float() for name in ("start", "length")}
    index.hold(table, {"vectors": z / norms[:, None], "norms": norms, "tempo": torch.ones(len(z)), **times})
    return index


def preparing_times(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Seconds that the corpora of `data` take from their files to stored audio, and to stored features.

    Everything is done anew, in a folder that is removed. `real_time` is how many times as long they sound. With the
    front-end of CoverHunter a few recordings go the way of its authors too: `published_real_time`, by how much ours is
    as fast, and the largest difference of what is stored from what that way makes of the stored audio, in dB, among
    cells less than 90 dB below the loudest.
    """
    with TemporaryDirectory(dir=folder) as place:
        chosen = cfg.copy()
        OmegaConf.update(chosen, "paths.data", place)
        frontend = connect(chosen.frontend)
        data = build_data(chosen, frontend)
        table, decoding = timed(lambda: data.everything)
        store, storing = timed(data.features)
        peer = beside_published(table, store, frontend) if isinstance(frontend, CoverHunterCQT) else {}
    sounding = float(table["samples"].sum()) / frontend.sample_rate
    seconds, processor = decoding.wall + storing.wall, decoding.processor + storing.processor
    result = {"recordings": table.height, "hours": sounding / 3600, "audio_seconds": decoding.wall}
    result |= {"feature_seconds": storing.wall, "processor_seconds": processor, "real_time": sounding / seconds}
    if peer:
        peer["times_as_fast"] = result["real_time"] / peer["published_real_time"]
    return {**result, "features_real_time": sounding / storing.wall, **peer, "memory_gb": memory()}


def beside_published(table: pl.DataFrame, store: FeatureStore, frontend: CoverHunterCQT) -> dict[str, float]:
    """How many times real time files are decoded and transformed one frame after the other, as CoverHunter does it.

    Of the first recordings of a table; with `difference_db`, the largest of their stored features from that way, where
    no frame of a mean is deeper than `DEEPEST`.
    """
    rows, spent, furthest = table.head(PUBLISHED), 0.0, 0.0
    spectra = frontend.kernels()  # (F, n_fft) about the frame's centre, so the sign alternates
    kernels = scipy.sparse.csr_matrix(spectra * (-1.0) ** np.arange(spectra.shape[1]))
    places = rows.select("audio", "header", "first", "samples").rows()

    def transformed(path: str) -> np.ndarray:
        signal, _, peak = read_audible(path, frontend.sample_rate)
        return frame_by_frame(signal, peak, kernels, frontend)

    for number, (path, place) in enumerate(zip(rows["path"], places, strict=True)):
        spent += timed(partial(transformed, path))[1].wall
        signal = read_prepared(*place)
        raw = frame_by_frame(signal, float(np.abs(signal).max()), kernels, frontend)  # (T', F)
        deep = np.where(raw > DEEPEST, raw, np.nan)  # in a mean even one such frame weighs
        theirs = mean_pool(torch.from_numpy(deep.T), frontend.mean_size).T.numpy()  # (T, F)
        ours = store.read(np.array([number]), np.array([0]), len(theirs))[0][0, 0].T  # (T, F)
        furthest = max(furthest, float(np.nanmax(np.abs(ours - theirs))))
    seconds = float(rows["samples"].sum()) / frontend.sample_rate
    return {"published_real_time": seconds / spent, "difference_db": furthest}


def frame_by_frame(signal: np.ndarray, peak: float, kernels: Any, frontend: CoverHunterCQT) -> np.ndarray:
    """The constant-Q (T, F) in dB of samples (N,): a whole FFT and a sparse product for each frame."""
    n_fft, hop = kernels.shape[1], frontend.raw_hop
    sides = -(-(n_fft - hop) // 2), (n_fft - hop) // 2
    padded = np.pad(signal.astype(np.float64) * (0.999 / peak), sides)
    frames = (padded[t * hop : t * hop + n_fft] for t in range(len(signal) // hop))
    magnitude = np.stack([np.abs(kernels @ np.fft.fft(frame)) for frame in frames]) + 1e-9  # (T, F)
    return 20 * np.log10(magnitude / magnitude.max())


def drawn(recordings: int, segments: int) -> tuple[Tensor, Tensor]:
    """Vectors (M, D) of recordings, each segment near that of the other versions of the work, and their row (M,)."""
    generator = torch.Generator().manual_seed(0)
    works = -(-recordings // VERSIONS)
    centre = torch.randn(works, segments, DIM, generator=generator)
    row = torch.arange(recordings)
    z = centre[row // VERSIONS] + NOISE * torch.randn(recordings, segments, DIM, generator=generator)
    return z.flatten(0, 1), row.repeat_interleave(segments)


class Spent(NamedTuple):
    """Seconds that passed, and those of the processor in all threads, which other work on the machine disturbs less."""

    wall: float
    processor: float


def timed(work: Callable[[], Any]) -> tuple[Any, Spent]:
    """What it gives, and what it takes."""
    wall, processor = time.perf_counter(), time.process_time()
    return work(), Spent(time.perf_counter() - wall, time.process_time() - processor)


def memory() -> float:
    """The most memory (GB) that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def tell(what: str, result: dict[str, Any]) -> None:
    """Print one line."""
    values = (
        f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value:,}" for name, value in result.items()
    )
    print(f"{what}: {'  '.join(values)}")
