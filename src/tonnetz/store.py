"""Front-end output, computed once per corpus and kept memory-mapped in 16 bits a number: a feature store."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from tonnetz.ahead import ahead
from tonnetz.atomic import replacing
from tonnetz.errors import UserError

Progress = Callable[[int, int], None]
DECIBELS = 0.01  # the quantum of what is in decibels
SHARD = 64  # recordings a file: the unit of resumption


class FeatureStore:
    """Features of a list of recordings, one (T, C * F) block each, in shards of memory-mapped numbers of 16 bits.

    They are half precision, or with ``quantum`` whole multiples of it (decibels want .01: half precision is off by up
    to .03 at 100 dB). The folder carries the front-end's fingerprint in `store.json`; another front-end is refused,
    never guessed. Building is resumable (finished shards are kept) and atomic (a shard appears complete or not at all).
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: str,
        channels: int,
        bins: int,
        hop: int,
        floor: float | None = None,
        quantum: float | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.channels, self.bins, self.floor, self.quantum = channels, bins, floor, quantum
        self.dtype = np.dtype(np.float16 if quantum is None else np.int16)
        self.facts = {"fingerprint": fingerprint, "channels": channels, "bins": bins, "hop": hop}
        self.facts |= {} if quantum is None else {"quantum": quantum}
        self._maps: dict[int, np.ndarray] = {}
        self.keys: list[str] = []
        described = self.folder / "store.json"
        if described.exists() and _read_json(described) != self.facts:
            raise UserError(f"{self.folder}: holds features of another front-end; delete it or choose another folder")

    @property
    def highest(self) -> float:
        """The largest value that can be stored."""
        return float(np.finfo(np.float16).max) if self.quantum is None else np.iinfo(np.int16).max * self.quantum

    def build(
        self, keys: list[str], compute: Callable[[int], np.ndarray], progress: Progress | None = None, threads: int = 1
    ) -> None:
        """Compute what is missing. `compute(i)` returns (C, F, T) of recording i; `keys` identify the recordings."""
        with replacing(self.folder / "store.json") as part:
            part.write_text(json.dumps(self.facts))
        self.keys = keys

        def flat(i: int) -> np.ndarray:
            block = compute(i)
            frames = block.transpose(2, 0, 1).reshape(block.shape[-1], -1)  # (T, C * F)
            if not (np.abs(frames) <= self.highest).all():
                place = keys[i].partition("|")[0]
                raise UserError(
                    f"{place}: its features hold NaN, or more than {self.highest:.0f}; leave the recording out"
                )
            return (frames if self.quantum is None else np.rint(frames / self.quantum)).astype(self.dtype)

        missing = [(shard, rows) for shard, rows in self._shards() if not self._complete(shard)]
        blocks = ahead(flat, itertools.chain.from_iterable(rows for _, rows in missing), threads)
        for shard, rows in missing:
            held = list(itertools.islice(blocks, len(rows)))
            _save(self._data(shard), np.concatenate(held))
            _save(self._index(shard), np.cumsum([0, *(len(block) for block in held)]))
            if progress:
                progress(rows[-1] + 1, len(keys))
        offsets = [_frames(self._index(shard), len(rows)) for shard, rows in self._shards()]
        self.first = np.concatenate([o[:-1] for o in offsets])  # (recordings,) first frame in its shard
        self.frames = np.concatenate([np.diff(o) for o in offsets])  # (recordings,)

    def _shards(self) -> Iterator[tuple[int, range]]:
        for shard, start in enumerate(range(0, len(self.keys), SHARD)):
            yield shard, range(start, min(start + SHARD, len(self.keys)))

    def _complete(self, shard: int) -> bool:
        return self._index(shard).exists() and self._data(shard).exists()

    def _name(self, shard: int) -> str:
        """Shards are named by what they hold, so a changed corpus computes the changed shards only."""
        keys = self.keys[shard * SHARD : (shard + 1) * SHARD]
        return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()

    def _data(self, shard: int) -> Path:
        return self.folder / f"{self._name(shard)}.npy"

    def _index(self, shard: int) -> Path:
        return self.folder / f"{self._name(shard)}.frames.npy"

    def read(
        self, rows: np.ndarray, first: np.ndarray, count: int, tempi: np.ndarray | None = None, repeat: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return crops (B, C, F, count) float32 and their valid frames (B,), from frame `first` (B,) on; see `take`."""
        sources = []
        for row in rows:
            begin = self.first[row]
            sources.append(self._map(row // SHARD)[begin : begin + self.frames[row]])
        tempi = np.ones(len(rows)) if tempi is None else tempi
        out, lengths = take(sources, first, count, tempi, self.floor, repeat, self.quantum)
        fine = np.isfinite(out).all((1, 2))  # here, as to read all of a large store before its first crop takes long
        if not fine.all():
            raise _damaged(self._data(rows[fine.argmin()] // SHARD), "holds NaN or infinity")
        shape = (len(rows), count, self.channels, self.bins)
        return np.ascontiguousarray(out.reshape(shape).transpose(0, 2, 3, 1)), lengths  # (B, C, F, T)

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            last = min((shard + 1) * SHARD, len(self.keys)) - 1
            shape = (int(self.first[last] + self.frames[last]), self.channels * self.bins)
            self._maps[shard] = _features(self._data(shard), shape, self.dtype)
        return self._maps[shard]

    def __getstate__(self) -> dict[str, object]:
        """Workers open their own maps: a pickled memory map would travel as its whole content."""
        return {**self.__dict__, "_maps": {}}


def take(
    sources: Sequence[np.ndarray],
    first: np.ndarray,
    count: int,
    tempi: np.ndarray,
    floor: float | None = None,
    repeat: bool = False,
    quantum: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Crops (B, count, D) of the frames (T, D) of recordings, from frame `first` (B,) on, and their valid frames (B,).

    A crop is made of tempo x count frames, brought to `count` by linear interpolation. What a recording lacks at its
    end is filled with the `floor` (None: the crop's own minimum); a crop from the start of a recording that is too
    short, with itself again (`repeat`). Frames may be whole numbers of a `quantum`.
    """
    size = np.array([len(frames) for frames in sources])
    wide = np.maximum(1, np.round(count * tempi).astype(np.int64))  # (B,) frames to read
    have = np.clip(size - first, 1, wide)  # (B,)
    lengths = np.where(have == wide, count, np.clip(np.round(have / tempi).astype(np.int64), 1, count))
    out = np.empty((len(sources), count, sources[0].shape[1]), np.float32)  # (B, T, D)
    for i, (frames, start, length) in enumerate(zip(sources, first, lengths, strict=True)):
        begin = min(start, size[i] - 1)
        crop = frames[begin : begin + have[i]]
        out[i, :length] = crop if have[i] == length else interpolate(crop, length)
        if quantum is not None:
            out[i, :length] *= quantum
        if length < count:
            if repeat and start == 0:
                out[i] = out[i, np.arange(count) % length]
            else:
                out[i, length:] = out[i, :length].min() if floor is None else floor
    return out, np.where(first == 0, count, lengths) if repeat else lengths


def interpolate(frames: np.ndarray, count: int) -> np.ndarray:
    """Bring (T, D) frames to `count` frames by linear interpolation: another tempo."""
    place = np.clip((np.arange(count) + 0.5) * len(frames) / count - 0.5, 0, len(frames) - 1)  # (count,)
    left = np.minimum(place.astype(np.int64), max(len(frames) - 2, 0))
    share = (place - left).astype(np.float32)[:, None]
    right = frames[np.minimum(left + 1, len(frames) - 1)].astype(np.float32)
    return frames[left].astype(np.float32) * (1 - share) + right * share


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise _damaged(path, "no JSON") from None


def _features(path: Path, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Map the features (T, D) of a shard. Raises UserError when the file does not hold what the store wrote."""
    frames = _load(path, "r")
    if frames.shape != shape or frames.dtype != dtype:
        found, wanted = (" x ".join(map(str, size)) for size in (frames.shape, shape))
        raise _damaged(path, f"{found} numbers of {frames.dtype}, not {wanted} of {dtype}")
    return frames


def _frames(path: Path, count: int) -> np.ndarray:
    """Where each of `count` recordings of a shard begins, and the last one ends: (count + 1,), in frames."""
    offsets = _load(path)
    if offsets.shape != (count + 1,) or offsets.dtype.kind != "i" or offsets[0] or (np.diff(offsets) < 0).any():
        raise _damaged(path, f"does not say where its {count} recordings begin")
    return offsets


def _load(path: Path, mode: Literal["r"] | None = None) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode=mode)
        return found
    except (ValueError, EOFError) as error:
        raise _damaged(path, f"cut short or no array: {' '.join(str(error).split())}") from None


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: damaged ({reason}); delete it, it is made anew")


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, array)
