"""job=index: build an index of recordings, add to it, take out of it, average the works. Nothing is embedded twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.build import Experiment, restore
from tonnetz.calibration import typical_windows
from tonnetz.data.recordings import FILE_COLUMNS, find_recordings
from tonnetz.datasets.files import pick_column, read_csv
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files, embed_tracks, model_fingerprint, plan_of
from tonnetz.errors import UserError, suggest
from tonnetz.figures import save
from tonnetz.frontend import fingerprint
from tonnetz.index import Index
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run
from tonnetz.paths import file_mark
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.rejection import accepted, picture
from tonnetz.shortlist import Shortlist
from tonnetz.tracks import SPLITS

ACTIONS = ("build", "add", "remove", "centroids")
LEVELS = (None, "work")
UNCALIBRATED = "{index}: fewer than two works are known; nothing says what a distance means, so nothing is judged"


def run(cfg: DictConfig, run: Run) -> None:
    """Do ``job.action`` to the index in ``job.index``."""
    quiet()
    action, folder = cfg.job.action, index_folder(cfg)
    if action not in ACTIONS:
        raise UserError(f"job.action={action}{suggest(action, ACTIONS)}")
    if not 0 < cfg.job.p <= 1:
        raise UserError(f"job.p={cfg.job.p}: must be more than 0 and at most 1")
    if cfg.job.level not in LEVELS:
        raise UserError(f"job.level={cfg.job.level}: must be work or null")
    if action in ("build", "add"):
        grow(cfg, run, folder)
    elif action == "remove":
        names = as_list(cfg.job.names)
        if not names:
            raise UserError("job.names is empty: name the works, ids or files to take out, job.names=[NAME,...]")
        index = Index.open(folder)
        print(f"{index.remove(names)} recordings taken out, {len(index)} left: {folder}")
    else:
        index = Index.open(folder)
        write_centroids(index, run.folder)
        if reason := misled(index):
            print(f"note: {reason}; job=identify job.mode=centroids refuses them")
    run.facts["index"] = {"folder": str(folder), "action": action}


def index_folder(cfg: DictConfig) -> Path:
    """The folder of ``job.index``. Raises UserError when it is not given."""
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(cfg.job, "index") or not cfg.job.index:
        raise UserError("job.index is missing: name the folder of the index, job.index=FOLDER")
    return Path(cfg.job.index)


def as_list(value: Any) -> list[str]:
    """One name, several or none as a list."""
    return [] if value is None else [str(value)] if isinstance(value, str | int) else [str(item) for item in value]


def grow(cfg: DictConfig, run: Run, folder: Path) -> None:
    """Embed ``job.inputs``, or the corpus of `data`, into a new or an existing index."""
    exists = (folder / "meta.json").is_file()
    if cfg.job.action == "build" and exists:
        raise UserError(f"{folder}: holds an index already; add to it with job.action=add, or choose another folder")
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    index = Index.open(folder) if exists else Index(folder, facts_of(experiment, cfg.job))
    check(index, experiment)
    device = choose_device(cfg.trainer.accelerator)
    errors: dict[str, str] = {}
    table, embed = source(cfg, experiment, index, device, errors)
    with progress_bar("embedding") as advance:
        counts = index.add(table, embed, advance)
    if Shortlist.wanted(None, len(index.windows.row)):
        index.shortlist()  # else the first query waits for it
    print(", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing to do")
    works = f"{len(index)} recordings of {len(index.works)} works, {len(index.row):,} vectors"
    print(f"{works}: {folder}")
    if not index.works:
        print("no recording has a work: name them in a spreadsheet (job.works=FILE.csv), or index a corpus (data=...)")
    draw(index, cfg.job.p, run.folder)
    run.facts["recordings"] = {**counts, "in the index": len(index)}
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(index), each=True)


def draw(index: Index, p: float, folder: Path) -> None:
    """Print and draw how well the index tells versions of its works from strangers; the threshold of `p` is marked."""
    found = index.calibration(typical_windows(index))
    if found is None or not len(found.kin):
        return
    limit = found.threshold(p)
    drawn = picture(found.kin, found.nearest, limit, f"p = {p}", str(index.folder))
    if drawn is None:
        return
    save(drawn, folder / "figures" / "open_set.png")
    share = float(accepted(found.kin, np.array(limit)))
    print(f"a match is nearer than {limit:.3f} (p = {p}), as {share:.0%} of the versions here are: ", end="")
    print(folder / "figures" / "open_set.png")


def facts_of(experiment: Experiment, job: Any) -> dict[str, Any]:
    """What the vectors of a new index have in common."""
    task: Any = experiment.task
    plan = plan_of(experiment, pad=job.pad, tempi=experiment.data.plan.tempi)
    matching = getattr(task, "matching", None)
    return {
        "encoder": model_fingerprint(task),
        "frontend": fingerprint(experiment.data.frontend),
        "window": float(plan.span),
        "hop": float(plan.hop or plan.span),
        "pad": plan.pad,
        "tempi": [float(tempo) for tempo in plan.tempi],
        "normalize": bool(experiment.data.normalize),
        "segment": getattr(task, "segment", None),
        "segment_hop": getattr(task, "segment_hop", None),
        "distance": getattr(matching, "distance", "cosine"),
        "reduction": job.reduction or getattr(matching, "reduction", "min"),
        "transpositions": getattr(matching, "turns", 1),
    }


def check(index: Index, experiment: Experiment) -> None:
    """Raise UserError when the checkpoint does not make the vectors that the index holds."""
    index.check(model_fingerprint(experiment.task), fingerprint(experiment.data.frontend))
    for key in ("segment", "segment_hop"):
        if index.facts[key] != getattr(experiment.task, key, None):
            raise UserError(f"{index.folder}: was made with task.{key}={index.facts[key]}; leave task.{key} as it was")
    if index.facts["normalize"] != bool(experiment.data.normalize):
        was = str(index.facts["normalize"]).lower()
        raise UserError(f"{index.folder}: was made with data.normalize={was}; take data.normalize={was}")


def misled(index: Index, reduction: str | None = None) -> str | None:
    """Why mean vectors do not stand for the recordings of the index; None when they do."""
    turns, reduction = index.facts.get("transpositions", 1), reduction or index.facts["reduction"]
    if turns > 1:
        return f"the vectors turn with the key (task.transpositions={turns}), their means lose it"
    if "qmax" in reduction:
        return f"the reduction {reduction} follows the order of the windows, means have none"
    return None


def plan_for(index: Index, experiment: Experiment, pad: str | None = None) -> Any:
    """The windows that the index was made of, at all the tempi at which a query is read."""
    return plan_of(experiment, index.facts["window"], index.facts["hop"], pad or index.facts["pad"], index.tempi)


Embed = Callable[[pl.DataFrame], Mapping[str, Tensor]]


def source(
    cfg: DictConfig, experiment: Experiment, index: Index, device: torch.device, errors: dict[str, str]
) -> tuple[pl.DataFrame, Embed]:
    """Recordings to embed (id, path, work, duration, mark), and what embeds rows of them."""
    plan = plan_for(index, experiment)
    inputs = as_list(cfg.job.inputs)
    if inputs or cfg.job.works:
        table = file_table(find_recordings(inputs or [cfg.job.works]), cfg.job.works, inputs, cfg.job.level)
        return table, lambda rows: embed_files(experiment, rows["path"].to_list(), plan, device, errors)
    if cfg.job.level:
        raise UserError(f"job.level={cfg.job.level}: needs a folder in job.inputs; a corpus knows its works")
    chosen = as_list(cfg.job.splits)
    frame = experiment.data.table.filter(pl.col("split").is_in(chosen))
    if not frame.height:
        raise UserError(f"job.splits={chosen}: no recordings there; known are {', '.join(SPLITS)}")
    sound = pl.concat_str("audio", "first", "samples", "peak", "stamp", separator="|", ignore_nulls=True)
    mark = sound.hash().cast(pl.String)
    table = index.distinct(frame.select("id", "path", "work", "duration", mark.alias("mark"), "corpus"))
    frame = frame.with_columns(id=table["id"])

    def embed(rows: pl.DataFrame) -> Mapping[str, Tensor]:
        return embed_tracks(experiment, rows.select("id").join(frame, on="id", maintain_order="left"), plan, device)

    return table, embed


def file_table(paths: list[str], works: str | None, inputs: list[str], level: str | None = None) -> pl.DataFrame:
    """Audio files with their works: of the spreadsheet `works`, or of the CSV files among the inputs.

    With `level` work, the sub-folders of the inputs name the works of the files that no spreadsheet names.
    """
    sheets = [works] if works else [item for item in inputs if item.lower().endswith(".csv")]
    known: dict[str, str] = {}
    for sheet in sheets:
        known |= read_works(Path(sheet), required=bool(works))
    folders = folder_works(paths, inputs) if level else {}
    full = [str(Path(path).absolute()) for path in paths]
    names = [Path(path).name for path in paths]
    if works and known and not (known.keys() & {*full, *names}):
        raise UserError(f"{works}: names none of the {len(paths)} recordings; are its file names right?")
    return pl.DataFrame(
        {
            "id": full,
            "path": full,
            "work": [
                known.get(path, known.get(name, folders.get(given)))
                for path, name, given in zip(full, names, paths, strict=True)
            ],
            "mark": [file_mark(path) for path in paths],  # what is missing fails later
        },
        schema_overrides={"work": pl.String},
    ).with_columns(duration=pl.lit(None, pl.Float64))


def folder_works(paths: list[str], inputs: list[str]) -> dict[str, str]:
    """Works by path: the name of the sub-folder of an input, as in FOLDER/WORK/**/FILE. Files beside them have none.

    Raises UserError when no input has such a sub-folder.
    """
    found: dict[str, str] = {}
    for root in (Path(item) for item in inputs if Path(item).is_dir()):
        inside = [Path(path).relative_to(root).parts for path in paths if Path(path).is_relative_to(root)]
        found |= {str(root.joinpath(*parts)): parts[0].strip() for parts in inside if len(parts) > 1}
    if not found:
        raise UserError("job.level=work: job.inputs has no folder with sub-folders; give FOLDER of FOLDER/WORK/FILE")
    return found


def read_works(path: Path, required: bool) -> dict[str, str]:
    """Works by file (absolute, and by name where it is the only one) of a spreadsheet with columns file and work."""
    columns, rows = read_csv(path)
    file, work = pick_column(columns, FILE_COLUMNS), pick_column(columns, ("work",))
    if file is None or work is None:
        if required:
            raise UserError(f"{path}: needs the columns file (or path, filename) and work, has {', '.join(columns)}")
        return {}
    cells = [(row[file], row[work]) for _, row in rows if row[file] and row[work]]
    times = Counter(Path(name).name for name, _ in cells)
    by_name = {Path(name).name: work for name, work in cells if times[Path(name).name] == 1}
    return by_name | {str((path.parent / name).absolute()): work for name, work in cells}


def write_centroids(index: Index, folder: Path) -> None:
    """Write centroids.safetensors and works.csv: recordings, coherence and radius of every work.

    The first also holds what the distances to them mean (pairs, nearest, kin, see `Calibration`), the names of the
    works and the facts of the index: all that another program needs.
    """
    found = index.centroids()
    if not found.works:
        raise UserError(f"{index.folder}: no recording has a work; add a spreadsheet with job.works=FILE.csv")
    arrays = {"vectors": found.vectors.contiguous(), "coherence": found.coherence, "radius": found.radius}
    if scale := index.calibration(1, "centroids"):
        arrays |= {name: torch.from_numpy(getattr(scale, name).copy()) for name in ("pairs", "nearest", "kin")}
    about = {"works": json.dumps(found.works), "facts": json.dumps(index.facts)}
    with replacing(folder / "centroids.safetensors") as part:
        save_file(arrays, part, metadata=about)
    columns = {"coherence": found.coherence.numpy().round(4), "radius": found.radius.numpy().round(4)}
    with replacing(folder / "works.csv") as part:
        pl.DataFrame({"work": found.works, "recordings": found.recordings, **columns}).write_csv(part)
    print(f"{len(found.works)} works: {folder / 'works.csv'}, {folder / 'centroids.safetensors'}")
