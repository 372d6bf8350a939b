"""Front-end output, computed once per corpus and kept as memory-mapped float16: a feature store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tonnetz.atomic import replacing
from tonnetz.errors import UserError

Progress = Callable[[int, int], None]
SHARD = 64  # recordings a file: the unit of resumption


class FeatureStore:
    """Features of a list of recordings, one (T, C * F) block each, in shards of memory-mapped float16.

    The folder carries the front-end's fingerprint in `store.json`; another front-end is refused, never guessed.
    Building is resumable (finished shards are kept) and atomic (a shard appears complete or not at all).
    """

    def __init__(self, folder: str | Path, fingerprint: str, channels: int, bins: int, hop: int) -> None:
        self.folder = Path(folder)
        self.channels, self.bins, self.hop = channels, bins, hop
        self.facts = {"fingerprint": fingerprint, "channels": channels, "bins": bins, "hop": hop}
        self._maps: dict[int, np.ndarray] = {}
        self.keys: list[str] = []
        described = self.folder / "store.json"
        if described.exists() and json.loads(described.read_text()) != self.facts:
            raise UserError(f"{self.folder}: holds features of another front-end; delete it or choose another folder")

    def build(self, keys: list[str], compute: Callable[[int], np.ndarray], progress: Progress | None = None) -> None:
        """Compute what is missing. `compute(i)` returns (C, F, T) of recording i; `keys` identify the recordings."""
        with replacing(self.folder / "store.json") as part:
            part.write_text(json.dumps(self.facts))
        self.keys = keys
        for shard, rows in self._shards():
            if not self._index(shard).exists():
                blocks = [compute(i) for i in rows]
                frames = np.cumsum([0, *(block.shape[-1] for block in blocks)])
                flat = [b.transpose(2, 0, 1).reshape(b.shape[-1], -1) for b in blocks]  # (T, C * F)
                _save(self._data(shard), np.concatenate(flat).astype(np.float16))
                _save(self._index(shard), frames)
            if progress:
                progress(min(rows[-1] + 1, len(keys)), len(keys))
        offsets = [np.load(self._index(shard)) for shard, _ in self._shards()]
        self.first = np.concatenate([o[:-1] for o in offsets])  # (recordings,) first frame in its shard
        self.frames = np.concatenate([np.diff(o) for o in offsets])  # (recordings,)

    def _shards(self) -> Iterator[tuple[int, range]]:
        for shard, start in enumerate(range(0, len(self.keys), SHARD)):
            yield shard, range(start, min(start + SHARD, len(self.keys)))

    def _name(self, shard: int) -> str:
        """Shards are named by what they hold, so a changed corpus computes the changed shards only."""
        keys = self.keys[shard * SHARD : (shard + 1) * SHARD]
        return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()

    def _data(self, shard: int) -> Path:
        return self.folder / f"{self._name(shard)}.npy"

    def _index(self, shard: int) -> Path:
        return self.folder / f"{self._name(shard)}.frames.npy"

    def read(self, rows: np.ndarray, starts: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return crops (B, C, F, T) float32 and their valid frames (B,); `starts` and `window` are in samples.

        Frames are centred on multiples of the hop; a crop shorter than the window is padded with the recording's
        own minimum, which is silence for a spectrogram in dB.
        """
        count = window // self.hop + 1
        first = starts // self.hop
        lengths = np.minimum(self.frames[rows] - first, count)
        out = np.empty((len(rows), count, self.channels * self.bins), np.float32)  # (B, T, C * F)
        for i, (row, start, length) in enumerate(zip(rows, first, lengths, strict=True)):
            begin = self.first[row] + start
            crop = self._map(row // SHARD)[begin : begin + length]
            out[i, :length] = crop
            out[i, length:] = crop.min()
        shape = (len(rows), count, self.channels, self.bins)
        return np.ascontiguousarray(out.reshape(shape).transpose(0, 2, 3, 1)), lengths  # (B, C, F, T)

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            self._maps[shard] = np.load(self._data(shard), mmap_mode="r")
        return self._maps[shard]

    def __getstate__(self) -> dict[str, object]:
        """Workers open their own maps: a pickled memory map would travel as its whole content."""
        return {**self.__dict__, "_maps": {}}


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, array)
