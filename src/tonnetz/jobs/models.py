"""job=models: every network that there is, with its size, what it reads and what it gives."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from tonnetz.build import build_backbone, connect, gives_octaves, reads_octaves
from tonnetz.errors import UserError
from tonnetz.manifest import Run, write_csv
from tonnetz.models.waveform import Waveform
from tonnetz.paths import config_folder
from tonnetz.quiet import quiet

Row = dict[str, Any]


def run(cfg: DictConfig, run: Run) -> None:
    """Print a table of config/model and write `models.csv`.

    Networks read `frontend`; those of waveforms samples, those of octaves a constant-Q transform where that is none.
    """
    quiet()
    folder = config_folder() / "model"
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    rows = [facts(name, cfg) for name in names]
    write_csv(run.folder / "models.csv", rows)
    show(rows)
    print(f"{len(rows)} models: {run.folder / 'models.csv'}")


def facts(name: str, cfg: DictConfig) -> Row:
    """Parameters, values of a frame, taps and frames a second of a model with the front-end that suits it."""
    own = cfg.copy()
    own.model = OmegaConf.load(config_folder() / "model" / f"{name}.yaml")
    row: Row = {"model": name, "reads": "features", "parameters": None, "width": None, "taps": None, "rate": None}
    kind, chosen = get_object(own.model._target_), connect(cfg.frontend)
    if issubclass(kind, Waveform):
        own.frontend = OmegaConf.load(config_folder() / "frontend" / "raw.yaml")
        own.frontend.sample_rate = chosen.sample_rate
        row["reads"] = "samples"
    elif reads_octaves(kind) and not gives_octaves(chosen):
        own.frontend = OmegaConf.load(config_folder() / "frontend" / "cqt_coverhunter.yaml")
        row["reads"] = "octaves"
    if "pretrained" in own.model:
        own.model.pretrained = False  # which a table does not need
    frontend = connect(own.frontend)
    try:
        with torch.device("meta"):
            backbone = build_backbone(own, frontend)
    except UserError as error:
        return row | {"reads": str(error)}
    rate = frontend.sample_rate / frontend.hop / backbone.stride
    count = sum(parameter.numel() for parameter in backbone.parameters())
    return row | {"parameters": count, "width": backbone.dim, "taps": len(backbone.taps), "rate": round(rate, 3)}


def show(rows: list[Row]) -> None:
    """The rows, printed."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("model", no_wrap=True), "reads")
    for name in ("parameters", "width", "taps", "frames/s"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [row["parameters"], row["width"], row["taps"], row["rate"]]
        table.add_row(row["model"], row["reads"], *("" if cell is None else f"{cell:,}" for cell in cells))
    Console().print(table)
