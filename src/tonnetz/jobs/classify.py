"""job=classify: which of the enrolled classes is it, or which family, or nothing known? By file and along time."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tonnetz import audio, web
from tonnetz.atomic import replacing
from tonnetz.build import restore
from tonnetz.data.recordings import find_recordings
from tonnetz.datasets.files import track_ids
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files
from tonnetz.enrolment.recognition import Recognition, recognise, truths
from tonnetz.enrolment.taught import OWN, Answers, Enrolment, head_of
from tonnetz.enrolment.timeline import boundaries, label_track, runs, smooth
from tonnetz.errors import UserError
from tonnetz.jobs.enroll import check, plan_for, prototypes_file
from tonnetz.jobs.index import as_list
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run, write_json
from tonnetz.quiet import quiet
from tonnetz.windows import mean_by_row

NAME, TIME = 16, 12  # characters of a file name, and of what is along time, at least
COLUMNS = ("answer", "label", "probability", "distance", "novelty", "unknown", "node", "family")


@web.fetching()
def run(cfg: DictConfig, run: Run) -> None:
    """Classify ``job.inputs``; writes classify.csv, classify.json, timeline.csv and labels/FILE.txt for Audacity."""
    quiet()
    path, inputs = prototypes_file(cfg), check_keys(cfg)
    enrolment = Enrolment.load(path)
    enrolment.judged(cfg.job.novelty)
    paths = find_recordings(inputs)
    truth = truths(paths, inputs, enrolment) if cfg.job.truth else []
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    check(enrolment, path, experiment)
    plan = plan_for(enrolment.facts, experiment, cfg.job.window, cfg.job.hop)
    errors: dict[str, str] = {}
    found = embed_files(experiment, paths, plan, choose_device(cfg.trainer.accelerator), errors)
    rows = found["row"].unique()
    if not len(rows):
        report_bad(errors, run.folder, experiment.cfg.data.on_error, 0)
    names = [paths[row] for row in rows.tolist()]
    results, novelties = classify(enrolment, found, names, cfg.job)
    write(run.folder, results, enrolment)
    show(results, cfg.job.show)
    if cfg.job.truth:
        known = [truth[row] for row in rows.tolist()]
        tell(recognise(enrolment, results, novelties, known), run)
    print(f"{len(results)} of {len(paths)} files: {run.folder / 'classify.csv'}; for Audacity: {run.folder / 'labels'}")
    run.facts["files"] = {"classified": len(results), "bad": len(errors)}
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(results))


def check_keys(cfg: DictConfig) -> list[str]:
    """The inputs. Raises UserError for a key that cannot be obeyed, before anything is read."""
    job = cfg.job
    if OmegaConf.is_missing(job, "inputs") or not as_list(job.inputs):
        raise UserError("job.inputs is missing: give files, folders or CSV files, job.inputs=[FILE,FOLDER]")
    if job.head != OWN:
        head_of(job.head)
    for key in ("mass", "accept"):
        if not 0 < job[key] <= 1:
            raise UserError(f"job.{key}={job[key]}: must be above 0, at most 1")
    if job.truth not in (None, "folders"):
        raise UserError(f"job.truth={job.truth}: must be folders or null")
    for key in ("window", "hop"):
        if job[key] is not None and job[key] <= 0:
            raise UserError(f"job.{key}={job[key]}: must be above 0 seconds")
    smooth(torch.zeros(0, 1), job.smooth)
    return as_list(job.inputs)


def classify(
    enrolment: Enrolment, found: Mapping[str, Tensor], paths: Sequence[str], job: Any
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """One dict a file with its windows, and the novelties (M, C) of files and of windows.

    `found` are vectors with row, start and length, sorted by row (see `tonnetz.embedding`); paths are those of the
    rows that occur. A file is judged by the mean of its vectors, as examples are.
    """
    row = found["row"].unique(return_inverse=True)[1]
    limits = {name: limit_of(enrolment, name, job) for name in ("file", "window")}
    whole = mean_by_row(found["vectors"], row, len(paths))
    scored = _scored(enrolment, whole, job)
    prob, _, novel = scored
    answers = enrolment.decide(*scored, limits["file"], job.mass)
    parts = _scored(enrolment, found["vectors"], job)
    results = []
    for i, path in enumerate(paths):
        mine = (row == i).nonzero()[:, 0]
        with web.opened(path) as file:
            seconds = audio.probe(file).duration
        item: dict[str, Any] = {"path": path, "seconds": round(seconds, 3), "windows": len(mine)}
        item |= described(enrolment, answers, prob, i) | {"threshold": limits["file"]}
        item["probabilities"] = {name: round(p, 6) for name, p in zip(enrolment.names, prob[i].tolist(), strict=True)}
        start, end = found["start"][mine].double(), (found["start"] + found["length"])[mine].double()
        end = torch.maximum(end.clamp(max=item["seconds"]), start)
        mine_scored = [values[mine] for values in parts]
        results.append(item | timeline(enrolment, mine_scored, start, end, limits["window"], job))
    return results, {"file": novel, "window": parts[2], "row": row}


def limit_of(enrolment: Enrolment, kind: str, job: Any) -> float | None:
    """The novelty beyond which a file or a window is unknown; None for none."""
    if not job.reject:
        return None
    if job.threshold is not None:
        return float(job.threshold)
    return enrolment.limit(kind, job.accept, job.novelty).threshold


def _scored(enrolment: Enrolment, vectors: Tensor, job: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, distances and novelties (M, C) of vectors (M, D)."""
    prob = enrolment.scores(vectors, job.head).softmax(1)
    return prob, enrolment.distances(vectors), enrolment.novelties(vectors, job.novelty)


def described(enrolment: Enrolment, answers: Answers, prob: Tensor, i: int) -> dict[str, Any]:
    """One answer as JSON holds it."""
    label = int(answers.label[i])
    return {
        "answer": answers.text[i],
        "label": enrolment.names[label],
        "probability": round(float(answers.probability[i]), 6),
        "distance": round(float(answers.distance[i]), 6),
        "novelty": round(float(answers.novelty[i]), 6),
        "unknown": bool(answers.unknown[i]),
        "node": answers.node[i] or None,
        "family": [{"node": name, "probability": round(p, 6)} for name, p in enrolment.family(label, prob[i])],
    }


def timeline(
    enrolment: Enrolment, scored: Sequence[Tensor], start: Tensor, end: Tensor, limit: float | None, job: Any
) -> dict[str, Any]:
    """The windows of a file as they are, and its label track: medians over neighbours, equal neighbours joined.

    scored: probabilities, distances and novelties (n, C) of the windows.
    """
    prob, away, novel = scored
    answers = enrolment.decide(prob, away, novel, limit, job.mass)
    times = zip(start.tolist(), end.tolist(), strict=True)
    windows = [
        {"start": round(a, 3), "end": round(b, 3), **described(enrolment, answers, prob, i)}
        for i, (a, b) in enumerate(times)
    ]
    calm = smooth(prob, job.smooth)
    calm = calm / calm.sum(1, keepdim=True).clamp(min=1e-12)
    said = enrolment.decide(calm, smooth(away, job.smooth), smooth(novel, job.smooth), limit, job.mass)
    segments = runs(said.text, boundaries(start.numpy(), end.numpy()))
    keys = ("start", "end", "label")
    return {
        "segments": [dict(zip(keys, (round(a, 3), round(b, 3), text), strict=True)) for a, b, text in segments],
        "timeline": windows,
    }


def write(folder: Path, results: Sequence[dict[str, Any]], enrolment: Enrolment) -> None:
    """classify.json has all, classify.csv a row a file, timeline.csv a row a window; labels/ are for Audacity."""
    facts = {key: enrolment.facts[key] for key in ("encoder", "frontend", "window", "hop", "tree")}
    write_json(folder / "classify.json", {"classes": enrolment.names, **facts, "files": list(results)})
    with replacing(folder / "classify.csv") as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "seconds", *COLUMNS])
        table.writerows([item["path"], item["seconds"], *_cells(item)] for item in results)
    with replacing(folder / "timeline.csv") as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "start", "end", *COLUMNS])
        for item in results:
            table.writerows([item["path"], w["start"], w["end"], *_cells(w)] for w in item["timeline"])
    for name, item in zip(track_names([item["path"] for item in results]), results, strict=True):
        with replacing(folder / "labels" / f"{name}.txt") as part:
            part.write_text(label_track([(s["start"], s["end"], s["label"]) for s in item["segments"]]), "utf-8")


def track_names(paths: Sequence[str]) -> list[str]:
    """A name for the label track of each file: its path below the folder that holds them all."""
    full = [os.path.abspath(path.partition("?")[0] if web.is_address(path) else path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in full])
    return track_ids([PurePath(os.path.relpath(path, root)) for path in full])


def _cells(item: Mapping[str, Any]) -> list[Any]:
    family = " < ".join(f"{step['node']} {step['probability']:.2f}" for step in item["family"])
    row = {**item, "unknown": str(item["unknown"]).lower(), "family": family}
    return [row[name] for name in COLUMNS]


def show(results: Sequence[dict[str, Any]], most: int) -> None:
    """Print a row a file."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    heads = ("file", "answer", "likeliest", "prob.", "novelty")
    table = Table(*(Column(name, no_wrap=True) for name in heads), "along time")  # the last gives way first
    shown = results[:most]
    lengths = (max((len(item[key]) for item in shown), default=0) for key in ("answer", "label"))
    width = max(NAME, console.width - sum(max(9, n) for n in lengths) - len("prob.novelty") - 3 * 6 - 1 - TIME)
    for item in shown:
        track = ", ".join(f"{s['label']} {s['start']:.1f}-{s['end']:.1f}" for s in item["segments"][:3])
        more = ", ..." * (len(item["segments"]) > 3)
        numbers = f"{item['probability']:.2f}", f"{item['novelty']:.3g}"
        name = shortened(Path(item["path"]).name, width)
        table.add_row(
            name, item["answer"], item["label"], *numbers, Text(track + more, no_wrap=True, overflow="ellipsis")
        )
    console.print(table)
    if len(results) > most:
        print(f"... and {len(results) - most} more")


def shortened(name: str, width: int) -> str:
    """A name with its middle left out, where it is longer than `width`: numbers and endings stay."""
    if len(name) <= width:
        return name
    start = width // 2
    return f"{name[:start]}…{name[start + 1 - width :]}"


def tell(found: Recognition, run: Run) -> None:
    """Print and write how the answers agree with the folders."""
    from rich.console import Console
    from rich.table import Column, Table

    heads = ("folder", *found.columns, "right", "rejected")
    table = Table(*(Column(name, overflow="fold") for name in heads), title="likeliest class, or unknown, by folder")
    for row in found.classes:
        right = "" if row["accuracy"] is None else f"{row['accuracy']:.0%}"
        counts = (str(row["answers"][name]) for name in found.columns)
        table.add_row(row["folder"], *counts, right, f"{row['rejected']:.0%}")
    console = Console()
    console.rule("compared with the folders", align="left")
    console.print(table)
    print(found.sentence())
    write_json(run.folder / "truth.json", found.summary())
    with replacing(run.folder / "confusion.csv") as part, part.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["folder", *found.columns], *([r["folder"], *r["answers"].values()] for r in found.classes)]
        )
    run.facts["truth"] = found.summary()
