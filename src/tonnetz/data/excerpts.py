"""Datasets that read excerpts of prepared audio, or of stored features, straight into one array a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset

from tonnetz.ahead import ahead
from tonnetz.alignment import Alignment
from tonnetz.audio import read_pcm
from tonnetz.data.plan import Plan, chances, evaluation_starts
from tonnetz.fewshot.episodes import Pool
from tonnetz.frontend import Frontend
from tonnetz.store import FeatureStore

Batch = dict[str, torch.Tensor]
EPISODE = ("episode", "slot", "support")  # what a stream of episodes says of each excerpt beside position and row


def peaks(normalize: bool) -> pl.Expr:
    """What prepared samples are divided by: their peak, or what gives them the level of the source file."""
    return pl.col("peak") if normalize else (1 / pl.col("level")).alias("peak")


class Tracks:
    """The columns of a prepared split that workers need, as arrays (Python lists would grow in every worker)."""

    def __init__(
        self,
        frame: pl.DataFrame,
        labels: np.ndarray,
        normalize: bool = True,
        groups: np.ndarray | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.ids = np.array(frame["id"].to_list(), dtype=np.str_)  # (rows,)
        self.paths = np.array([os.fsencode(path) for path in frame["audio"]], dtype=np.bytes_)  # (rows,)
        self.header = frame["header"].to_numpy()  # (rows,) bytes before the samples
        self.first = frame["first"].to_numpy()  # (rows,) samples into the prepared file
        self.samples = frame["samples"].to_numpy()  # (rows,)
        peak = frame.select(peaks(normalize)).to_series().to_numpy()
        self.gain = (1 / (32768 * peak)).astype(np.float32)  # (rows,) from int16 to audio
        self.labels = labels  # (rows, K)
        self.number = frame["number"].to_numpy()  # (rows,) row in the feature store
        self.groups = groups  # (rows,) code of the plan's group, -1 unknown
        self.pool = pool  # of episodes, where the plan asks for them

    def __len__(self) -> int:
        return len(self.samples)


class _Reader(Dataset[Batch]):
    """Reads excerpts (row, start in samples), from audio or from stored features."""

    def __init__(self, tracks: Tracks, plan: Plan, frontend: Frontend, store: FeatureStore | None = None) -> None:
        self.tracks, self.plan, self.frontend, self.store = tracks, plan, frontend, store
        self.sample_rate = frontend.sample_rate

    def samples(self, seconds: float) -> int:
        """Seconds as samples."""
        return round(seconds * self.sample_rate)

    def read(self, rows: np.ndarray, starts: np.ndarray, window: int, tempi: np.ndarray | None = None) -> Batch:
        """Return excerpts of `window` samples; `rows` (B,), `starts` (B,) in samples, `tempi` (B,) or null."""
        if self.store:
            values = self._features(rows, starts, window, np.ones(len(rows)) if tempi is None else tempi)
        else:
            values = self._audio(rows, starts, window)
        values |= {
            "row": torch.from_numpy(rows),
            "start": torch.from_numpy(starts / self.sample_rate),
            "label": torch.from_numpy(self.tracks.labels[rows]),
        }
        if self.tracks.groups is not None:
            values["group"] = torch.from_numpy(self.tracks.groups[rows])
        return values

    def _audio(self, rows: np.ndarray, starts: np.ndarray, window: int) -> Batch:
        tracks, repeat = self.tracks, self.plan.pad == "repeat"
        lengths = np.minimum(tracks.samples[rows] - starts, window)  # (B,)
        audio = np.zeros((len(rows), 1, window), np.float32)  # (B, 1, N)
        pcm = np.zeros(window, "<i2")
        first = tracks.first[rows] + starts
        for out, row, begin, length in zip(audio[:, 0], rows, first, lengths, strict=True):
            read_pcm(tracks.paths[row], tracks.header[row], begin, pcm[:length])
            np.multiply(pcm[:length], tracks.gain[row], out=out[:length])
            if repeat:
                out[:] = np.resize(out[:length], window)
        if repeat:
            lengths = np.full_like(lengths, window)
        return {"audio": torch.from_numpy(audio), "lengths": torch.from_numpy(lengths)}

    def _features(self, rows: np.ndarray, starts: np.ndarray, window: int, tempi: np.ndarray) -> Batch:
        assert self.store is not None
        count = max(1, int(self.frontend.frames(torch.tensor(window))))
        first = starts // self.frontend.hop
        features, lengths = self.store.read(
            self.tracks.number[rows], first, count, tempi, repeat=self.plan.pad == "repeat"
        )
        return {"features": torch.from_numpy(features), "lengths": torch.from_numpy(lengths)}


class TrainExcerpts(_Reader):
    """One excerpt of a row at a random start (and tempo), which depend on (seed, position in the stream) alone.

    With an `alignment`, the excerpts of a group show the same place of the work as the first of them. `batch_size` is
    that of all ranks together: those of one step have one length.
    """

    def __init__(
        self,
        tracks: Tracks,
        plan: Plan,
        frontend: Frontend,
        seed: int,
        batch_size: int,
        store: FeatureStore | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__(tracks, plan, frontend, store)
        self.seed, self.batch_size, self.alignment = seed, batch_size, alignment

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> Batch:
        positions, rows, *episode = np.asarray(indices).T
        window = self.samples(self.plan.length(self.seed, int(positions[0]) // self.batch_size))
        tempi = self._tempi(positions)
        room = self.tracks.samples[rows] - window
        if tempi is not None:
            tempi = np.minimum(tempi, np.maximum(self.tracks.samples[rows] / window, self.plan.rates[0]))
            room = self.tracks.samples[rows] - np.ceil(window * tempi).astype(np.int64)
        chance = chances(self.seed, positions) if self.plan.start == "random" else np.zeros(len(rows))
        starts = (chance * (np.maximum(room, 0) + 1)).astype(np.int64)
        starts = self.plan.place(starts, room, window)
        if self.alignment is not None:
            spans = window * (np.ones(len(rows)) if tempi is None else tempi)
            starts = self._aligned(self.alignment, positions, rows, starts, spans).clip(0, np.maximum(room, 0))
        batch = self.read(rows, starts, window, tempi)
        return batch | {name: torch.from_numpy(values.copy()) for name, values in zip(EPISODE, episode, strict=False)}

    def _aligned(
        self, alignment: Alignment, positions: np.ndarray, rows: np.ndarray, starts: np.ndarray, spans: np.ndarray
    ) -> np.ndarray:
        """Starts (B,) in samples that put the middle of each excerpt where the middle of its group's first one is.

        `starts` (B,) stand where a pair is not aligned, and where a recording comes again; `spans` (B,) are lengths.
        """
        first = positions - positions[0]
        first -= first % self.plan.items  # (B,) place of the first of the group
        middle = (starts + spans / 2) / self.sample_rate  # (B,) seconds
        there = alignment.lookup(self.tracks.ids[rows[first]], self.tracks.ids[rows], middle[first])
        there[rows[first] == rows] = np.nan
        shake = self.plan.jitter * (2 * chances(self.seed + 2, positions) - 1)
        found = (there + shake) * self.sample_rate - spans / 2
        return np.where(np.isnan(found), starts, np.nan_to_num(found).round()).astype(np.int64)

    def _tempi(self, positions: np.ndarray) -> np.ndarray | None:
        if self.plan.stretch is None:
            return None
        low, high = np.log(self.plan.rates)
        return np.exp(low + (high - low) * chances(self.seed + 1, positions))


class Windows(_Reader):
    """All windows of all rows: they cover every recording to its end, once at each tempo of the plan.

    With `most`, so many of a recording, evenly spread.
    """

    def __init__(
        self,
        tracks: Tracks,
        plan: Plan,
        frontend: Frontend,
        store: FeatureStore | None = None,
        most: int | None = None,
    ) -> None:
        super().__init__(tracks, plan, frontend, store)
        self.window = self.samples(plan.span)
        parts = []
        for tempo in plan.tempi:
            starts = [evaluation_starts(plan, samples, self.sample_rate, tempo) for samples in tracks.samples]
            starts = [few(s, most) for s in starts] if most else starts
            rows = np.repeat(np.arange(len(tracks)), [len(s) for s in starts])
            parts.append((rows, np.concatenate([*starts, np.zeros(0, np.int64)]), np.full(len(rows), tempo)))
        self.rows, self.starts, self.tempi = (np.concatenate(values) for values in zip(*parts, strict=True))
        self.starts = self.starts.astype(np.int64)  # (windows,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = np.asarray(indices)
        batch = self.read(self.rows[chosen], self.starts[chosen], self.window, self.tempi[chosen])
        return {**batch, "tempo": torch.from_numpy(self.tempi[chosen]).float()}


def few(starts: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the starts (W,), evenly spread over them."""
    count = min(most, len(starts))
    return starts[((np.arange(count) + 0.5) * len(starts) / max(count, 1)).astype(np.int64)]


class Loader(DataLoader[Batch]):
    """Reads batches ahead in threads, and remembers its place in the epoch for the checkpoint.

    Reading prepared audio is one system call an excerpt, which releases Python's lock; processes would only add the
    cost of sending every batch. What runs in these threads computes with NumPy: an operation of torch, even a small
    one, would start OpenMP threads there, and with more of them than cores those of the network sleep between
    operations (half the speed on two cores). Lightning sees a DataLoader.
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
