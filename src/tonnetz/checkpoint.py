"""Checkpoints are data: tensors and plain values, loaded without running anything that they contain."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tonnetz.errors import UserError

STARTS = (b"PK\x03\x04", b"\x80")  # of what torch.save writes: a ZIP archive, and a bare pickle long ago


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of this framework on the CPU. Raises UserError when it is missing, foreign or unsafe."""
    checkpoint = load_plain(path)
    if not isinstance(checkpoint, dict) or "tonnetz" not in checkpoint:
        raise UserError(f"{path}: not a checkpoint of this framework (it does not describe itself)")
    if checkpoint["tonnetz"].get("format") != 1:
        raise UserError(f"{path}: checkpoint format {checkpoint['tonnetz'].get('format')} is not known to this version")
    return checkpoint


def load_plain(path: str | Path, known: Sequence[type] = (), trust: bool = False, remedy: str = "") -> Any:
    """Load a file of torch on the CPU, tensors and plain values (and objects of the classes ``known``) alone.

    ``trust`` loads any object, which may run code; ``remedy`` ends the line of a refusal. Raises UserError for a file
    that is missing, damaged, not of torch, or that holds other objects.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    with path.open("rb") as file:
        if not file.read(4).startswith(STARTS):
            raise UserError(f"{path}: is not a file that torch wrote; give a checkpoint")
    try:
        with torch.serialization.safe_globals(list(known)):
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError:
        line = f"{path}: holds objects other than tensors and plain values; refused, nothing was run"
        raise UserError("; ".join([line, remedy]) if remedy else line) from None
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError, TypeError, ImportError):
        raise UserError(f"{path}: cannot be read as a checkpoint; is it complete, and was it made by torch?") from None
