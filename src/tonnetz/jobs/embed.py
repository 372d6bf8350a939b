"""job=embed: one vector a file (or window) as safetensors and npz, with a table of what they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from tonnetz import web
from tonnetz.atomic import replacing
from tonnetz.build import Experiment, restore
from tonnetz.data.recordings import find_recordings
from tonnetz.device import choose_device
from tonnetz.embedding import file_batches, model_fingerprint, plan_of
from tonnetz.errors import UserError, suggest
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run, write_json
from tonnetz.probing.features import tap_means
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.tracks import SPLITS
from tonnetz.windows import mean_by_row

SOURCES = "sources.{}.jsonl"  # beside vectors in files: of which recording each is, a list for each process
PORTION = 256  # recordings after which vectors are written
COLUMNS = ("id", "path", "split", "labels", "work")  # of the table beside the vectors


@web.fetching()
def run(cfg: DictConfig, run: Run) -> None:
    """Embed ``job.inputs``, or the corpus of `data`, with ``cfg.ckpt``."""
    quiet()
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    device = choose_device(cfg.trainer.accelerator)
    experiment.task.to(device).eval()
    _check_layer(experiment, cfg.job.layer)
    table = _recordings(cfg, experiment)
    target = None if not cfg.job.npy else run.folder / "npy" if cfg.job.npy is True else Path(cfg.job.npy)
    if target and cfg.job.inputs:
        table = table.with_columns(pl.Series("name", _names(table["path"].to_list())))
    elif target:
        table = table.with_columns(name="id")
    table, held = _shard(table, cfg.job.shard), 0
    if target and len(table):
        claim(target, experiment, cfg.job.layer, cfg.job.windows)
        done = there(target, table)
        table, held = table.filter(~done), int(done.sum())
        if held:
            print(f"{target}: has {held} of {len(done)} files already; they are not embedded again")
    if not len(table):
        print("nothing is left to embed")
        return
    errors: dict[str, str] = {}
    found = _embed(cfg.job, experiment, table, target, device, errors)
    if found is None and not errors:
        raise UserError("nothing could be embedded: no recording has a window")
    if found is None:
        report_bad(errors, run.folder, experiment.cfg.data.on_error, held)
        return
    vectors, rows, starts = found
    table = table.select(name for name in COLUMNS if name in table.columns).with_row_index("row")
    write_embeddings(run.folder, vectors, rows, starts, table)
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} dimensions: {run.folder / 'embeddings.safetensors'}")
    run.facts["embeddings"] = {"vectors": len(vectors), "dimensions": vectors.shape[1]}
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(vectors))


def _recordings(cfg: DictConfig, experiment: Experiment) -> pl.DataFrame:
    """The files to embed by their `path`, or the tracks of the corpus."""
    if cfg.job.inputs:
        inputs = [cfg.job.inputs] if isinstance(cfg.job.inputs, str) else list(cfg.job.inputs)
        return pl.DataFrame({"path": find_recordings(inputs)})
    return pl.concat([experiment.data.split(name) for name in SPLITS])


def _shard(table: pl.DataFrame, shard: Any) -> pl.DataFrame:
    """Every n-th row, beginning with row i, of a shard [i, n]. Raises UserError for another one."""
    i, n = shard if isinstance(shard, Sequence) and len(shard) == 2 else (None, None)
    if not isinstance(i, int) or not isinstance(n, int) or not 0 <= i < n:
        raise UserError(f"job.shard={shard}: is [i, n]: of n processes the i-th, counted from 0")
    return table.gather_every(n, i)


def claim(folder: Path, experiment: Experiment, layer: str | None, windows: bool) -> None:
    """Say in ``folder/embedding.json`` what its vectors are. Raises UserError when they are other ones already."""
    plan = plan_of(experiment)
    facts: dict[str, Any] = {"model": model_fingerprint(experiment.task), "layer": layer, "windows": windows}
    facts |= {"span": plan.span, "hop": plan.hop}
    path = folder / "embedding.json"
    if not any(folder.rglob("*.npy")):
        write_json(path, facts)
    elif not path.is_file():
        raise UserError(f"job.npy={folder}: holds vectors whose model is not known; take another folder")
    elif json.loads(path.read_text()) != facts:
        raise UserError(f"job.npy={folder}: holds vectors of another model, layer or window; take another folder")


def there(folder: Path, table: pl.DataFrame) -> pl.Series:
    """Which rows (N,) have a file in `folder` that is their own. One whose sound has changed is embedded anew.

    Raises UserError where a file of that name is another recording's.
    """
    known: dict[str, set[tuple[str, str]]] = {}
    for path in folder.glob(SOURCES.format("*")):
        for line in path.read_text().splitlines():
            name, place, mark = json.loads(line)
            known.setdefault(name, set()).add((place, mark))
    found = []
    for name, place, mark in zip(table["name"], table["path"], _marks(table), strict=True):
        others = {path for path, _ in known.get(name, set())} - {place}
        if others:
            other = min(others)
            raise UserError(f"job.npy={folder}: {name}.npy is of {other}, not of {place}; take another folder")
        found.append((place, mark) in known.get(name, set()) and readable(folder / f"{name}.npy"))
    return pl.Series(found, dtype=pl.Boolean)


def _marks(table: pl.DataFrame) -> list[str]:
    """What changes when a recording does: size and time of its file; nothing of a web address."""
    marks = []
    for path in table["path"]:
        stat = os.stat(path) if os.path.exists(path) else None
        marks.append(f"{stat.st_size}-{stat.st_mtime_ns}" if stat else "")
    return marks


def readable(path: Path) -> bool:
    """Whether a file is there, and an array."""
    try:
        return path.is_file() and np.load(path, mmap_mode="r", allow_pickle=False).size > 0
    except (ValueError, EOFError, OSError):
        return False


def _embed(
    job: DictConfig,
    experiment: Experiment,
    table: pl.DataFrame,
    target: Path | None,
    device: torch.device,
    errors: dict[str, str],
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Vectors (M, D), rows of the table (M,) and starts (M,), portion by portion, each written to `target`; or none."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), progress_bar("embedding") as advance:
        for begin in range(0, len(table), PORTION):
            portion = table[begin : begin + PORTION]
            marks = _marks(portion) if target else []
            bad: dict[int, str] = {}
            if job.inputs:
                batches = file_batches(experiment, portion["path"].to_list(), experiment.data.plan, bad)
            else:
                nothing = pl.lit(None, pl.List(pl.String))  # labels that the model may not know play no part
                rows_of = portion.drop("name", strict=False).with_columns(labels=nothing, unknown=nothing)
                batches = iter(experiment.data.windows_of(rows_of))
            found = [_of_batch(experiment, batch, device, job.layer) for batch in batches]
            errors |= {portion["path"][i]: reason for i, reason in bad.items()}
            advance(begin + len(portion), len(table))
            if not found:
                continue
            vectors, rows, starts = (torch.cat(values) for values in zip(*found, strict=True))
            if not job.windows:
                rows, index = rows.unique(return_inverse=True)
                vectors = mean_by_row(vectors, index, len(rows))
                starts = torch.zeros(len(rows))
            if target:
                names = portion["name"].to_list()
                write_npy(target, vectors, rows, names, job.windows)
                told = [(names[i], portion["path"][i], marks[i]) for i in rows.unique().tolist()]
                with (target / SOURCES.format("-".join(map(str, job.shard)))).open("a") as file:
                    file.writelines(json.dumps(one) + "\n" for one in told)
            parts.append((vectors, rows + begin, starts))
    if not parts:
        return None
    vectors, rows, starts = (torch.cat(values) for values in zip(*parts, strict=True))
    return vectors, rows, starts


def _names(paths: Sequence[str]) -> list[str]:
    """What the .npy of each file is called. Raises UserError when two would be called the same."""
    first: dict[str, str] = {}
    for path in paths:
        other = first.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(f"job.npy: {other} and {path} would both be {Path(path).stem}.npy; embed them apart")
    return list(first)


def write_npy(folder: Path, vectors: Tensor, rows: Tensor, names: Sequence[str], windows: bool = False) -> None:
    """One file ``folder/{name}.npy`` a row, (D,) or its windows (M, D): what jukemir and job.features read."""
    for row in rows.unique().tolist():
        found = vectors[rows == row].numpy()
        with replacing(folder / f"{names[row]}.npy") as part, part.open("wb") as file:
            np.save(file, found if windows else found[0])


def _check_layer(experiment: Experiment, layer: str | None) -> None:
    taps = experiment.task.encoder.backbone.taps
    if layer is not None and layer not in taps:
        raise UserError(f"job.layer={layer}: no such tap of this backbone{suggest(layer, taps)}")


def _of_batch(
    experiment: Experiment, batch: dict[str, Tensor], device: torch.device, layer: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (B, D), rows and starts in seconds (B,) of windows."""
    moved = {key: value.to(device) for key, value in batch.items()}
    vectors = experiment.task.embed(moved) if layer is None else tap_means(experiment.task, moved, [layer])[layer]
    return vectors.float().cpu(), batch["row"], batch["start"]


def write_embeddings(folder: Path, vectors: Tensor, rows: Tensor, starts: Tensor, table: pl.DataFrame) -> None:
    """Write embeddings.safetensors, embeddings.npz and embeddings.csv (one row a vector)."""
    from safetensors.torch import save_file

    arrays: dict[str, Any] = {"vectors": vectors.contiguous(), "row": rows, "start": starts.float()}
    with replacing(folder / "embeddings.safetensors") as part:
        save_file(arrays, part)
    with replacing(folder / "embeddings.npz") as part, part.open("wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in arrays.items()})
    place = pl.DataFrame({"row": rows.numpy(), "start": starts.numpy()}, schema={"row": pl.UInt32, "start": pl.Float64})
    listing = place.join(table, on="row", how="left", maintain_order="left")
    lists = [name for name, kind in listing.schema.items() if isinstance(kind, pl.List)]
    with replacing(folder / "embeddings.csv") as part:
        listing.with_columns(pl.col(name).list.join(";") for name in lists).write_csv(part)
