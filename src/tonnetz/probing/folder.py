"""Features from elsewhere: files named by our tracks, or as jukemir (Castellon et al. 2021) names them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from tonnetz.errors import UserError
from tonnetz.probing.features import Features

Lost = dict[str, tuple[Path, str]]  # track -> its file, and why it cannot be used
CLIP = re.compile(r"(\d{7})-(\d+)")  # of 30 s of a song of GiantSteps, counted from 0
WINDOW = re.compile(r"(\d{7})@(\d+)")  # the same as a row of our table, by its start in seconds
SONG = re.compile(r"\d{7}")
GENRE = re.compile(r"[a-z]+\.\d{5}")  # a clip of GTZAN
CLIP_SECONDS = 30


def read_folder(folder: Path, frames: Mapping[str, pl.DataFrame], skip: bool = False) -> tuple[Features, Lost, int]:
    """Features from files ``folder/{name}.npy``, (D,) a track or (M, D) for its M windows.

    A file is named by the id of its track, or as jukemir does (see `stems`). Returns the features, the file and the
    reason for each track (by id) that is left out, and how many files belong to no track; `row` counts the tracks
    that stay. Raises UserError, naming file and track, for a track without a usable one, for a file of no track, and
    for different widths; with `skip`, such tracks are left out, and such files are only counted.
    """
    if not folder.is_dir():
        raise UserError(f"job.features={folder}: no such folder")
    files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.npy")}
    names = stems([name for frame in frames.values() for name in frame["id"]], files)
    strays = files.difference(*names.values())
    if strays and not skip:
        _complain([(folder / f"{name}.npy", "") for name in sorted(strays)], "belongs to no track of the corpus")
    missing = {name: some[0] for name, some in names.items() if some[0] not in files}
    if missing and not skip:
        _complain([(folder / f"{stem}.npy", name) for name, stem in missing.items()], "is missing")
    x, row, width = {}, {}, 0
    lost: Lost = {}
    digest = hashlib.blake2b(digest_size=8)
    for split, frame in frames.items():
        found = []
        for name in frame["id"]:
            value, path = _vectors([folder / f"{stem}.npy" for stem in names[name]])
            if isinstance(value, str):
                lost[name] = path, value
                continue
            width = width or value.shape[1]
            if value.shape[1] != width:
                raise UserError(f"{path}: has shape {value.shape}, others have {width} dimensions")
            digest.update(value.tobytes())
            found.append(value)
        if lost and not skip:
            _complain([(path, name) for name, (path, _) in lost.items()], next(iter(lost.values()))[1])
        if not found:
            raise UserError(f"job.features={folder}: no file for any track of the split {split}")
        x[split] = torch.from_numpy(np.concatenate(found))
        row[split] = torch.arange(len(found)).repeat_interleave(torch.tensor([len(value) for value in found]))
    return Features(folder.name, x, row, digest.hexdigest()), lost, len(strays)


def stems(ids: Sequence[str], files: Iterable[str]) -> dict[str, list[str]]:
    """The files, without .npy, of each track: its id, or what jukemir calls it where more files are called so.

    jukemir's names are the SHA-256 of ``GENRE.NNNNN`` for GTZAN, ``SONG-k`` for the k-th 30 s of a song of
    GiantSteps, and the zero-padded numbers that are our ids, too, for Emomusic (4) and MagnaTagATune (5). A song of
    GiantSteps that is not cut has the files of all its clips, in their order.
    """
    files = set(files)
    clips: dict[str, list[int]] = {}
    for found in filter(None, map(CLIP.fullmatch, files)):
        clips.setdefault(found[1], []).append(int(found[2]))
    theirs = {name: _jukemir(name, sorted(clips.get(name, []))) for name in ids}
    named = sum(some[0] in files for some in theirs.values())
    return theirs if named > sum(name in files for name in ids) else {name: [name] for name in ids}


def _jukemir(name: str, clips: Sequence[int]) -> list[str]:
    """What jukemir calls a track; `clips` are the numbers that a song has files for."""
    if GENRE.fullmatch(name):
        return [hashlib.sha256(name.encode()).hexdigest()]
    if SONG.fullmatch(name) and clips:
        return [f"{name}-{number}" for number in clips]
    if (window := WINDOW.fullmatch(name)) and int(window[2]) % CLIP_SECONDS == 0:
        return [f"{window[1]}-{int(window[2]) // CLIP_SECONDS}"]
    return [name]


def _vectors(paths: Sequence[Path]) -> tuple[np.ndarray | str, Path]:
    """The vectors (M, D) of a track's files, or why there are none; and the file that says so."""
    parts: list[np.ndarray] = []
    for path in paths:
        value = _read(path)
        if not isinstance(value, str) and value.shape[1] != (parts or [value])[0].shape[1]:
            value = f"has shape {value.shape}, others have {parts[0].shape[1]} dimensions"
        if isinstance(value, str):
            return value, path
        parts.append(value)
    return np.concatenate(parts), paths[0]


def _read(path: Path) -> np.ndarray | str:
    """The vectors (M, D) of a file, or why there are none."""
    if not path.exists():
        return "is missing"
    try:
        value = np.atleast_2d(np.load(path, allow_pickle=False)).astype(np.float32)
    except (ValueError, EOFError, OSError) as error:
        return f"cannot be read as an array of numbers ({error})"
    if value.ndim != 2 or not value.size:
        return f"has shape {value.shape}, not (D,) or (windows, D)"
    return value if np.isfinite(value).all() else "holds NaN or infinity"


def _complain(found: Sequence[tuple[Path, str]], what: str) -> None:
    """Raise UserError for the first of some files, with the track where the file is not called like it."""
    path, name = found[0]
    track = "" if str(path).endswith(f"{name}.npy") else f" (track {name})"
    raise UserError(f"{path}: {what}{track}, {len(found)} such in all; correct the folder, or set data.on_error=skip")
