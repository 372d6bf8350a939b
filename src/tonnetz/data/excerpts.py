"""Datasets that read excerpts of prepared audio, or of stored features, straight into one array a batch."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset

from tonnetz.audio import fit_length, read_pcm, window_starts
from tonnetz.data.plan import Plan
from tonnetz.store import FeatureStore

Batch = dict[str, torch.Tensor]


class Tracks:
    """The columns of a prepared split that workers need, as arrays (Python lists would grow in every worker)."""

    def __init__(self, frame: pl.DataFrame, labels: np.ndarray, normalize: bool = True) -> None:
        self.paths = np.array(frame["audio"].to_list(), dtype=np.bytes_)  # (rows,)
        self.first = frame["first"].to_numpy()  # (rows,) samples into the prepared file
        self.samples = frame["samples"].to_numpy()  # (rows,)
        peak = frame["peak"].to_numpy()
        self.gain = np.float32(1) / peak.astype(np.float32) if normalize else np.ones(len(peak), np.float32)
        self.labels = torch.from_numpy(labels)  # (rows, K)

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
        return {
            **values,
            "row": torch.from_numpy(rows),
            "start": torch.from_numpy(starts / self.sample_rate),
            "label": self.tracks.labels[torch.from_numpy(rows)],
        }

    def _audio(self, rows: np.ndarray, starts: np.ndarray) -> Batch:
        tracks, plan = self.tracks, self.plan
        lengths = np.minimum(tracks.samples[rows] - starts, self.window)  # (B,)
        audio = np.zeros((len(rows), 1, self.window), np.float32)  # (B, 1, N)
        for i, (row, start, length) in enumerate(zip(rows, starts, lengths, strict=True)):
            excerpt = read_pcm(tracks.paths[row].decode(), tracks.first[row] + start, length)
            audio[i, 0] = fit_length(excerpt, self.window, plan.pad) * tracks.gain[row]
        if plan.pad == "repeat":
            lengths = np.full_like(lengths, self.window)
        return {"audio": torch.from_numpy(audio), "lengths": torch.from_numpy(lengths)}

    def _features(self, rows: np.ndarray, starts: np.ndarray) -> Batch:
        assert self.store is not None
        features, lengths = self.store.read(rows, starts, self.window)
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
        rows = np.array([row for _, row in indices])
        chance = np.array([np.random.default_rng([self.seed, position]).random() for position, _ in indices])
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


def whole(batch: Batch) -> Batch:
    """Collate function: the datasets return whole batches already."""
    return batch


def ignore_interrupt(worker: int) -> None:
    """Workers leave Ctrl-C to the main process, which lets them finish the batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader whose place in the epoch is saved with the checkpoint (Lightning asks for `state_dict`)."""

    _yielded = 0

    def __iter__(self) -> Any:
        sampler = self.batch_sampler
        self._yielded = getattr(sampler, "skip", 0)
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches of this epoch that training has taken, 0 at its end."""
        return {"batch": self._yielded % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next iteration after the batches already taken."""
        self.batch_sampler.skip = state["batch"]  # type: ignore[union-attr]
