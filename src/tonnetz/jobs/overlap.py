"""job=overlap: what two tables of recordings, or the splits of a corpus, have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from omegaconf import DictConfig

from tonnetz.datasets.lists import read_list
from tonnetz.errors import UserError, suggest
from tonnetz.manifest import Run, write_json
from tonnetz.progress import progress_bar
from tonnetz.threads import one_thread
from tonnetz.tracks import SPLITS

if TYPE_CHECKING:
    from tonnetz.landmarks import Landmarks

KINDS = {
    "id": pl.col("id"),
    "recording": pl.coalesce("group", "id"),
    "work": pl.col("work"),
    "audio": pl.col("mark"),
}
SOUND = "sound"  # copies that are not equal: compared by landmarks, not by a value
HASHES = ("auto", "bytes", "decoded")
PREPARED = ("audio", "header", "first", "samples")


def run(cfg: DictConfig, run: Run) -> None:
    """Print and write what is shared. Raises UserError for any with ``job.fail_on_overlap=true``."""
    by, how = list(cfg.job.by), cfg.job.hash
    for kind in by:
        if kind not in (*KINDS, SOUND):
            raise UserError(f"job.by: no kind '{kind}'{suggest(kind, (*KINDS, SOUND))}")
    if how not in HASHES:
        raise UserError(f"job.hash={how}: known are {', '.join(HASHES)}")
    if not 0 < cfg.job.share <= 1:
        raise UserError(f"job.share={cfg.job.share}: must be more than 0 and at most 1")
    names, frames = zip(*_tables(cfg), strict=True)
    if "audio" in by:
        frames = tuple(marked(frames, how))
    pairs = combinations(zip(names, frames, strict=True), 2)
    plain = [kind for kind in by if kind != SOUND]
    results = [{"a": a, "b": b, "kinds": overlap(left, right, plain)} for (a, left), (b, right) in pairs]
    if SOUND in by:
        listened = [heard(frame) for frame in frames]
        for result, (a, b) in zip(results, combinations(zip(frames, listened, strict=True), 2), strict=True):
            result["kinds"][SOUND] = alike(*a, *b, cfg.job.share)
    write_json(run.folder / "overlap.json", {"pairs": results})
    show(results)
    shared = {f"{r['a']} and {r['b']} ({kind})": k["shared"] for r in results for kind, k in r["kinds"].items()}
    run.facts["overlap"] = shared
    found = [f"{name}: {count}" for name, count in shared.items() if count]
    if found and cfg.job.fail_on_overlap:
        raise UserError(f"overlap found: {'; '.join(found)}; see {run.folder / 'overlap.json'}, remove one side's rows")


def _tables(cfg: DictConfig) -> list[tuple[str, pl.DataFrame]]:
    """The named tables to compare."""
    files = [(str(path), read_list(path)) for path in (cfg.job.a, cfg.job.b) if path]
    if len(files) == 2:
        return files
    from tonnetz.build import build_data, connect

    table = build_data(cfg, connect(cfg.frontend)).table
    if files:  # groups as the corpus gives them
        table = table.with_columns(pl.col("group").str.strip_prefix(pl.concat_str("corpus", pl.lit("/"))))
        return [*files, ("this corpus", table)]
    splits = [(name, table.filter(pl.col("split") == name)) for name in SPLITS]
    splits = [(name, rows) for name, rows in splits if rows.height]
    if len(splits) < 2:
        raise UserError("nothing to compare: the corpus has one split alone; give two tables, job.a=FILE job.b=FILE")
    return splits


def overlap(a: pl.DataFrame, b: pl.DataFrame, by: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What two tables share, by kind: values in each, shared ones, and the rows of each that hold them."""
    result = {}
    for kind in by:
        left, right = (frame.select("id", KINDS[kind].alias("key")).drop_nulls("key") for frame in (a, b))
        common = sorted(set(left["key"]) & set(right["key"]))
        rows_a, rows_b = (frame.filter(pl.col("key").is_in(common))["id"].to_list() for frame in (left, right))
        result[kind] = {
            "in_a": left["key"].n_unique(),
            "in_b": right["key"].n_unique(),
            "unknown_a": a.height - left.height,  # rows without this column: nothing is known of them
            "unknown_b": b.height - right.height,
            "shared": len(common),
            "values": common,
            "rows_a": rows_a,
            "rows_b": rows_b,
        }
    return result


def heard(frame: pl.DataFrame) -> Landmarks:
    """The landmarks of each row's audio; none where it cannot be read."""
    from tonnetz.landmarks import Landmarks, landmarks

    prepared = all(name in frame.columns for name in PREPARED)
    rows = frame.select(PREPARED if prepared else ("path",)).rows()

    def hear(place: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
        signal = _prepared_signal(*place) if prepared else _signal(*place)
        return landmarks(signal)

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("listening") as advance, one_thread():
        parts = []
        for part in pool.map(hear, rows):
            parts.append(part)
            advance(len(parts), len(rows))
    return Landmarks.of(parts)


def alike(a: pl.DataFrame, found_a: Landmarks, b: pl.DataFrame, found_b: Landmarks, share: float) -> dict[str, Any]:
    """Copies among two tables, as `overlap` tells of other kinds; `values` are id of a, id of b, share and shift.

    A moment of the copy in b is `shift` seconds later than in a.
    """
    from tonnetz.landmarks import LEAST, copies

    found = copies(found_a, found_b, share)
    names_a, names_b = a["id"].to_list(), b["id"].to_list()
    known = [found.count >= LEAST for found in (found_a, found_b)]
    return {
        "in_a": int(known[0].sum()),
        "in_b": int(known[1].sum()),
        "unknown_a": int((~known[0]).sum()),
        "unknown_b": int((~known[1]).sum()),
        "shared": len(found),
        "values": [[names_a[i], names_b[j], round(part, 3), round(shift, 3)] for i, j, part, shift in found],
        "rows_a": list(dict.fromkeys(names_a[i] for i, *_ in found)),
        "rows_b": list(dict.fromkeys(names_b[j] for _, j, *_ in found)),
    }


def _signal(path: str | None) -> np.ndarray:
    from tonnetz.audio import read
    from tonnetz.landmarks import RATE

    if not path or not os.path.isfile(path):
        return np.zeros(0, np.float32)
    return read(path, RATE)[0]


def _prepared_signal(path: str, header: int, first: int, samples: int) -> np.ndarray:
    import soundfile

    from tonnetz.audio import read_prepared, resample
    from tonnetz.landmarks import RATE

    if not os.path.isfile(path):
        return np.zeros(0, np.float32)
    return resample(read_prepared(path, header, first, samples), soundfile.info(path).samplerate, RATE)


def marked(frames: Sequence[pl.DataFrame], how: str) -> list[pl.DataFrame]:
    """Add the column `mark`: a hash of each row's audio, null where it cannot be read.

    ``auto`` hashes prepared samples where all frames have them, else the bytes of the files; ``decoded`` hashes the
    samples of the files at 16 bits, so a copy in another lossless format is found.
    """
    prepared = all(name in frame.columns for frame in frames for name in PREPARED)
    columns, mark = (PREPARED, _prepared) if how == "auto" and prepared else (("path",), _bytes)
    mark = _decoded if how == "decoded" else mark
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            frame.with_columns(
                pl.Series("mark", list(pool.map(mark, frame.select(columns).iter_rows())), dtype=pl.String)
            )
            for frame in frames
        ]


def _prepared(place: tuple[str, int, int, int]) -> str | None:
    from tonnetz.audio import read_pcm

    path, header, first, samples = place
    pcm = np.zeros(samples, "<i2")
    try:
        read_pcm(path, header, first, pcm)
    except OSError:
        return None
    return _digest(pcm.tobytes())


def _bytes(place: tuple[str | None]) -> str | None:
    try:
        with open(place[0] or "", "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return None


def _decoded(place: tuple[str | None]) -> str | None:
    from tonnetz.audio import read

    if not place[0] or not os.path.isfile(place[0]):
        return None
    signal, rate = read(place[0])
    return _digest(str(rate).encode() + np.round(signal * 32768).clip(-32768, 32767).astype("<i2").tobytes())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def show(results: list[dict[str, Any]]) -> None:
    """Print a table for each pair, and what could not be compared."""
    from rich.console import Console
    from rich.table import Table

    for result in results:
        table = Table(
            "by", "in A", "in B", "shared", "rows of A", "rows of B", title=f"A {result['a']}, B {result['b']}"
        )
        for kind, found in result["kinds"].items():
            numbers = (found["in_a"], found["in_b"], found["shared"], len(found["rows_a"]), len(found["rows_b"]))
            table.add_row(kind, *map(str, numbers), style="bold red" if found["shared"] else None)
        Console().print(table)
        for kind, found in result["kinds"].items():
            if found["shared"] and kind == SOUND:
                a, b, share, shift = found["values"][0]
                print(f"copies: {a} in A, {b} in B ({share:.0%} of the landmarks, {shift:+.1f} s), ...")
            elif found["shared"]:
                print(f"the same {kind}: {found['rows_a'][0]} in A, {found['rows_b'][0]} in B, ...")
            unknown = found["unknown_a"] + found["unknown_b"]
            if unknown:
                print(f"{unknown} rows have no {kind} to compare")
