"""job=identify: which work is it? Recordings are looked up in an index; what has no kin there gets "no match"."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tonnetz import web
from tonnetz.alignment import DRAWS, best_run, line, places, read_line, regular
from tonnetz.atomic import replacing
from tonnetz.build import restore
from tonnetz.calibration import Calibration, typical_windows
from tonnetz.data.recordings import find_recordings
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files, step_of
from tonnetz.errors import UserError
from tonnetz.index import Index
from tonnetz.jobs.index import UNCALIBRATED, as_list, check, index_folder, misled, plan_for
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run, write_json
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.search import nearest_tempo, search, similarities
from tonnetz.shortlist import load_faiss
from tonnetz.transposition import in_semitones
from tonnetz.windows import CELLS, extents, gather, stacked

WIDE = 100  # columns of a terminal that shows z and p, too
QUERIES = 16  # recordings whose vectors are held at once
COLUMNS = ["query", "match", "rank", "work", "recording", "distance", "z", "p", "chance"]
# Second t of the query is second ratio x t + shift of the match; the starts are where they agree best.
PLACES = ["query_start", "match_start", "ratio", "shift", "confidence", "semitones"]
OVERLAP = 0.3  # share of the shorter recording that an alignment at one tempo must hold


@web.fetching()
def run(cfg: DictConfig, run: Run) -> None:
    """Look up ``job.inputs``; writes matches.json and matches.csv."""
    quiet()
    check_keys(cfg)
    index = Index.open(index_folder(cfg))
    if cfg.job.mode == "centroids" and (reason := misled(index, cfg.job.reduction)):
        raise UserError(f"job.mode=centroids: {reason}; take job.mode=works")
    paths, errors = usable(as_list(cfg.job.inputs))
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    check(index, experiment)
    device = choose_device(cfg.trainer.accelerator)
    plan, results = plan_for(index, experiment, cfg.job.pad), list[dict[str, Any]]()
    with progress_bar("looking up") as advance:
        for begin in range(0, len(paths), QUERIES):  # the vectors of all may be too many
            some = paths[begin : begin + QUERIES]
            found = embed_files(experiment, some, plan, device, errors)
            results += identify(index, found, some, cfg.job)
            advance(begin + len(some), len(paths))
    write_json(run.folder / "matches.json", results)
    write_matches(run.folder / "matches.csv", results)
    matched = sum(item["match"] is True for item in results)
    run.facts["queries"] = {"looked up": len(results), "matched": matched, "bad": len(errors)}
    if results:
        conclude(index, results, cfg.job.show, run)
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(results), each=True)


def conclude(index: Index, results: list[dict[str, Any]], most: int, run: Run) -> None:
    """Print the nearest matches of every query, and how many have one."""
    show(results, most)
    if len(index.works) < 2 and any(item["match"] is None for item in results):
        print(UNCALIBRATED.format(index=index.folder))
    matched = run.facts["queries"]["matched"]
    print(f"{matched} of {len(results)} recordings have a match: {run.folder / 'matches.json'}")


def check_keys(cfg: DictConfig) -> None:
    """Raise UserError for a key that cannot be obeyed, before anything is read."""
    job = cfg.job
    if OmegaConf.is_missing(job, "inputs") or not as_list(job.inputs):
        raise UserError("job.inputs is missing: give files, folders or CSV files, job.inputs=[FILE,FOLDER]")
    if job.top < 1:
        raise UserError(f"job.top={job.top}: must be at least 1")
    for key in ("places", "show"):
        if not isinstance(job[key], int) or job[key] < 0:
            raise UserError(f"job.{key}={job[key]}: must be a number, 0 or more")
    if not 0 < job.p <= 1:
        raise UserError(f"job.p={job.p}: must be more than 0 and at most 1")
    if not isinstance(job.faiss, bool | None):
        raise UserError(f"job.faiss={job.faiss}: must be true, false or null")
    if job.faiss:
        load_faiss()
    if not isinstance(job.threshold, int | float | None) and job.threshold != "equal":
        raise UserError(f"job.threshold={job.threshold}: give a distance, equal, or null to judge by job.p")


def usable(inputs: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Audio files of all inputs, and why others give none."""
    paths: list[str] = []
    errors: dict[str, str] = {}
    for item in inputs:
        try:
            paths += find_recordings([item])
        except UserError as error:
            errors[item] = str(error)
    return list(dict.fromkeys(paths)), errors


def identify(index: Index, found: dict[str, Tensor], paths: Sequence[str], job: Any) -> list[dict[str, Any]]:
    """One dict a query that has vectors: path, whether it has a match, and the matches, nearest first."""
    if job.get("reduction"):
        index.match_by(job.reduction)
    row = found["row"][(found["tempo"] - index.tempo).abs() < 1e-4]
    rows, count = row.unique(return_counts=True)
    alike = (2 * count.log2()).floor()  # what is as long, give or take a half, is filled up and looked up together
    results: dict[int, dict[str, Any]] = {}
    for length in alike.unique():
        some = rows[alike == length]
        mine = torch.isin(found["row"], some)
        answers = look_up(index, {name: value[mine] for name, value in found.items()}, some, paths, job)
        results |= zip(some.tolist(), answers, strict=True)
    return [results[r] for r in rows.tolist()]


def look_up(
    index: Index, found: dict[str, Tensor], rows: Tensor, paths: Sequence[str], job: Any
) -> list[dict[str, Any]]:
    """The same of the recordings `rows` (Q,), all at once."""
    queries, valid, start, count = questions(index, found, rows)
    best = search(index, queries, valid, job.top, job.mode, job.faiss, typical_windows(index))
    places = best.place[:, : job.places] if job.mode != "centroids" else best.place[:, :0]
    where = offsets(index, queries, valid, start, places)
    results = []
    for q, row in enumerate(rows.tolist()):
        calibration = None if job.get("reduction") else index.calibration(int(count[q]), job.mode, job.faiss)
        matches = judged(index, best.place[q], best.distance[q], where[q], calibration, job.mode)
        limit = threshold(calibration, job)
        match = None if limit is None or not matches else bool(matches[0]["distance"] <= limit)
        for one in matches:
            same = one is matches[0] or one["work"] == matches[0]["work"] is not None
            one["match"] = match and same and one["distance"] <= limit
        head = {"path": paths[row], "windows": int(count[q]), "match": match, "threshold": limit}
        results.append({**head, "work": matches[0]["work"] if match else None, "matches": matches})
    return results


def questions(index: Index, found: dict[str, Tensor], rows: Tensor) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Vectors (T, Q, S, D) of the recordings `rows` (Q,) at every tempo of the index, their mask and starts (T, Q, S).

    And how many windows each has at its own tempo (Q,). Starts are in seconds of the recording.
    """
    row, tempo = torch.searchsorted(rows, found["row"]).numpy(), found["tempo"]
    vectors, real, start, counts = [], [], [], []
    for t in index.tempi:
        mine = (tempo - t).abs() < 1e-4
        first, count = extents(row[mine.numpy()], len(rows))
        block, valid = gather(found["vectors"][mine], first, count)
        vectors.append(block)
        real.append(valid)
        start.append(gather(found["start"][mine], first, count)[0])
        counts.append(count)
    own = counts[index.tempi.index(index.tempo)]
    return stacked(vectors), stacked(real), stacked(start).numpy(), own


def threshold(calibration: Calibration | None, job: Any) -> float | None:
    """Largest distance of a match; None when the index cannot tell."""
    if isinstance(job.threshold, int | float):
        return float(job.threshold)
    if calibration is None:
        return None
    if job.threshold == "equal":
        limit = calibration.equal()
    else:
        limit = calibration.threshold(job.p) if len(calibration.nearest) else float("nan")
    return None if np.isnan(limit) else limit


def judged(
    index: Index, place: np.ndarray, distance: np.ndarray, where: Any, calibration: Calibration | None, mode: str
) -> list[dict[str, Any]]:
    """The matches of one query with what their distances mean."""
    kept = place >= 0
    place, distance = place[kept], distance[kept].astype(float)
    columns: dict[str, list[Any]] = {"rank": list(range(1, len(place) + 1))}
    if mode == "centroids":
        names = index.centroids()
        columns |= {
            "work": [names.works[i] for i in place],
            "recording": [None] * len(place),
            "path": [None] * len(place),
        }
        columns["inside"] = (distance <= names.radius.numpy()[place]).tolist()
    else:
        rows = index.table[place.tolist()]
        columns |= {"work": rows["work"].to_list(), "recording": rows["id"].to_list(), "path": rows["path"].to_list()}
    columns["distance"] = distance.round(6).tolist()
    for name in ("z", "p", "chance"):
        known = calibration is not None and len(calibration.nearest if name == "chance" else calibration.pairs)
        columns[name] = getattr(calibration, name)(distance).tolist() if known else [None] * len(place)
    columns |= {name: (values + [None] * len(place))[: len(place)] for name, values in where.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def offsets(
    index: Index, queries: Tensor, valid: Tensor, start: np.ndarray, place: np.ndarray
) -> list[dict[str, list[Any]]]:
    """The best alignment with every match, and where along it the two agree best: the columns PLACES of each query.

    Queries (T, Q, S, D) have windows at `start` (T, Q, S); of its tempi a query takes the one that brings it nearest.
    `place` (Q, k) are recordings of the index, -1 for none.
    """
    query, column = np.nonzero(place >= 0)
    row = place[query, column]
    chosen = nearest_tempo(index, queries, valid, query, row)[0] if len(query) else query  # (P,)
    tempo = np.array(index.tempi)[chosen]
    asked = chosen * queries.shape[1] + query  # among the T Q questions
    queries, valid = queries.flatten(0, 1), valid.flatten(0, 1)
    paced = (start / np.array(index.tempi)[:, None, None]).reshape(valid.shape)  # seconds at the tempo that is heard
    owner, window = np.nonzero(valid.numpy())
    own = index.windows
    step = step_of(np.r_[own.row, len(index) + owner], np.r_[own.start.numpy(), paced[owner, window]])
    other = int(own.count[row].max(initial=1))
    size = max(1, CELLS // (valid.shape[1] * max(valid.shape[1] + other, DRAWS)))  # pairs at once
    blocks = ((asked[i : i + size], row[i : i + size]) for i in range(0, len(row), size))
    parts = [_meet(index, queries, valid, paced, *block, step) for block in blocks]
    columns = [np.concatenate(values) for values in zip(*parts, strict=True)] if parts else [np.zeros(0)] * len(PLACES)
    named = dict(zip(PLACES, columns, strict=True))
    named |= {"query_start": named["query_start"] * tempo, "ratio": named["ratio"] / tempo}
    exact = {name: values if name == "semitones" else values.astype(float).round(3) for name, values in named.items()}
    mine = [query == q for q in range(len(place))]
    return [{name: exact[name][m].tolist() for name in PLACES} for m in mine]


def _meet(
    index: Index, queries: Tensor, valid: Tensor, start: np.ndarray, query: np.ndarray, row: np.ndarray, step: float
) -> tuple[np.ndarray, ...]:
    """The columns PLACES of pairs (P,) of queries (Q, S, D) with windows at `start` (Q, S), and recordings."""
    windows = index.windows
    cells, key = similarities(index, queries, valid, query, row)  # (P, S, s)
    begin, mine = start[query], valid.numpy()[query]  # (P, S) each
    place = np.arange(cells.shape[2])
    other = place < windows.count[row][:, None]  # (P, s)
    end = windows.start.numpy()[np.where(other, windows.first[row][:, None] + place, 0)]
    i, j = spots(begin, mine, step), spots(end, other, step)
    grid = torch.full((len(row), int(i.max()) + 2, int(j.max()) + 2), torch.nan)
    grid[np.arange(len(row))[:, None, None], i[:, :, None], j[:, None]] = cells
    grid = grid[:, :-1, :-1]  # the last places took the windows that have none
    slope, lag, sure = line(grid, share=OVERLAP)
    here = step * best_run(read_line(grid, slope, lag)).double().numpy()
    ratio, shift = slope.double().numpy(), step * lag.double().numpy()
    shift += float(windows.length[0]) / 2 * (1 - ratio)  # windows answer each other by their middles
    there = (ratio * here + shift).clip(min=0)
    return here, there, ratio, shift, sure.numpy(), in_semitones(key.numpy())


def spots(start: np.ndarray, real: np.ndarray, step: float) -> np.ndarray:
    """Places (P, S) of windows on the grid of the step; -1 for none, and beside the grid, and where another one is."""
    place = np.where(real & regular(start, step), places(start, step), -1)
    return np.where(np.diff(place, axis=1, prepend=-2) == 0, -1, place)


def write_matches(path: Path, results: list[dict[str, Any]]) -> None:
    """One row a match."""
    with replacing(path) as part, part.open("w", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, *PLACES], extrasaction="ignore", restval="")
        table.writeheader()
        for item in results:
            for match in item["matches"]:
                table.writerow({"query": item["path"], **match})


def show(results: list[dict[str, Any]], most: int) -> None:
    """Print the nearest matches of every query; z and p where the terminal has room for them."""
    from rich.console import Console

    console = Console()
    for item in results:
        verdict = {
            True: f"match: {item['work'] or 'a recording of unknown work'}",
            False: "no match",
            None: "not judged",
        }
        title = f"{item['path']}: {verdict[item['match']]}"
        console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
        if most:
            console.print(rows(item["matches"][:most], wide=console.width >= WIDE), "")


def rows(matches: list[dict[str, Any]], wide: bool) -> Any:
    """A table of matches. Long names take several lines, numbers are never cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names = ["distance", *(["z", "p"] if wide else []), "chance", "at", "there"]
    for name in ("", "work", "recording", *names):
        numeric = name not in ("work", "recording")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for match in matches:
        recording = Path(match["recording"]).name if match["recording"] else ""
        told = {"distance": f"{match['distance']:.4f}"} | {name: _short(match[name]) for name in ("z", "p", "chance")}
        told |= {"at": _clock(match.get("query_start")), "there": _clock(match.get("match_start"))}
        table.add_row(str(match["rank"]), Text(match["work"] or ""), Text(recording), *(told[name] for name in names))
    return table


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds // 60)}:{seconds % 60:04.1f}"
