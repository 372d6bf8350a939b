"""job=embed: one vector a file (or window) as safetensors and npz, with a table of what they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from tonnetz.embedding import file_batches
from tonnetz.errors import UserError, suggest
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.tracks import SPLITS


@web.fetching()
def run(cfg: DictConfig, run: Run) -> None:
    """Embed ``job.inputs``, or the corpus of `data`, with ``cfg.ckpt``."""
    quiet()
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    device = choose_device(cfg.trainer.accelerator)
    experiment.task.to(device).eval()
    _check_layer(experiment, cfg.job.layer)
    errors: dict[int, str] = {}
    if cfg.job.inputs:
        inputs = [cfg.job.inputs] if isinstance(cfg.job.inputs, str) else list(cfg.job.inputs)
        table = pl.DataFrame({"path": find_recordings(inputs)})
        names = _names(table["path"].to_list()) if cfg.job.npy else []
        batches = file_batches(experiment, table["path"].to_list(), experiment.data.plan, errors)
    else:
        parts = [experiment.data.split(name) for name in SPLITS]
        table = pl.concat(parts).select("id", "path", "split", "labels", "work")
        names = table["id"].to_list()
        batches = iter(experiment.data.windows_of(pl.concat(parts)))
    vectors, rows, starts = embed(experiment, batches, device, cfg.job.layer, len(table))
    table = table.with_row_index("row")
    if not cfg.job.windows:
        vectors, rows = mean_by_row(vectors, rows)
        starts = torch.zeros(len(rows))
    write_embeddings(run.folder, vectors, rows, starts, table)
    if cfg.job.npy:
        write_npy(run.folder / "npy", vectors, rows, names, cfg.job.windows)
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} dimensions: {run.folder / 'embeddings.safetensors'}")
    run.facts["embeddings"] = {"vectors": len(vectors), "dimensions": vectors.shape[1]}
    bad = {table["path"][i]: reason for i, reason in errors.items()}
    report_bad(bad, run.folder, experiment.cfg.data.on_error, len(vectors))


def _names(paths: Sequence[str]) -> list[str]:
    """What the .npy of each file is called. Raises UserError when two would be called the same."""
    first: dict[str, str] = {}
    for path in paths:
        other = first.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(f"job.npy=true: {other} and {path} would both be {Path(path).stem}.npy; embed them apart")
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


def embed(
    experiment: Experiment,
    batches: Iterator[dict[str, Tensor]],
    device: torch.device,
    layer: str | None,
    total: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (M, D), rows (M,) and starts in seconds (M,) of all windows."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), progress_bar("embedding") as advance:
        for batch in batches:
            moved = {key: value.to(device) for key, value in batch.items()}
            vectors = experiment.task.embed(moved) if layer is None else _tap(experiment, moved, layer)
            found.append((vectors.float().cpu(), batch["row"], batch["start"]))
            advance(int(batch["row"][-1]) + 1, total)
    if not found:
        raise UserError("nothing could be embedded; see the listed files")
    vectors, rows, starts = (torch.cat(values) for values in zip(*found, strict=True))
    return vectors, rows, starts


def _tap(experiment: Experiment, batch: dict[str, Tensor], layer: str) -> Tensor:
    """Mean over the valid frames of one tap, (B, D)."""
    taps, mask = experiment.task.encoder.layers(batch)
    hidden = taps[layer]  # (B, T', D)
    share = torch.nn.functional.interpolate(mask[:, None].float(), hidden.shape[1])[:, 0, :, None]  # (B, T', 1)
    return (hidden * share).sum(1) / share.sum(1).clamp(min=1)


def mean_by_row(vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the windows of each row: (rows, D) and the rows."""
    unique, index = rows.unique(return_inverse=True)
    total = torch.zeros(len(unique), vectors.shape[1]).index_add_(0, index, vectors)
    return total / index.bincount()[:, None], unique


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
