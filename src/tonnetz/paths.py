"""Where the repository and its configuration are, inside a clone and after an installation."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def repository() -> Path | None:
    """The root of the clone that this package runs from, or None when it is installed elsewhere."""
    root = PACKAGE.parents[1]
    return root if (root / "config" / "main.yaml").exists() else None


def config_folder() -> Path:
    """The Hydra configuration: of the clone, or as shipped in the wheel."""
    root = repository()
    return root / "config" if root else PACKAGE / "config"


def file_mark(path: str | Path) -> str:
    """What changes when a file does: its size and time; empty where there is none."""
    path = Path(path)
    stat = path.stat() if path.is_file() else None
    return f"{stat.st_size}-{stat.st_mtime_ns}" if stat else ""
