"""Datasets that read excerpts of prepared audio, or of stored features, straight into one array a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset

from tonnetz.audio import read_pcm, window_starts
from tonnetz.data.plan import Plan, chances
from tonnetz.store import FeatureStore

Batch = dict[str, torch.Tensor]


class Tracks:
    """The columns of a prepared split that workers need, as arrays (Python lists would grow in every worker)."""

    def __init__(self, frame: pl.DataFrame, labels: np.ndarray, normalize: bool = True) -> None:
        self.paths = np.array(frame["audio"].to_list(), dtype=np.bytes_)  # (rows,)
        self.header = frame["header"].to_numpy()  # (rows,) bytes before the samples
        self.first = frame["first"].to_numpy()  # (rows,) samples into the prepared file
        self.samples = frame["samples"].to_numpy()  # (rows,)
        peak = frame["peak"].to_numpy() if normalize else np.ones(frame.height)
        self.gain = (1 / (32768 * peak)).astype(np.float32)  # (rows,) from int16 to audio
        self.labels = torch.from_numpy(labels)  # (rows, K)
        self.number = frame["number"].to_numpy()  # (rows,) row in the feature store

    def __len__(self) -> int:
        return len(self.samples)


class _Reader(Dataset[Batch]):
    """Reads excerpts (row, start in samples) of `window` samples, from audio or from stored features."""

    def __init__(self, tracks: Tracks, plan: Plan, sample_rate: int, store: FeatureStore | None = None) -> None:
        self.tracks, self.plan, self.sample_rate, self.store = tracks, plan, sample_rate, store
        self.window = round(plan.seconds * sample_rate)

    def read(self, rows: np.ndarray, starts: np.ndarray) -> Batch:
        """Return a batch of the excerpts; `rows` (B,), `starts` (B,) in samples."""
        values = self._features(rows, starts) if self.store else self._audio(rows, starts)
        row = torch.from_numpy(rows)
        return {
            **values,
            "row": row,
            "start": torch.from_numpy(starts / self.sample_rate),
            "label": self.tracks.labels[row],
        }

    def _audio(self, rows: np.ndarray, starts: np.ndarray) -> Batch:
        tracks, repeat = self.tracks, self.plan.pad == "repeat"
        lengths = np.minimum(tracks.samples[rows] - starts, self.window)  # (B,)
        audio = np.zeros((len(rows), 1, self.window), np.float32)  # (B, 1, N)
        pcm = np.zeros(self.window, "<i2")
        first = tracks.first[rows] + starts
        for out, row, begin, length in zip(audio[:, 0], rows, first, lengths, strict=True):
            read_pcm(tracks.paths[row], tracks.header[row], begin, pcm[:length])
            np.multiply(pcm[:length], tracks.gain[row], out=out[:length])
            if repeat:
                out[:] = np.resize(out[:length], self.window)
        if repeat:
            lengths = np.full_like(lengths, self.window)
        return {"audio": torch.from_numpy(audio), "lengths": torch.from_numpy(lengths)}

    def _features(self, rows: np.ndarray, starts: np.ndarray) -> Batch:
        assert self.store is not None
        features, lengths = self.store.read(self.tracks.number[rows], starts, self.window)
        return {"features": torch.from_numpy(features), "lengths": torch.from_numpy(lengths)}


class TrainExcerpts(_Reader):
    """One excerpt of a row at a random start, which depends on (seed, position in the stream) alone."""

    def __init__(
        self, tracks: Tracks, plan: Plan, sample_rate: int, seed: int, store: FeatureStore | None = None
    ) -> None:
        super().__init__(tracks, plan, sample_rate, store)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> Batch:
        positions, rows = np.array(indices).T
        chance = chances(self.seed, positions)
        room = np.maximum(self.tracks.samples[rows] - self.window, 0)
        return self.read(rows, (chance * (room + 1)).astype(np.int64))


class Windows(_Reader):
    """All windows of all rows: they cover every recording to its end."""

    def __init__(self, tracks: Tracks, plan: Plan, sample_rate: int, store: FeatureStore | None = None) -> None:
        super().__init__(tracks, plan, sample_rate, store)
        hop = round((plan.hop or plan.seconds) * sample_rate)
        starts = [window_starts(samples, self.window, hop) for samples in tracks.samples]
        self.rows = np.repeat(np.arange(len(tracks)), [len(s) for s in starts])  # (windows,)
        self.starts = np.concatenate([*starts, np.zeros(0, np.int64)]).astype(np.int64)  # (windows,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = np.asarray(indices)
        return self.read(self.rows[chosen], self.starts[chosen])


class Loader(DataLoader[Batch]):
    """Reads batches ahead in threads, and remembers its place in the epoch for the checkpoint.

    Reading prepared audio is one system call an excerpt, which releases Python's lock; processes would only add the
    cost of sending every batch. Lightning sees a DataLoader.
    """

    dataset: Any  # wider than torch's types: whole batches come from __getitems__, the sampler has a place
    batch_sampler: Any

    def __init__(self, dataset: Any, batch_sampler: Any, threads: int) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, collate_fn=_whole)
        self.threads = threads
        self._yielded = 0

    def __iter__(self) -> Any:
        self._yielded = getattr(self.batch_sampler, "skip", 0)
        for batch in ahead(self._read, iter(self.batch_sampler), self.threads):
            self._yielded += 1
            yield batch

    def _read(self, indices: Any) -> Batch:
        batch = self.dataset.__getitems__(indices)
        return {k: v.pin_memory() for k, v in batch.items()} if torch.cuda.is_available() else batch

    def state_dict(self) -> dict[str, int]:
        """Batches of this epoch that training has taken, 0 at its end (Lightning asks for it)."""
        return {"batch": self._yielded % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next iteration after the batches already taken."""
        self.batch_sampler.skip = state["batch"]


def _whole(batch: Any) -> Any:
    """Collate nothing: the datasets return whole batches."""
    return batch


def ahead(work: Callable[[Any], Any], items: Iterator[Any], threads: int) -> Iterator[Any]:
    """Yield ``work(item)`` in order, working a few items ahead in threads; 0 threads work when asked."""
    if not threads:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
