"""Recordings as a user hands them over: decoded once, cut in windows, batched across files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tonnetz import audio, web
from tonnetz.ahead import ahead
from tonnetz.data.excerpts import Batch
from tonnetz.data.plan import Plan, evaluation_starts
from tonnetz.datasets.files import pick_column, read_csv
from tonnetz.errors import UserError

FILE_COLUMNS = ("file", "path", "filename")


def find_recordings(inputs: Iterable[str | Path]) -> list[str]:
    """Expand files, folders (all audio under them) and CSV files (column file, path or filename) to audio files.

    A web address, itself or in a CSV, is fetched and stays as it is; read it by `web.opened`. Raises UserError for an
    input that does not exist or holds no audio.
    """
    found: list[str] = []
    for name in inputs:
        if web.is_address(name):
            found.append(web.fetch(str(name)))
        else:
            found += _from_disk(Path(name))
    if not found:
        raise UserError("job.inputs is empty: give files, folders or CSV files, job.inputs=[FILE,FOLDER]")
    return list(dict.fromkeys(found))


def _from_disk(item: Path) -> list[str]:
    """The audio files that one path stands for."""
    if item.is_dir():
        files = sorted(p for p in item.rglob("*") if p.suffix.lower() in audio.EXTENSIONS and p.is_file())
        if not files:
            raise UserError(f"{item}: no audio files under this folder")
        return list(map(str, files))
    if item.suffix.lower() == ".csv":
        return _from_csv(item)
    if item.is_file():
        return [str(item)]
    raise UserError(f"{item}: no such file or folder")


def _from_csv(path: Path) -> list[str]:
    columns, rows = read_csv(path)
    column = pick_column(columns, FILE_COLUMNS)
    if column is None:
        raise UserError(f"{path}: has no column file, path or filename (but {', '.join(columns)})")
    names = [cells[column] for _, cells in rows if cells[column]]
    return [web.fetch(name) if web.is_address(name) else str(path.parent / name) for name in names]


class Recordings:
    """Whole files as windows: ``recordings[i]`` is (n, 1, N) with starts, or the reason why file i cannot be used."""

    def __init__(self, paths: Sequence[str], plan: Plan, sample_rate: int, normalize: bool = True) -> None:
        self.paths, self.plan, self.sample_rate, self.normalize = paths, plan, sample_rate, normalize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return {"index": index, **self._windows(self.paths[index])}
        except UserError as error:
            return {"index": index, "error": str(error)}

    def _windows(self, path: str) -> dict[str, Any]:
        rate, plan = self.sample_rate, self.plan
        with web.opened(path) as file:
            signal, _, peak = audio.read_audible(file, rate)
        window = round(plan.span * rate)
        starts = evaluation_starts(plan, len(signal), rate)
        if self.normalize:
            signal = signal / peak
        repeated = plan.pad == "repeat" and (plan.grid is None or len(signal) < window)
        lengths = np.full(len(starts), window) if repeated else np.minimum(len(signal) - starts, window)
        signal = audio.fit_length(signal, max(len(signal), int(starts[-1]) + window), plan.pad)
        windows = np.lib.stride_tricks.sliding_window_view(signal, window)[starts]  # (n, N)
        return {
            "audio": torch.from_numpy(np.ascontiguousarray(windows))[:, None],  # (n, 1, N)
            "lengths": torch.from_numpy(lengths),
            "start": torch.from_numpy(starts / rate),
        }


def recording_batches(recordings: Recordings, batch_size: int, workers: int, errors: dict[int, str]) -> Iterator[Batch]:
    """Yield batches of at most `batch_size` windows, across files, with `row` = index of the file.

    Files that cannot be used are written into `errors` (index -> reason) and passed over.
    """
    pending: list[Batch] = []
    held = 0
    for item in ahead(recordings.__getitem__, iter(range(len(recordings))), workers):
        if "error" in item:
            errors[item["index"]] = item["error"]
            continue
        count = len(item["start"])
        pending.append(
            {
                **{k: item[k] for k in ("audio", "lengths", "start")},
                "row": torch.full((count,), item["index"]),
            }
        )
        held += count
        while held >= batch_size:
            batch, pending = _take(pending, batch_size)
            held -= batch_size
            yield batch
    if held:
        yield _take(pending, held)[0]


def _take(pending: list[Batch], count: int) -> tuple[Batch, list[Batch]]:
    joined = {key: torch.cat([item[key] for item in pending]) for key in pending[0]}
    rest = {key: value[count:] for key, value in joined.items()}
    return {key: value[:count] for key, value in joined.items()}, [rest] if len(rest["row"]) else []
