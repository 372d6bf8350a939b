"""The manifest of a run: what was asked, with what code and data, and how it ended."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tonnetz import __version__
from tonnetz.atomic import replacing
from tonnetz.errors import Diverged
from tonnetz.paths import PACKAGE

PACKAGES = [
    "torch",
    "torchaudio",
    "lightning",
    "hydra-core",
    "torchmetrics",
    "nnAudio",
    "librosa",
    "timm",
    "numpy",
    "polars",
    "scikit-learn",
    "soundfile",
]


@dataclass
class Run:
    """A run's folder and the facts that its job adds to the manifest (metrics, data fingerprint, durations)."""

    folder: Path
    head: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    status: str = "completed"
    parent: Run | None = None  # that this one is a part of
    begin: float = field(default_factory=time.time)

    def write(self, status: str, reason: str | None = None) -> None:
        """Write the manifest as things stand."""
        end = {"status": status, "seconds": round(time.time() - self.begin, 3), **self.facts}
        write_manifest(self.folder, {**self.head, **end, **({"reason": reason} if reason else {})})
        if self.parent and status == "interrupted":
            self.parent.write(status)


@contextmanager
def record(cfg: DictConfig, folder: Path, parent: Run | None = None) -> Iterator[Run]:
    """Keep `folder/manifest.json` true: running, then completed, interrupted, diverged or failed with its reason."""
    run = Run(folder, _head(cfg, folder), parent=parent)
    run.write("running")
    try:
        yield run
    except (KeyboardInterrupt, SystemExit):
        run.write("interrupted")
        raise
    except BaseException as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        run.write("diverged" if isinstance(error, Diverged) else "failed", reason)
        raise
    run.write(run.status)


def _head(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    return {
        "name": folder.name,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "config": OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False),
        "git": git_state(),
        "versions": versions(),
        "host": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write `manifest.json` atomically; only the first process of a distributed run does."""
    if first_process():
        write_json(folder / "manifest.json", content)


def first_process() -> bool:
    """Whether this is the process of a distributed run that writes."""
    return not int(os.environ.get("LOCAL_RANK", 0)) and not int(os.environ.get("SLURM_PROCID", 0))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=_plain) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; a row may lack columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: Any) -> Any:
    """Tensors and NumPy scalars as numbers or lists, paths as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the clone that this code runs from; None outside a clone."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    found = {"tonnetz": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
