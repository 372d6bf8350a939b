"""Examples of classes that a user hands over: where they are, and what may be wrong with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonnetz import audio
from tonnetz.data.recordings import FILE_COLUMNS
from tonnetz.datasets.files import pick_column, read_csv
from tonnetz.errors import UserError

LABEL_COLUMNS = ("label", "class", "instrument")
QUIET = 3e-3  # peak below which an example is nearly silent (-50 dBFS)
FAINT = 1e-3  # of the peak: a stretch below it is silence
FLAT = 3  # samples at the top of the scale in a row are clipped
EQUAL = 1e-5  # half a step of 16 bits is more
CLIPPED = 0.98  # how high the top of a clipped recording is, at least


@dataclass(frozen=True)
class Example:
    """One file of a class: its name below the folder or in the table, its length in seconds and a hash of its bytes."""

    label: str
    file: str
    seconds: float
    mark: str


def find_examples(source: str | Path) -> list[tuple[Path, str, str]]:
    """Paths, names and labels of examples: of FOLDER/LABEL/**/FILE, or of a CSV file with columns file and label.

    Raises UserError for a folder without sub-folders, for files beside these, and for a class without audio.
    """
    source = Path(source)
    if source.suffix.lower() == ".csv":
        return _from_table(source)
    if not source.is_dir():
        raise UserError(f"job.examples={source}: no such folder or CSV file")
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    loose = [path for path in source.iterdir() if path.suffix.lower() in audio.EXTENSIONS and path.is_file()]
    if not folders or loose:
        what = f"{loose[0].name} lies beside the classes" if loose and folders else "has no sub-folders"
        raise UserError(f"{source}: {what}; give every class a sub-folder of its own, FOLDER/CLASS/FILE")
    found = []
    for folder in folders:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in audio.EXTENSIONS and p.is_file())
        if not files:
            raise UserError(f"{folder}: no audio files for this class; add some, or remove the folder")
        found += [(path, path.relative_to(source).as_posix(), folder.name.strip()) for path in files]
    return found


def _from_table(path: Path) -> list[tuple[Path, str, str]]:
    columns, rows = read_csv(path)
    file, label = pick_column(columns, FILE_COLUMNS), pick_column(columns, LABEL_COLUMNS)
    if file is None or label is None:
        raise UserError(f"{path}: needs the columns file (or path, filename) and label, has {', '.join(columns)}")
    for line, row in rows:
        if bool(row[file]) != bool(row[label]):
            raise UserError(f"{path} line {line}: {row[file] or row[label]} needs a file and a label")
    found = [(path.parent / row[file], row[file], row[label].strip()) for _, row in rows if row[file]]
    if not found:
        raise UserError(f"{path}: names no examples")
    return found


def examine(path: Path, file: str, label: str, window: float) -> tuple[Example, list[str]]:
    """An example, and what is doubtful about it for windows of so many seconds.

    Raises UserError for what is no sound: missing, empty, not audio, NaN, silent.
    """
    signal, rate, peak = audio.read_audible(path)  # (N,)
    seconds = len(signal) / rate
    doubts = []
    if peak < QUIET:
        doubts.append(f"nearly silent (peak {20 * np.log10(peak):.0f} dBFS)")
    if (empty := _empty(signal, rate, peak)) > 0.8:
        doubts.append(f"{empty:.0%} of it is silent")
    if clips := _clips(signal, peak):
        doubts.append(f"clipped in {clips} place{'s' * (clips > 1)}")
    if seconds < window / 4:
        doubts.append(
            f"too short ({seconds:.2f} s, less than a quarter of a window of {window:g} s): take a longer one, or "
            "teach all with a smaller job.window, or with job.pad=repeat"
        )
    return Example(label, file, round(seconds, 4), hashlib.sha256(path.read_bytes()).hexdigest()[:16]), doubts


def _empty(signal: np.ndarray, rate: int, peak: float) -> float:
    """Share of stretches of 20 ms that never rise above a thousandth of the peak."""
    size = max(1, rate // 50)
    count = max(1, len(signal) // size)
    stretches = np.resize(signal, count * size) if len(signal) < size else signal[: count * size]
    return float((np.abs(stretches.reshape(count, size)).max(1) < FAINT * peak).mean())


def _clips(signal: np.ndarray, peak: float) -> int:
    """How often several samples in a row stand at the top of a scale that they reach."""
    if peak < CLIPPED or len(signal) < FLAT:
        return 0
    top = (signal >= max(CLIPPED, signal.max() - EQUAL)) | (signal <= min(-CLIPPED, signal.min() + EQUAL))
    flat = np.asarray(np.lib.stride_tricks.sliding_window_view(top, FLAT).all(1))
    return int(flat[0]) + int((flat[1:] & ~flat[:-1]).sum())
