"""job=embed: one vector a file (or window) as safetensors and npz, with a table of what they belong to."""

from __future__ import annotations

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
from tonnetz.manifest import Run
from tonnetz.probing.features import tap_means
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.tracks import SPLITS
from tonnetz.vector_folder import VectorFolder, file_names
from tonnetz.windows import mean_by_row

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
    table = _shard(_recordings(cfg, experiment), cfg.job.shard)
    folder, held = _folder(cfg, run, experiment), 0
    if folder and len(table):
        done = folder.held(table["name"].to_list(), table["path"].to_list())
        table, held = table.filter([not one for one in done]), sum(done)
        if held:
            print(f"{folder.path}: has {held} of {len(done)} files already; they are not embedded again")
    if not len(table):
        print("nothing is left to embed")
        return
    errors: dict[str, str] = {}
    found = _embed(cfg.job, experiment, table, folder, device, errors)
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
    """The files to embed by their `path`, or the tracks of the corpus; with `name`, what their .npy is called."""
    if not cfg.job.inputs:
        return pl.concat([experiment.data.split(name) for name in SPLITS]).with_columns(name="id")
    paths = find_recordings([cfg.job.inputs] if isinstance(cfg.job.inputs, str) else list(cfg.job.inputs))
    return pl.DataFrame({"path": paths, "name": file_names(paths) if cfg.job.npy else paths})


def _folder(cfg: DictConfig, run: Run, experiment: Experiment) -> VectorFolder | None:
    """Where files of vectors go, where they are asked for: the folder of ``job.npy``, or one of the run."""
    if not cfg.job.npy:
        return None
    place = run.folder / "npy" if cfg.job.npy is True else Path(cfg.job.npy)
    folder = VectorFolder(place, "-".join(map(str, cfg.job.shard)))
    plan = plan_of(experiment)
    facts = {"model": model_fingerprint(experiment.task), "layer": cfg.job.layer, "windows": cfg.job.windows}
    folder.claim({**facts, "span": plan.span, "hop": plan.hop})
    return folder


def _shard(table: pl.DataFrame, shard: Any) -> pl.DataFrame:
    """Every n-th row, beginning with row i, of a shard [i, n]. Raises UserError for another one."""
    i, n = shard if isinstance(shard, Sequence) and len(shard) == 2 else (None, None)
    if not isinstance(i, int) or not isinstance(n, int) or not 0 <= i < n:
        raise UserError(f"job.shard={shard}: is [i, n]: of n processes the i-th, counted from 0")
    return table.gather_every(n, i)


def _embed(
    job: DictConfig,
    experiment: Experiment,
    table: pl.DataFrame,
    folder: VectorFolder | None,
    device: torch.device,
    errors: dict[str, str],
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Vectors (M, D), rows of the table (M,) and starts (M,), each portion written to the folder; or none."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), progress_bar("embedding") as advance:
        for begin in range(0, len(table), PORTION):
            portion = table[begin : begin + PORTION]
            bad: dict[int, str] = {}
            if job.inputs:
                batches = file_batches(experiment, portion["path"].to_list(), experiment.data.plan, bad)
            else:
                nothing = pl.lit(None, pl.List(pl.String))  # labels that the model may not know play no part
                rows_of = portion.drop("name").with_columns(labels=nothing, unknown=nothing)
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
            if folder:
                folder.write(vectors, rows, portion["name"].to_list(), portion["path"].to_list(), job.windows)
            parts.append((vectors, rows + begin, starts))
    if not parts:
        return None
    vectors, rows, starts = (torch.cat(values) for values in zip(*parts, strict=True))
    return vectors, rows, starts


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
