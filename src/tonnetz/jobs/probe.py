"""job=probe: how much do frozen features know? All configurations of a protocol, beside simple baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from tonnetz import figures
from tonnetz.atomic import replacing
from tonnetz.build import Experiment, build_data, build_task, connect, plain, restore
from tonnetz.device import choose_device
from tonnetz.embedding import model_fingerprint
from tonnetz.errors import UserError, suggest
from tonnetz.jobs.prepare import summary
from tonnetz.learned import seen
from tonnetz.manifest import Run, write_csv, write_json
from tonnetz.paths import config_folder
from tonnetz.probing.apply import apply
from tonnetz.probing.baselines import BASELINES, absent, subjects
from tonnetz.probing.deform import deformation
from tonnetz.probing.features import EMBEDDING, Features, concatenated, extract, handcrafted, plan_within, summable
from tonnetz.probing.folder import Lost, read_folder
from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, expand
from tonnetz.probing.lead import add_leads, best
from tonnetz.probing.search import Settings, Units, judged, search, unit_of
from tonnetz.probing.slices import Slices
from tonnetz.probing.tables import brief, caption, flat, markdown, name_of, score_bars, show_all
from tonnetz.probing.targets import constant, fraction_of, targets
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.tracks import SPLITS

JOINS = ("each", "concat", "sum", "all")
Row = dict[str, Any]


def run(cfg: DictConfig, run: Run) -> float | None:
    """Write probe.json, .csv and .md, configurations, a figure; returns the checkpoint's best validation score."""
    quiet()
    check_words(cfg.job)
    preset = read_preset(cfg.job)
    probes, protocol = expand(preset["axes"]), Protocol(name=cfg.job.preset, **preset["protocol"])
    device = choose_device(cfg.trainer.accelerator)
    device = torch.device("cpu") if device.type == "mps" else device  # which has no double precision
    if cfg.job.dry:
        list_probes(probes, jukemir_names(cfg.job))
        return None
    if cfg.job.bench is not None:
        return measure(cfg, run, probes, protocol, device)
    if cfg.job.apply is not None:
        apply(cfg, run, device)
        return None
    subject, data, given, lost = find_subject(cfg, run.folder)
    frames = {split: data.split(split) for split in SPLITS}
    target = cfg.job.target if isinstance(cfg.job.target, str) else list(cfg.job.target)
    goal, values = targets(frames, target, cfg.job.kind, cfg.job.metric, cfg.job.bins, cfg.job.unseen)
    rules = tuple(preset["aggregate"])
    goal.check(rules)
    settings = Settings(preset["train"], rules, cfg.job.seeds, cfg.seed, cfg.job.draws, str(device))
    units = {split: unit_of(frame, cfg.job.unit) for split, frame in frames.items()}
    known = knowledge(subject, frames)
    rows: list[Row] = []
    own, beside = features_of(cfg, subject, given, data, frames, preset, device)
    for fraction in cfg.job.fractions:
        part: list[Row] = []
        keep = fraction_of(values["train"], fraction, cfg.seed)
        for number, (features, others) in enumerate(own + beside):
            with progress_bar(f"probing {features.name}") as advance:
                row = search(
                    *(features, goal, values, units, keep, probes, protocol, settings, run.folder / "parts", advance),
                    others=others,
                )
            row["baseline"] = number >= len(own)
            taught = {"transductive": known["seen"]["test"]} if known and not row["baseline"] else {}
            part.append({"fraction": fraction, "examples": len(keep), **row, **taught})
        if "constant" in cfg.job.baselines:
            row = constant_row(goal, values, units, keep, settings)
            part.append({"fraction": fraction, "examples": len(keep), **row})
        add_leads(part, best(subjects(part)), goal.monitor)
        rows += part
    facts: dict[str, Any] = {"preset": cfg.job.preset, "protocol": asdict(protocol), "axes": preset["axes"]}
    facts |= {"settings": asdict(settings), "target": target, "goal": asdict(goal), "seed": cfg.seed}
    facts |= {
        "checkpoint": str(Path(cfg.ckpt).absolute()) if subject else None,
        "data": summary(data),
        "tail": cfg.job.tail,
    }
    facts |= {"window": cfg.job.window, "hop": cfg.job.hop, "unit": cfg.job.unit}
    facts["units"] = {split: len(number.unique()) for split, number in units.items()}
    facts["slices"] = asdict(preset["slices"]) if preset["slices"] else None
    facts["model"] = model_fingerprint(subject.task) if subject else None
    facts["pretraining"] = known
    facts["transductive"] = bool(known and known["seen"]["test"])
    facts["config"] = plain(subject.cfg if subject else cfg)
    sizes = {split: frame.height for split, frame in frames.items()}
    facts["split"] = {"name": split_name(data), "seed": data.split_seed, **sizes}
    facts["left_out"] = lost
    write_results(run.folder, facts, rows)
    run.facts["probe"] = {row["features"]: row["test"] for row in rows}
    return float(best(subjects(rows))["valid"])  # of the tap that validation would choose; sweeps select on it


def check_words(job: DictConfig) -> None:
    """Single words become lists of one. Raises UserError for an empty list, and for what should be numbers."""
    for key in ("baselines", "fractions"):
        if not isinstance(job[key], ListConfig):
            job[key] = [job[key]]
    empty = next(
        (key for key in ("fractions", "target") if isinstance(job[key], ListConfig) and not len(job[key])), None
    )
    if empty:
        raise UserError(f"job.{empty} is empty; name at least one")
    given = [(key, job[key]) for key in ("window", "hop", "bench") if job[key] is not None]
    given += [("fractions", value) for value in job.fractions]
    for key, value in given:
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(f"job.{key}={value}: must be a number above 0")


def read_preset(job: DictConfig) -> dict[str, Any]:
    """The preset with what the command line changes. Raises UserError for an unknown one."""
    folder = config_folder() / "job" / "presets"
    path = folder / f"{job.preset}.yaml"
    if not path.exists():
        raise UserError(
            f"job.preset={job.preset}: no such preset{suggest(job.preset, (p.stem for p in folder.glob('*.yaml')))}"
        )
    preset: Any = OmegaConf.to_container(OmegaConf.load(path))
    given: Any = OmegaConf.to_container(job, resolve=True)
    for node in ("axes", "protocol"):
        preset[node] |= {key: value for key, value in given[node].items() if value is not None}
    for key in ("train", "aggregate", "deformations", "taps", "slice", "slice_keep"):
        if given[key] is not None:
            preset[key] = given[key]
    for key in ("aggregate", "deformations"):
        preset[key] = [preset[key]] if isinstance(preset[key], str) else preset[key]
    for key in ("aggregate", "taps"):
        if preset[key] is not None and not len(preset[key]):
            raise UserError(f"job.{key} is empty; name at least one, or null for the preset's")
    preset["slices"] = Slices(preset["slice"], preset["slice_keep"]) if preset["slice"] else None
    return preset


def jukemir_names(job: DictConfig) -> list[str]:
    """Dataset and representation whose configurations are listed with jukemir's ids. Raises UserError for others."""
    names = [str(name) for name in job.jukemir or []]
    if not names:
        return names
    if len(names) != 2 or job.preset != "jukemir216" or any(value is not None for value in job.protocol.values()):
        raise UserError(
            "job.jukemir: is [DATASET,REPRESENTATION], with job.preset=jukemir216 and its protocol unchanged"
        )
    return names


def list_probes(probes: Sequence[Probe], names: Sequence[str] = ()) -> None:
    """Print every configuration with its id; jukemir's own, where names of dataset and representation are given."""
    for probe in probes:
        name = probe.jukemir_id(*names) if names else probe.id
        print(name, *(f"{key}={value}" for key, value in asdict(probe).items()))
    print(f"{len(probes)} configurations")


def measure(cfg: DictConfig, run: Run, probes: Sequence[Probe], protocol: Protocol, device: torch.device) -> float:
    """Time the sweep on random features, and the slow way beside it."""
    from tonnetz.probing.bench import bench

    if len(cfg.job.sizes) != 5 or min(cfg.job.sizes) < 2 or cfg.job.bench <= 0:
        raise UserError(
            "job.bench, job.sizes: need seconds above 0, and five sizes: train, valid, test, width, classes"
        )
    found = bench(probes, protocol, list(cfg.job.sizes), float(cfg.job.bench), device)
    print(
        f"{len(probes)} probes on {found['device']}: {found['seconds']:,.1f} s; one by one (extrapolated, "
        f"{found['slow_share_of_metrics']:.0%} of it metrics) {found['slow_seconds']:,.0f} s: {found['ratio']:.1f}x, "
        f"in CPU seconds {found['cpu_ratio']:.1f}x"
    )
    write_json(run.folder / "bench.json", found)
    run.facts["bench"] = found
    return float(found["ratio"])


def find_subject(cfg: DictConfig, folder: Path) -> tuple[Experiment | None, Any, Features | None, int]:
    """The checkpoint's experiment, given features, the data that all rows share, and how many tracks it lost."""
    for name in cfg.job.baselines:
        if name not in BASELINES:
            raise UserError(f"job.baselines: no baseline '{name}'{suggest(name, BASELINES)}")
    subject, given = None, None
    lost: Lost = {}
    if cfg.ckpt:
        subject, _ = restore(cfg, list(HydraConfig.get().overrides.task))
        data = subject.data
    elif cfg.job.features:
        data = build_data(cfg, connect(cfg.frontend))
    else:
        raise UserError(
            "ckpt is missing: give a checkpoint, ckpt=outputs/RUN/checkpoints/best.ckpt, or job.features=FOLDER"
        )
    for split in SPLITS:
        if not data.split(split).height:
            raise UserError(f"no tracks in the split '{split}': probes need all three; see data.valid and data.test")
    if cfg.job.features:
        given, lost = read_given(Path(cfg.job.features), data, folder)
        data = data.holding(data.table.filter(~pl.col("id").is_in(list(lost)))) if lost else data
        subject = replace(subject, data=data) if subject else None
    return subject, data, given, len(lost)


def read_given(source: Path, data: Any, folder: Path) -> tuple[Features, Lost]:
    """The features of `source`, and the tracks that have none, which are listed in ``folder/skipped.csv``."""
    frames = {split: data.split(split) for split in SPLITS}
    features, lost, strays = read_folder(source, frames, data.on_error == "skip")
    listing = folder / "skipped.csv"
    listing.unlink(missing_ok=True)
    if strays:
        print(f"{source}: files that belong to no track, and are not looked at: {strays}")
    if lost:
        splits = {name: split for split, frame in frames.items() for name in frame["id"]}
        rows = [
            {"path": str(path), "id": name, "split": splits[name], "reason": reason}
            for name, (path, reason) in lost.items()
        ]
        write_csv(listing, rows)
        first = f"{rows[0]['path']}: {rows[0]['reason']}"
        print(f"left out {len(lost)} of {len(splits)} tracks, listed in {listing}; the first: {first}")
    return features, lost


def split_name(data: Any) -> str:
    """Which split of each corpus this is: its protocol or lists, or by what it was split."""
    kinds = [getattr(corpus, "protocol", None) or getattr(corpus, "lists", None) for corpus in data.corpora]
    names = [f"{corpus.name}/{kind or data.split_by}" for corpus, kind in zip(data.corpora, kinds, strict=True)]
    return " + ".join(names)


def knowledge(subject: Experiment | None, frames: Mapping[str, pl.DataFrame]) -> dict[str, Any] | None:
    """What the checkpoint has learned from, and how many tracks of each split are among that; null when unknown."""
    found = subject.task.payload.get("learned") if subject else None
    if not found:
        return None
    counts = {split: seen(frame, found) for split, frame in frames.items()}
    if counts["test"]:
        print(f"transductive: the checkpoint has learned from {counts['test']} of {frames['test'].height} test tracks")
    return {"stages": found["stages"], "seen": counts}


Subjects = list[tuple[Features, list[tuple[str, Features]]]]


def features_of(
    cfg: DictConfig,
    subject: Experiment | None,
    given: Features | None,
    data: Any,
    frames: Mapping[str, pl.DataFrame],
    preset: Mapping[str, Any],
    device: torch.device,
) -> tuple[Subjects, Subjects]:
    """All features to probe, each with those of deformed test tracks: what is asked for, and baselines."""
    own: Subjects = [(given, [])] if given else []
    found: Subjects = []
    if subject is not None:
        own += encoder_features(cfg.job, subject, frames, "model", preset, device)
        if "random" in cfg.job.baselines:
            found += encoder_features(cfg.job, untrained(subject), frames, "random", preset, device)
    rate = data.frontend.sample_rate
    for kind in ("mfcc", "chroma"):
        if kind in cfg.job.baselines:
            found.append((handcrafted(kind, frames, rate, Path(data.cache), preset["slices"]), []))
    return own, found


def untrained(subject: Experiment) -> Experiment:
    """The same architecture with the weights that it starts from."""
    torch.manual_seed(subject.cfg.seed)
    cfg = deepcopy(subject.cfg)
    task = build_task(cfg, subject.data.frontend, subject.task.spec)
    return Experiment(cfg, subject.data, task.eval())


def taps_of(subject: Experiment, chosen: Any) -> list[str]:
    """The taps to probe: those chosen, all that the backbone has, or the task's own embedding."""
    if chosen == "all":
        return list(subject.task.encoder.backbone.taps) or [EMBEDDING]
    if chosen is None:
        return [EMBEDDING]
    return [chosen] if isinstance(chosen, str) else list(chosen)


def encoder_features(
    job: DictConfig,
    subject: Experiment,
    frames: Mapping[str, pl.DataFrame],
    name: str,
    preset: Mapping[str, Any],
    device: torch.device,
) -> Subjects:
    """Features of an encoder's taps, one after the other or side by side."""
    if job.join not in JOINS:
        raise UserError(f"job.join={job.join}: known are {', '.join(JOINS)}")
    taps = taps_of(subject, preset["taps"])
    slices = preset["slices"]
    plan = plan_within(subject, job.window, job.hop, slices)
    plain = extract(subject, frames, taps, plan, job.tail, device, name, slices=slices)
    test = {"test": frames["test"]}
    changed = {
        kind: extract(subject, test, taps, plan, job.tail, device, name, deformation(kind), slices)
        for kind in preset["deformations"]
    }
    found = []
    if job.join in ("each", "all") or len(taps) == 1:
        found += [(plain[tap], [(kind, values[tap]) for kind, values in changed.items()]) for tap in taps]
    for kind, join in (("concat", concatenated), ("sum", summable)):
        if job.join in (kind, "all") and len(taps) > 1:
            title = f"{name} {kind} of {len(taps)} taps"
            sides = [(which, join(list(values.values()), title)) for which, values in changed.items()]
            found.append((join(list(plain.values()), title), sides))
    return found


def constant_row(goal: Goal, values: Mapping[str, Tensor], units: Units, keep: Tensor, settings: Settings) -> Row:
    """The predictor that knows the training labels and hears nothing."""

    def answer(split: str) -> tuple[Tensor, Tensor]:
        names, index = units[split].unique(return_inverse=True)
        first = torch.full((len(names),), len(index)).scatter_reduce(0, index, torch.arange(len(index)), "amin")
        return constant(goal, values["train"][..., keep], len(names)), values[split][..., first]

    valid = goal.metrics(*answer("valid"))[goal.monitor]
    return {
        "features": "constant",
        "baseline": True,
        "dimensions": 0,
        "valid": valid,
        **judged(goal, *answer("test"), settings),
    }


def write_results(folder: Path, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """probe.json, probe.csv, probe.md, configurations.csv, figures/probe.png; print the table."""
    write_json(folder / "probe.json", {**facts, "rows": list(rows)})
    metric = facts["goal"]["monitor"]
    table = [flat(row, metric) for row in rows]
    write_csv(folder / "probe.csv", table)
    with replacing(folder / "probe.md") as part:
        part.write_text(f"{caption(facts)}\n\n{markdown(brief(table, metric))}\n")
    listing = [
        {"features": row["features"], "fraction": row["fraction"], **one}
        for row in rows
        for one in row.get("configurations", [])
    ]
    write_csv(folder / "configurations.csv", listing)
    names = {name_of(row): row for row in rows}
    figures.save(score_bars(names, metric, facts["target"]), folder / "figures" / "probe.png")
    show_all(table, metric, caption(facts), folder / "probe.csv")
    for kind, remedy in absent(rows, facts["checkpoint"] is None).items():
        print(f"no row '{kind}': {remedy}")
