"""job=probe: how much do frozen features know? All configurations of a protocol, beside simple baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tonnetz import figures
from tonnetz.atomic import replacing
from tonnetz.build import Experiment, build_data, build_task, connect, plain, restore
from tonnetz.device import choose_device
from tonnetz.embedding import model_fingerprint, plan_of
from tonnetz.errors import UserError, suggest
from tonnetz.jobs.prepare import summary
from tonnetz.learned import seen
from tonnetz.manifest import Run, write_csv, write_json
from tonnetz.paths import config_folder
from tonnetz.probing.deform import deformation
from tonnetz.probing.features import EMBEDDING, Features, concatenated, extract, handcrafted, read_folder, summable
from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, expand
from tonnetz.probing.lead import add_leads, best
from tonnetz.probing.search import Settings, Units, judged, search
from tonnetz.probing.targets import constant, fraction_of, targets
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.tracks import SPLITS

BASELINES = ("random", "mfcc", "chroma", "constant")
JOINS = ("each", "concat", "sum", "all")
Row = dict[str, Any]


def run(cfg: DictConfig, run: Run) -> float | None:
    """Write probe.json, .csv and .md, configurations, a figure; returns the checkpoint's best validation score."""
    quiet()
    preset = read_preset(cfg.job)
    probes, protocol = expand(preset["axes"]), Protocol(name=cfg.job.preset, **preset["protocol"])
    device = choose_device(cfg.trainer.accelerator)
    device = torch.device("cpu") if device.type == "mps" else device  # which has no double precision
    if cfg.job.dry:
        list_probes(probes, jukemir_names(cfg.job))
        return None
    if cfg.job.bench is not None:
        return measure(cfg, run, probes, protocol, device)
    subject, data, given, lost = find_subject(cfg, run.folder)
    frames = {split: data.split(split) for split in SPLITS}
    target = cfg.job.target if isinstance(cfg.job.target, str) else list(cfg.job.target)
    goal, values = targets(frames, target, cfg.job.kind, cfg.job.metric, cfg.job.bins, cfg.job.unseen)
    rules = tuple(preset["aggregate"])
    goal.check(rules)
    settings = Settings(preset["train"], rules, cfg.job.seeds, cfg.seed, cfg.job.draws, str(device))
    units = find_units(frames, cfg.job.unit)
    known = knowledge(subject, frames)
    rows: list[Row] = []
    own, beside = features_of(cfg, subject or given, data, frames, preset, device)
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
    facts |= {"checkpoint": str(cfg.ckpt) if subject else None, "data": summary(data), "tail": cfg.job.tail}
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


def subjects(rows: Sequence[Row]) -> list[Row]:
    """The rows that are no baselines."""
    return [row for row in rows if not row["baseline"]]


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
    for key in ("train", "aggregate", "deformations", "taps"):
        if given[key] is not None:
            preset[key] = given[key]
    for key in ("aggregate", "deformations"):
        preset[key] = [preset[key]] if isinstance(preset[key], str) else preset[key]
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
    """The checkpoint's experiment or the given features, the data that all rows share, and how many tracks it lost."""
    for name in cfg.job.baselines:
        if name not in BASELINES:
            raise UserError(f"job.baselines: no baseline '{name}'{suggest(name, BASELINES)}")
    subject, given = None, None
    lost: dict[str, str] = {}
    if cfg.ckpt and not cfg.job.features:
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
    if subject is None:
        given, lost = read_given(Path(cfg.job.features), data, folder)
        data = data.holding(data.table.filter(~pl.col("id").is_in(list(lost)))) if lost else data
    return subject, data, given, len(lost)


def read_given(source: Path, data: Any, folder: Path) -> tuple[Features, dict[str, str]]:
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
            {"path": str(source / f"{name}.npy"), "id": name, "split": splits[name], "reason": reason}
            for name, reason in lost.items()
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


def find_units(frames: Mapping[str, pl.DataFrame], column: str | None) -> Units:
    """Numbers of what is judged together: each track, or equal values of a column."""
    if column is None:
        return {split: torch.arange(frame.height) for split, frame in frames.items()}
    for frame in frames.values():
        if column not in frame.columns:
            raise UserError(f"job.unit={column}: the track table has no such column{suggest(column, frame.columns)}")
        if frame[column].null_count():
            raise UserError(f"job.unit={column}: is empty for some tracks; choose another column")
    return {
        split: torch.from_numpy(frame[column].rank("dense").cast(pl.Int64).to_numpy(writable=True))
        for split, frame in frames.items()
    }


Subjects = list[tuple[Features, list[tuple[str, Features]]]]


def features_of(
    cfg: DictConfig,
    subject: Experiment | Features | None,
    data: Any,
    frames: Mapping[str, pl.DataFrame],
    preset: Mapping[str, Any],
    device: torch.device,
) -> tuple[Subjects, Subjects]:
    """All features to probe, each with those of deformed test tracks: what is asked for, and baselines."""
    own: Subjects = []
    found: Subjects = []
    if isinstance(subject, Features):
        own.append((subject, []))
    elif subject is not None:
        own += encoder_features(cfg.job, subject, frames, "model", preset, device)
        if "random" in cfg.job.baselines:
            found += encoder_features(cfg.job, untrained(subject), frames, "random", preset, device)
    for kind in ("mfcc", "chroma"):
        if kind in cfg.job.baselines:
            found.append((handcrafted(kind, frames, data.frontend.sample_rate, Path(data.cache)), []))
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
    plan = plan_of(subject, job.window, job.hop)
    plain = extract(subject, frames, taps, plan, job.tail, device, name)
    test = {"test": frames["test"]}
    changed = {
        kind: extract(subject, test, taps, plan, job.tail, device, name, deformation(kind))
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


def show_all(table: Sequence[Mapping[str, Any]], metric: str, title: str, listing: Path) -> None:
    """Print what compares the rows, and below it how the models fare on deformed sound; all of it is in `listing`."""
    show(brief(table, metric, deformed=False), title, listing)
    start = f"{metric} "
    found = {
        row["features"]: {"as it is": row[metric]} | {k.removeprefix(start): row[k] for k in row if k.startswith(start)}
        for row in table
    }
    found = {name: values for name, values in found.items() if len(values) > 1}
    for kinds in list(found.values())[:1]:
        lines = [{"test sound": kind, **{name: found[name][kind] for name in found}} for kind in kinds]
        show(lines, f"{metric} of deformed sound", listing)


def caption(facts: Mapping[str, Any]) -> str:
    """One line that says what the numbers are."""
    split = facts["split"]
    sizes = "/".join(f"{split[name]:,}" for name in SPLITS)
    warning = ", TRANSDUCTIVE: the model has learned from test tracks" if facts.get("transductive") else ""
    return (
        f"{facts['preset']}: {facts['target']} ({facts['goal']['kind']}), {split.get('name', '')} {sizes} tracks, "
        f"split seed {split['seed']}, seed {facts['seed']}, data {facts['data']['fingerprint']}{warning}"
    )


def name_of(row: Row) -> str:
    """Name of a row in tables and figures."""
    return row["features"] if row["fraction"] == 1 else f"{row['features']} ({row['fraction']:.0%})"


def flat(row: Row, metric: str) -> dict[str, Any]:
    """A row of the table: text and numbers only."""
    winner, seeds = row.get("winner"), row.get("seeds")
    low, high = row.get("interval", (None, None))
    cells: dict[str, Any] = {"features": name_of(row), "dimensions": row["dimensions"], "examples": row["examples"]}
    cells |= {"valid": row["valid"], **row["test"], "low": low, "high": high}
    lead = row.get("lead") or dict.fromkeys(("value", "low", "high"))
    cells |= {"lead": lead["value"], "lead_low": lead["low"], "lead_high": lead["high"]}
    cells |= {"seeds_mean": seeds["mean"] if seeds else None, "seeds_std": seeds["std"] if seeds else None}
    layers = "x".join(map(str, winner["hidden"])) or "linear" if winner else None
    cells["winner"] = f"{layers} lr {winner['lr']:g}" if winner else None
    cells |= {f"{metric} {name}": values[metric] for name, values in row.get("deformed", {}).items()}
    cells |= {"undefined": len(row["undefined"]), "failed": row.get("failed", 0)}
    cells["transductive"] = row.get("transductive", 0)  # test tracks that were learned from
    return cells


def brief(rows: Sequence[Mapping[str, Any]], metric: str, deformed: bool = True) -> list[dict[str, Any]]:
    """The columns of `flat` that a reader compares, what matters most first."""
    lines = []
    for row in rows:
        line = {"features": row["features"], metric: row[metric]}
        line["95 %"] = f"{row['low']:.3f}-{row['high']:.3f}" if row["low"] is not None else None
        lead = row["lead"]
        line["lead"] = None if lead is None else f"{lead:.3f} ({row['lead_low']:.3f} to {row['lead_high']:.3f})"
        line["seeds"] = f"{row['seeds_mean']:.3f}±{row['seeds_std']:.3f}" if row["seeds_mean"] is not None else None
        line |= {"valid": row["valid"], "dim": row["dimensions"]}
        names = list(row)
        others = names[names.index("valid") + 1 : names.index("low")]
        line |= {name: row[name] for name in others if name != metric}
        if deformed:
            line |= {name.removeprefix(f"{metric} "): row[name] for name in names if name.startswith(f"{metric} ")}
        lines.append(line | {key: row[key] for key in ("undefined", "failed", "transductive")})
    return lines


def cells_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns that say something, and their cells as text."""
    columns = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key) not in (None, 0) for row in rows)
    ]
    return columns, [[text(row.get(key)) for key in columns] for row in rows]


def text(value: Any) -> str:
    """A cell: four places for a measure."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown."""
    columns, cells = cells_of(rows)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(rows: Sequence[Mapping[str, Any]], title: str, listing: Path) -> None:
    """Print a table of so many columns as fit the terminal, none of them broken; `listing` has the others."""
    from rich.console import Console
    from rich.table import Table

    columns, cells = cells_of(rows)
    console = Console()
    shown = fitting(columns, cells, console.width)
    table = Table()
    for i, name in enumerate(columns[:shown]):
        table.add_column(name, no_wrap=i > 0, overflow="fold")
    for line in cells:
        table.add_row(*line[:shown])
    console.print(title, markup=False, highlight=False)
    console.print(table)
    if shown < len(columns):
        console.print(f"also in {listing}: {', '.join(columns[shown:])}", markup=False, highlight=False)


def fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> int:
    """How many columns, from the left, fit so many characters; the first may be folded to 24, and two always stay."""
    need = [max(len(line[i]) for line in [columns, *cells]) + 3 for i in range(len(columns))]  # with padding and rule
    need[0] = min(need[0], 24 + 3)
    fits = [n for n in range(1, len(columns) + 1) if sum(need[:n]) + 1 <= width]
    return max([2, *fits])


def score_bars(rows: Mapping[str, Row], metric: str, title: Any) -> Any:
    """Test scores by name with their intervals."""
    figure = figures.Figure(figsize=(7, 1.4 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    names = list(rows)[::-1]
    values = [rows[name]["test"][metric] for name in names]
    axis.barh(names, values, color=["tab:gray" if rows[name]["baseline"] else "tab:blue" for name in names])
    for place, name in enumerate(names):
        if rows[name].get("interval"):
            axis.plot(rows[name]["interval"], [place, place], "k-", lw=2)
    axis.set(xlabel=f"{metric} of test tracks", title=str(title))
    axis.grid(axis="x", alpha=0.3)
    return figure
