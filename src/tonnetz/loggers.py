"""Where the numbers of a run go besides ``metrics.csv``: trainer.logger=tensorboard | csv | wandb | none, or several.

Nothing leaves the machine unless the environment variable WANDB_MODE=online says so.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from tonnetz.errors import UserError, suggest

NAMES = ("tensorboard", "csv", "wandb", "none")


def logger_names(chosen: str | Iterable[str] | None) -> list[str]:
    """The loggers that `trainer.logger` names. Raises UserError for an unknown one and a package that is missing."""
    names = [chosen] if isinstance(chosen, str) else list(chosen or [])
    for name in names:
        if name not in NAMES:
            raise UserError(f"trainer.logger={name}: unknown{suggest(name, NAMES)}")
    if "wandb" in names:
        try:
            importlib.import_module("wandb")
        except ImportError:
            raise UserError(
                "trainer.logger=wandb: is not installed; pip install 'tonnetz[wandb]', or trainer.logger=tensorboard"
            ) from None
    return [name for name in dict.fromkeys(names) if name != "none"]


def make_loggers(names: Iterable[str], folder: Path) -> list[Logger]:
    """The loggers of the run in `folder`; a run that goes on has a further ``csv/version_N``, and run of W&B."""
    makers = {"tensorboard": _tensorboard, "csv": _csv, "wandb": _wandb}
    return [makers[name](folder) for name in names]


def _tensorboard(folder: Path) -> Logger:
    return TensorBoardLogger(folder, name="", version="")


def _csv(folder: Path) -> Logger:
    return CSVLogger(folder, name="csv")


def _wandb(folder: Path) -> Logger:
    mode, project = os.environ.get("WANDB_MODE", "offline"), os.environ.get("WANDB_PROJECT", "tonnetz")
    return WandbLogger(name=folder.name, project=project, save_dir=folder, mode=mode)


def board_of(loggers: Iterable[Logger]) -> Any:
    """TensorBoard's writer, for figures, sounds, texts and the projector, which others do not show; None without it."""
    return next((one.experiment for one in loggers if isinstance(one, TensorBoardLogger)), None)


def show(loggers: Iterable[Logger], name: str, figure: Any, picture: Path, step: int) -> None:
    """Give a figure, which lies in `picture` as PNG, to the loggers that have a place for it."""
    for one in loggers:
        if isinstance(one, TensorBoardLogger):
            one.experiment.add_figure(name, figure, step)
        elif isinstance(one, WandbLogger):
            one.log_image(name, [str(picture)], step)


def conclude(loggers: Iterable[Logger], chosen: Mapping[str, Any], final: Mapping[str, float], step: int) -> None:
    """Tell what was chosen and how it ended: in TensorBoard a row of hparams, elsewhere configuration and values."""
    for one in loggers:
        if isinstance(one, TensorBoardLogger):
            one.log_hyperparams(dict(chosen), dict(final))
        else:
            one.log_hyperparams(dict(chosen))
            one.log_metrics(dict(final), step)
        one.finalize("success")


@contextmanager
def closing(loggers: Iterable[Logger]) -> Iterator[None]:
    """End runs of W&B when the block ends, or the next run of this process would go on in them."""
    try:
        yield
    finally:
        for one in loggers:
            if isinstance(one, WandbLogger) and one.version is not None:
                one.experiment.finish()
