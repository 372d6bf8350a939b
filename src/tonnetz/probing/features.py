"""Features of a corpus, computed once: of a checkpoint's taps, or of MFCC and chroma statistics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.audio import read_prepared
from tonnetz.build import Experiment
from tonnetz.data.excerpts import Loader, Windows
from tonnetz.data.plan import Chunks, Plan, evaluation_starts
from tonnetz.embedding import model_fingerprint, plan_of
from tonnetz.errors import UserError
from tonnetz.frontend import fingerprint as frontend_fingerprint
from tonnetz.probing.deform import VERSION, Deform
from tonnetz.probing.slices import Slices
from tonnetz.progress import progress_bar
from tonnetz.windows import mean_by_row

TAILS = ("overlap", "drop", "pad")
EMBEDDING = "embedding"  # what the task's own vector is called beside taps


@dataclass
class Features:
    """Vectors of one kind for the tracks of some splits.

    Args:
        name: in tables.
        x: vectors (M, D) by split.
        row: the track of each, its place in the split's table (M,), ascending.
        mark: identifies how they were made.
        taps: so many of one width side by side, of which every probe learns a weighted sum.
        of: names of the taps that they were made of; none of features that no encoder made here.
    """

    name: str
    x: dict[str, Tensor]
    row: dict[str, Tensor]
    mark: str
    taps: int = 1
    of: tuple[str, ...] = ()


def mark_of(**facts: Any) -> str:
    """16 hex digits of facts."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def tracks_mark(frame: pl.DataFrame) -> str:
    """16 hex digits of the sound of a table's rows, in their order."""
    columns: list[str] = [name for name in ("id", "audio", "first", "samples", "peak") if name in frame.columns]
    if "stamp" in frame.columns and frame["stamp"].null_count() < frame.height:  # of files that are read where they lie
        columns.append("stamp")
    return hashlib.blake2b(frame.select(columns).write_ndjson().encode(), digest_size=8).hexdigest()


def load_or(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of a safetensors file, made and written when it is not there."""
    from safetensors.torch import load_file, save_file

    if not path.exists():
        values = {name: value.contiguous() for name, value in make().items()}
        with replacing(path) as part:
            save_file(values, part)
        return values
    return load_file(path)


def extract(
    experiment: Experiment,
    frames: Mapping[str, pl.DataFrame],
    taps: Sequence[str],
    plan: Plan,
    tail: str,
    device: torch.device,
    name: str = "model",
    deform: tuple[str, Deform] | None = None,
    slices: Slices | None = None,
) -> dict[str, Features]:
    """Features of the task's own embedding, or of taps, by their name: one pass over the sound for all of them.

    One vector a window, or, with `slices`, the mean over the windows of a slice, none of which lies in two. They are
    stored below `data.cache/probes` under a mark of weights, front-end, tracks, windows and deformation.
    """
    task, data = experiment.task, experiment.data
    known = (*task.encoder.backbone.taps, EMBEDDING)
    for tap in taps:
        if tap not in known:
            raise UserError(f"job.taps: '{tap}' is no tap of this backbone; known: {', '.join(known)}")
    plan = ungrouped(plan)
    facts: dict[str, Any] = {
        "model": model_fingerprint(task),
        "frontend": frontend_fingerprint(data.frontend),
        "taps": list(taps),
    }
    facts |= {"span": plan.span, "hop": plan.hop, "pad": plan.pad, "source": plan.source, "tail": tail}
    facts |= {"normalize": data.normalize, "deform": [deform[0], VERSION] if deform else None}
    facts |= {"slices": asdict(slices)} if slices else {}
    found: dict[str, dict[str, Tensor]] = {}
    marks = {}
    for split, frame in frames.items():
        marks[split] = mark_of(**facts, tracks=tracks_mark(frame))
        path = Path(data.cache) / "probes" / f"{marks[split]}.safetensors"
        make = partial(_pass, experiment, frame, taps, plan, tail, device, deform, slices)
        found[split] = load_or(path, make)
    rows = {split: values["row"] for split, values in found.items()}
    result = {}
    for tap in taps:
        title = name if tap == EMBEDDING else f"{name} {tap}"
        x = {split: values[tap] for split, values in found.items()}
        result[tap] = Features(title, x, rows, mark_of(parts=marks, tap=tap), of=(tap,))
    return result


def plan_within(experiment: Experiment, window: float | None, hop: float | None, slices: Slices | None) -> Plan:
    """The plan of the evaluation windows, with another window or hop when given; none is longer than a slice."""
    plan = plan_of(experiment, window, hop)
    span = min(plan.span, slices.seconds) if slices else plan.span
    return replace(plan, seconds=span, window=None, hop=min(plan.hop or span, span)) if span < plan.span else plan


def ungrouped(plan: Plan) -> Plan:
    """The windows of any plan, of episodes or views too, without the groups and pairs that its training is made of."""
    values = {field.name: getattr(plan, field.name) for field in fields(Plan)}
    return Plan(**{**values, "group": None, "alignment": None})


def _pass(
    experiment: Experiment,
    frame: pl.DataFrame,
    taps: Sequence[str],
    plan: Plan,
    tail: str,
    device: torch.device,
    deform: tuple[str, Deform] | None,
    slices: Slices | None,
) -> dict[str, Tensor]:
    """Vectors (M, D) of all windows, or slices, of the rows by tap, and their rows (M,)."""
    task: Any = experiment.task.to(device).eval()
    if deform and plan.source != "audio":
        raise UserError("job.deformations: need sound, and this checkpoint reads stored features; leave them out")
    loader, piece = _windows(experiment, frame, plan, tail, slices)
    parts: list[dict[str, Tensor]] = []
    with torch.inference_mode(), progress_bar("extracting features") as advance:
        for batch in loader:
            moved = {key: value.to(device) for key, value in batch.items()}
            if deform:
                moved["audio"] = deform[1](moved["audio"], moved["row"], experiment.data.frontend.sample_rate)
            values = tap_means(task, moved, [tap for tap in taps if tap != EMBEDDING])
            if EMBEDDING in taps:
                values[EMBEDDING] = task.embed(moved)
            parts.append({"row": batch["row"], **{tap: value.float().cpu() for tap, value in values.items()}})
            advance(int(batch["row"][-1]) + 1, frame.height)
    found = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    if piece is None:
        order = found["row"].argsort(stable=True)
        found = {key: value[order] for key, value in found.items()}
    else:
        numbers, first = np.unique(piece, return_index=True)
        row = found.pop("row")[torch.from_numpy(first)]
        found = {key: mean_by_row(value, torch.from_numpy(piece), len(numbers)) for key, value in found.items()}
        found["row"] = row
    for tap in taps:
        check_finite(found[tap], frame, found["row"])
    return found


def _windows(
    experiment: Experiment, frame: pl.DataFrame, plan: Plan, tail: str, slices: Slices | None
) -> tuple[Loader, np.ndarray | None]:
    """Batches of windows of rows of the table, and the number (M,) of the slice of each; labels play no part."""
    if tail not in TAILS:
        raise UserError(f"job.tail={tail}: known are {', '.join(TAILS)}")
    nothing = pl.lit(None, pl.List(pl.String))
    data = experiment.data.holding(frame.with_columns(split=pl.lit("test"), labels=nothing, unknown=nothing))
    data.plan = plan
    windows = data.dataset("test")
    assert isinstance(windows, Windows)
    hop, rate, piece = plan.hop or plan.span, data.frontend.sample_rate, None
    if slices:
        piece = lay_in_slices(windows, frame, slices, round(hop * rate), tail)
    elif plan.grid is None:
        cut_tails(windows, round(hop * rate), tail)
    return Loader(windows, Chunks(len(windows), data.batch_size), data.workers), piece


def lay_in_slices(windows: Windows, frame: pl.DataFrame, slices: Slices, hop: int, tail: str) -> np.ndarray:
    """Lay windows anew, so that they cover every slice by itself; returns the number (M,) of the slice of each."""
    if tail == "pad":
        raise UserError("job.tail=pad: a window must not reach out of a slice; take overlap or drop, or job.slice=0")
    pieces, row = slices.cut(frame, windows.sample_rate)
    starts = [evaluation_starts(windows.plan, n, windows.sample_rate) for n in pieces["samples"]]
    windows.rows = np.repeat(np.arange(len(row)), [len(some) for some in starts])
    windows.starts = np.concatenate(starts).astype(np.int64)
    windows.tempi = np.ones(len(windows.starts))
    if windows.plan.grid is None:
        cut_tails(windows, hop, tail)
    piece = windows.rows
    begin = pieces["first"].to_numpy() - frame["first"].to_numpy()[row]  # (S,) samples into the recording
    windows.rows, windows.starts = row[piece], windows.starts + begin[piece]
    return piece


def cut_tails(windows: Windows, hop: int, tail: str) -> None:
    """What happens to the end of a recording that no whole window covers.

    overlap: the last window is aligned to the end; drop: it is left out, unless it is the only one; pad: it begins a
    hop after the last but one, and is filled up.
    """
    late = windows.starts % hop != 0
    if tail == "pad":
        windows.starts = np.where(late, -(-windows.starts // hop) * hop, windows.starts)
    elif tail == "drop":
        windows.rows, windows.starts, windows.tempi = (
            values[~late] for values in (windows.rows, windows.starts, windows.tempi)
        )


def tap_means(task: Any, batch: dict[str, Tensor], taps: Sequence[str]) -> dict[str, Tensor]:
    """Mean over the valid frames of taps, (B, D) each, from one forward pass."""
    if not taps:
        return {}
    layers, mask = task.encoder.layers(batch)
    found = {}
    for tap in taps:
        hidden = layers[tap]  # (B, T', D)
        share = torch.nn.functional.interpolate(mask[:, None].float(), hidden.shape[1])[:, 0, :, None]  # (B, T', 1)
        found[tap] = (hidden * share).sum(1) / share.sum(1).clamp(min=1)
    return found


def concatenated(parts: Sequence[Features], name: str) -> Features:
    """Several features of the same windows side by side."""
    x = {split: torch.cat([part.x[split] for part in parts], 1) for split in parts[0].x}
    return Features(name, x, parts[0].row, mark_of(parts=[part.mark for part in parts]), of=_taps(parts))


def summable(parts: Sequence[Features], name: str) -> Features:
    """Several features of the same windows, for a learned weighted sum.

    Narrow ones are brought to the largest width by a fixed orthonormal map, which keeps all distances.
    """
    wide = max(next(iter(part.x.values())).shape[1] for part in parts)
    x = {split: torch.cat([widened(part.x[split], wide) for part in parts], 1) for split in parts[0].x}
    return Features(name, x, parts[0].row, mark_of(sum=[part.mark for part in parts]), len(parts), _taps(parts))


def _taps(parts: Sequence[Features]) -> tuple[str, ...]:
    return tuple(tap for part in parts for tap in part.of)


def widened(x: Tensor, wide: int) -> Tensor:
    """Features (M, D) as (M, wide), with the same distances between them."""
    if x.shape[1] == wide:
        return x
    random = torch.randn(wide, x.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x @ torch.linalg.qr(random).Q.T.float()


def check_finite(x: Tensor, frame: pl.DataFrame, row: Tensor) -> None:
    """Raise UserError that names the first track with a feature that is no finite number."""
    bad = ~x.isfinite().all(1)
    if bad.any():
        raise UserError(f"features of track '{frame['id'][int(row[bad][0])]}': hold NaN or infinity; leave it out")


def handcrafted(
    kind: str, frames: Mapping[str, pl.DataFrame], sample_rate: int, cache: Path, slices: Slices | None = None
) -> Features:
    """Statistics of MFCCs (120) or chroma (72): mean and deviation of frames and of their first two differences.

    One vector a track or, with `slices`, a slice.
    """
    make = {"mfcc": _mfcc, "chroma": _chroma}[kind]
    x, row, marks = {}, {}, {}
    for split, frame in frames.items():
        pieces, places = slices.cut(frame, sample_rate) if slices else (frame, np.arange(frame.height))
        marks[split] = mark_of(kind=kind, rate=sample_rate, tracks=tracks_mark(pieces))

        def compute(frame: pl.DataFrame = pieces) -> dict[str, Tensor]:
            places = list(frame.select("audio", "header", "first", "samples", "peak").iter_rows())
            with ThreadPoolExecutor() as pool, torch.inference_mode():
                values = list(pool.map(lambda place: moving(make(read_prepared(*place), sample_rate)), places))
            return {"x": torch.stack(values)}

        x[split] = load_or(cache / "probes" / f"{marks[split]}.safetensors", compute)["x"]
        row[split] = torch.from_numpy(places)
    return Features(kind, x, row, mark_of(parts=marks))


def moving(frames: Tensor) -> Tensor:
    """Mean and deviation (6 F,) over time of frames (F, T), of their first and of their second differences."""
    found = []
    for _ in range(3):
        found += [frames.mean(1), frames.std(1, correction=0)]
        frames = frames.diff(dim=1) if frames.shape[1] > 1 else torch.zeros_like(frames)
    return torch.cat(found)


def _mfcc(signal: np.ndarray, sample_rate: int) -> Tensor:
    from tonnetz.frontend import MFCC

    return MFCC(sample_rate=sample_rate)(torch.from_numpy(signal)[None, None])[0, 0]  # (20, T)


def _chroma(signal: np.ndarray, sample_rate: int) -> Tensor:
    import librosa

    signal = np.pad(signal, (0, max(0, 4096 - len(signal))))
    chroma = librosa.feature.chroma_stft(y=signal, sr=sample_rate, n_fft=4096, hop_length=1024, tuning=0.0)
    return torch.from_numpy(chroma).float()  # (12, T)
