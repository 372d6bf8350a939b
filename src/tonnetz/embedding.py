"""Vectors of recordings with a restored task: every window, or every segment of it, with its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tonnetz import audio, web
from tonnetz.ahead import ahead
from tonnetz.build import Experiment
from tonnetz.data.plan import Plan, evaluation_starts
from tonnetz.data.recordings import Recordings, recording_batches
from tonnetz.errors import UserError
from tonnetz.index import weights_fingerprint
from tonnetz.store import take

ENCODER = ("encoder.", "pooling.", "projection.", "whitening.")  # parts of a task that make its vectors
SAME = 5e-3  # seconds; segments of one recording that begin so near each other are one


def model_fingerprint(task: torch.nn.Module) -> str:
    """16 hex digits that identify encoder, pooling and projection; heads do not matter."""
    return fingerprint_of(task.state_dict())


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """The same, from the weights of a checkpoint."""
    return weights_fingerprint({name: value for name, value in weights.items() if name.startswith(ENCODER)})


def plan_of(
    experiment: Experiment,
    window: float | None = None,
    hop: float | None = None,
    pad: str | None = None,
    tempi: Sequence[float] = (1.0,),
) -> Plan:
    """The plan of the task's evaluation windows, with other lengths, padding or `tempi` than the file's when given."""
    plan = experiment.data.plan
    span = window or plan.span
    return replace(plan, seconds=span, window=None, hop=hop or plan.hop or span, pad=pad or plan.pad, tempi=tempi)


def vectors_of(task: Any, batch: Mapping[str, Tensor], seconds: float, device: torch.device) -> dict[str, Tensor]:
    """Vectors (m, D) with row, start, length in seconds and tempo (m,) of a batch: of its segments, or its excerpts."""
    moved = {key: value.to(device) for key, value in batch.items()}
    if hasattr(task, "segments"):
        z, valid, start = task.segments(moved)  # (B, S, D), (B, S), (B, S)
    else:
        z, start = task.embed(moved)[:, None], moved["start"][:, None]
        valid = torch.ones_like(start, dtype=torch.bool)
    tempo = batch.get("tempo", torch.ones(len(batch["row"])))
    row, tempo = (value[:, None].expand(valid.shape)[valid.cpu()] for value in (batch["row"], tempo))
    z, start = z[valid].float().cpu(), start[valid].float().cpu()
    length = tempo * (getattr(task, "segment", None) or seconds)
    return {"vectors": z, "row": row, "start": start, "length": length, "tempo": tempo}


def embed_batches(
    experiment: Experiment, batches: Iterator[Any], plan: Plan, device: torch.device
) -> dict[str, Tensor]:
    """Vectors of all batches, sorted by row, tempo and start; a segment that two windows share counts once."""
    task = experiment.task.to(device).eval()
    with torch.inference_mode():
        parts = [vectors_of(task, batch, plan.span, device) for batch in batches]
    if not parts:
        size = {"vectors": (0, 0), "row": (0,), "start": (0,), "length": (0,), "tempo": (0,)}
        return {name: torch.zeros(shape, dtype=torch.long if name == "row" else None) for name, shape in size.items()}
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    row, start, tempo = found["row"].numpy(), found["start"].double().numpy(), found["tempo"].numpy()
    first = np.lexsort((start, tempo, row))
    again = (np.diff(row[first], prepend=-1) == 0) & (np.diff(tempo[first], prepend=0) == 0)
    again &= np.diff(start[first], prepend=-1.0) < SAME
    first = first[~again]
    return {name: value[torch.from_numpy(first)] for name, value in found.items()}


def embed_files(
    experiment: Experiment, paths: list[str], plan: Plan, device: torch.device, errors: dict[str, str]
) -> dict[str, Tensor]:
    """Vectors of audio files, `row` counting them; reasons of unusable files go to `errors` by path."""
    bad: dict[int, str] = {}
    found = embed_batches(experiment, file_batches(experiment, paths, plan, bad), plan, device)
    errors |= {paths[i]: reason for i, reason in bad.items()}
    return found


def file_batches(
    experiment: Experiment, paths: list[str], plan: Plan, errors: dict[int, str]
) -> Iterator[dict[str, Tensor]]:
    """Windows of files as the task reads its corpus, audio or features; reasons of bad files go to `errors`."""
    if plan.source == "features":
        return feature_batches(experiment, paths, plan, errors)
    data = experiment.data
    recordings = Recordings(paths, plan, data.frontend.sample_rate, data.normalize)
    return recording_batches(recordings, data.batch_size, data.workers, errors)


def feature_batches(
    experiment: Experiment, paths: list[str], plan: Plan, errors: dict[int, str]
) -> Iterator[dict[str, Tensor]]:
    """Windows of the features of whole files, as a feature store would give them, one batch after the other."""
    data = experiment.data

    def read(i: int) -> dict[str, Any]:
        try:
            return {"row": i, **_features(experiment, paths[i], plan)}
        except UserError as error:
            return {"row": i, "error": str(error)}

    for item in ahead(read, iter(range(len(paths))), data.workers):
        if "error" in item:
            errors[item["row"]] = item["error"]
            continue
        for begin in range(0, len(item["start"]), data.batch_size):
            part = {key: value[begin : begin + data.batch_size] for key, value in item.items() if key != "row"}
            yield {**part, "row": torch.full((len(part["start"]),), item["row"])}


def _features(experiment: Experiment, path: str, plan: Plan) -> dict[str, Tensor]:
    frontend = experiment.data.frontend
    rate = frontend.sample_rate
    with web.opened(path) as file:
        signal, _, peak = audio.read_audible(file, rate)
    signal = signal / peak if experiment.data.normalize else signal
    with torch.inference_mode():
        whole = frontend(torch.from_numpy(signal)[None, None].to(_device(frontend)))[0].cpu()  # (C, F, T)
    starts = [evaluation_starts(plan, len(signal), rate, tempo) for tempo in plan.tempi]
    tempi = np.repeat(np.asarray(plan.tempi, float), [len(some) for some in starts])  # (n,)
    start = np.concatenate(starts)  # (n,) samples
    count = max(1, int(frontend.frames(torch.tensor(round(plan.span * rate)))))
    frames = whole.permute(2, 0, 1).flatten(1).numpy()  # (T, C F)
    parts = [frames] * len(start)
    crops, lengths = take(parts, start // frontend.hop, count, tempi, frontend.floor, plan.pad == "repeat")
    features = torch.from_numpy(crops).unflatten(2, whole.shape[:2]).permute(0, 2, 3, 1)  # (n, C, F, count)
    return {
        "features": features.contiguous(),
        "lengths": torch.from_numpy(lengths),
        "start": torch.from_numpy(start / rate),
        "tempo": torch.from_numpy(tempi).float(),
    }


def _device(module: torch.nn.Module) -> torch.device:
    return next((value.device for value in module.buffers()), torch.device("cpu"))


def embed_tracks(experiment: Experiment, frame: pl.DataFrame, plan: Plan, device: torch.device) -> dict[str, Tensor]:
    """Vectors of rows of the corpus's table, `row` counting them."""
    data = copy(experiment.data)
    data.plan = plan
    return embed_batches(experiment, iter(data.windows_of(frame)), plan, device)


def step_of(row: np.ndarray, start: np.ndarray) -> float:
    """Seconds between neighbouring vectors of a recording, as most of them lie; 1 where none has a neighbour.

    The mean over all steps that are like the median one: exact enough to count the steps of an hour.
    """
    steps = np.diff(start.astype(float))[row[1:] == row[:-1]]
    if not len(steps):
        return 1.0
    return float(steps[np.abs(steps - np.median(steps)) < 2e-3].mean().round(9))
