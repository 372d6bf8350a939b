"""Prepare a corpus: decode every file once to 16-bit mono PCM at one rate; parallel, resumable, atomic."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import polars as pl

from tonnetz import audio
from tonnetz.atomic import replacing
from tonnetz.datasets.base import Corpus
from tonnetz.datasets.prepared import Prepared
from tonnetz.errors import DiskFull, UserError
from tonnetz.progress import progress_bar
from tonnetz.tracks import table, write_table

FACTS = ("audio", "header", "samples", "peak", "level")  # of a prepared file, as the journal keeps them
TOTAL = "\0total"  # a column for the time of a computation, by a name that no list has
PEAK = 0.99  # prepared files are scaled to this peak, so 16 bits are well used


def prepare(
    corpus: Corpus, folder: str | Path, sample_rate: int, on_error: str = "fail", workers: int = 0
) -> pl.DataFrame:
    """Return the corpus's track table with columns audio, header, first, samples, peak: where its PCM lies.

    `level` is how many times as loud the source file is. `stamp` tells states of a file apart that is read where it
    lies; it is null for one that was decoded, whose name in `audio` does so.

    Args:
        corpus: what to prepare.
        folder: where prepared corpora live; this one gets ``folder/corpus.key``.
        sample_rate: of the prepared audio, in Hz.
        on_error: ``fail`` raises UserError when a file is bad, after all good ones are done; ``skip`` leaves it out.
        workers: threads that decode; 0 takes one a core.
    """
    with progress_bar(f"{corpus.name}: reading the folder") as advance:
        corpus.fetch(advance)
        rows = table(corpus.tracks())
    if isinstance(corpus, Prepared):
        return _of_split(_stamped(_at_rate(rows, corpus, sample_rate)), corpus)
    home = Path(folder) / corpus.key
    sources = rows["path"].unique(maintain_order=True).to_list()
    facts, bad = _decode_all(corpus.name, sources, home, sample_rate, workers or os.cpu_count() or 1)
    _report(home, bad, len(sources), on_error)
    frame = _locate(rows, facts, sample_rate)
    write_table(frame.with_columns(pl.lit(sample_rate).alias("sample_rate")), home / "tracks.jsonl")
    return _of_split(_stamped(frame.with_columns(pl.lit(corpus.key).alias("corpus"))), corpus)


def _stamped(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the column stamp, of the files as they are now: what is written down may be read after a change."""
    places = frame.select("path", "audio").unique().iter_rows()
    stamps = {place: _key(place) for path, place in places if os.path.basename(path) == os.path.basename(place)}
    return frame.with_columns(
        pl.col("audio").replace_strict(stamps, default=None, return_dtype=pl.String).alias("stamp")
    )


def _of_split(frame: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """The tracks that are asked for, by the split that the corpus itself gives them."""
    if corpus.only is None:
        return frame
    chosen = frame.filter(pl.col("split") == corpus.only)
    if not chosen.height:
        have = ", ".join(sorted(set(frame["split"].drop_nulls()))) or "none"
        raise UserError(
            f"{corpus.root}: only={corpus.only}: {corpus.name} has no such split of its own (it has {have})"
        )
    return chosen


def _at_rate(rows: pl.DataFrame, corpus: Prepared, sample_rate: int) -> pl.DataFrame:
    """Rows of a corpus that was prepared before. Raises UserError when it was for another sample rate."""
    if corpus.rate != (sample_rate,):
        have = ", ".join(map(str, corpus.rate))
        raise UserError(
            f"{corpus.root}: prepared at {have} Hz, but the front-end works at {sample_rate} Hz; "
            "prepare it anew from the raw files"
        )
    return rows.with_columns(pl.lit(corpus.key).alias("corpus"))


def _decode_all(
    name: str, sources: list[str], home: Path, rate: int, workers: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Decode what is not there yet. Returns facts by path, and reasons by path of bad files."""
    journal = Journal(home / f"prepared-{rate}.jsonl")
    facts: dict[str, dict[str, Any]] = {}
    bad: dict[str, str] = {}
    todo: dict[str, tuple[str, Path]] = {}
    for path in sources:
        try:
            key = _key(path)
        except OSError:
            bad[path] = "no such file; restore it or drop it from the corpus"
            continue
        known = journal.entries.get(key)
        if known and Path(known["audio"]).exists():
            facts[path] = known
        else:
            todo[path] = key, home / "audio" / str(rate) / key[:2] / f"{key}.wav"
    with progress_bar(f"{name}: preparing audio") as advance, ThreadPoolExecutor(workers) as pool, journal:
        jobs = {pool.submit(_decode, path, target, rate): path for path, (_, target) in todo.items()}
        for done, job in enumerate(as_completed(jobs), 1):
            path = jobs[job]
            try:
                facts[path] = job.result()
                journal.add(todo[path][0], facts[path])
            except DiskFull:
                raise
            except UserError as error:
                bad[path] = str(error).removeprefix(f"{path}: ")
            advance(done, len(jobs))
    return facts, bad


def _key(path: str) -> str:
    """Identify a source file by place, size and time of change: a changed file is prepared anew."""
    stat = os.stat(path)
    return hashlib.blake2b(
        f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}".encode(), digest_size=12
    ).hexdigest()


def _decode(path: str, target: Path, rate: int) -> dict[str, Any]:
    """Decode one file; returns where its PCM is, its samples and its peak."""
    signal, _, peak = audio.read_audible(path, rate)
    header = audio.pcm_header(path, rate)
    if header is not None:  # the file is what we would write: it is read where it lies
        return {"audio": os.path.abspath(path), "header": header, "samples": len(signal), "peak": peak, "level": 1.0}
    audio.write(target, signal * (PEAK / peak), rate)
    place = str(target.resolve())
    facts = {"audio": place, "header": audio.pcm_header(place, rate), "samples": len(signal)}
    return {**facts, "peak": PEAK, "level": peak / PEAK}


class Journal:
    """Append-only JSON Lines of what is prepared; a line torn by a crash is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self.entries[entry.pop("key")] = {name: entry[name] for name in FACTS}
                except (json.JSONDecodeError, KeyError):
                    continue

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a")
        return self

    def add(self, key: str, facts: dict[str, Any]) -> None:
        """Write down one prepared file at once, so that a crash loses nothing."""
        self._file.write(json.dumps({"key": key, **facts}) + "\n")
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _report(home: Path, bad: dict[str, str], total: int, on_error: str) -> None:
    """List bad files in `skipped.csv` and stop, or go on, as `on_error` says."""
    listing = home / "skipped.csv"
    listing.unlink(missing_ok=True)
    if not bad:
        return
    with replacing(listing) as part:
        pl.DataFrame({"path": list(bad), "reason": list(bad.values())}).write_csv(part)
    path, reason = next(iter(bad.items()))
    if on_error == "fail" or len(bad) == total:
        more = f" ({len(bad)} bad files in all, listed in {listing})" if len(bad) > 1 else ""
        remedy = "" if len(bad) == total else ", or go on without it: data.on_error=skip"
        raise UserError(f"{path}: {reason}{remedy}{more}")
    print(f"left out {len(bad)} of {total} files, listed in {listing}; the first: {path}: {reason}")


def _locate(rows: pl.DataFrame, facts: dict[str, dict[str, Any]], rate: int) -> pl.DataFrame:
    """Join rows with where their audio lies; excerpts (offset, duration) become first sample and sample count."""
    found = pl.DataFrame(
        [
            {"path": path, TOTAL: f["samples"], **{k: f[k] for k in ("audio", "header", "peak", "level")}}
            for path, f in facts.items()
        ]
    )
    frame = rows.join(found, on="path", how="inner", maintain_order="left")
    first = (pl.col("offset") * rate).round().cast(pl.Int64)
    wanted = (pl.col("duration") * rate).round().cast(pl.Int64)
    frame = frame.with_columns(first=pl.min_horizontal(first, TOTAL))
    left = pl.col(TOTAL) - pl.col("first")
    frame = frame.with_columns(
        samples=pl.when(pl.col("offset") > 0)
        .then(pl.min_horizontal(wanted.fill_null(left), left))
        .otherwise(pl.coalesce(pl.min_horizontal(wanted, left), left))
    )
    outside = frame.filter(pl.col("samples") <= 0)
    if outside.height:
        path, offset = outside.select("path", "offset").row(0)
        raise UserError(f"{path}: the excerpt at {offset} s lies outside the file; correct its offset")
    return frame.with_columns(duration=pl.col("samples") / rate).drop(TOTAL)
