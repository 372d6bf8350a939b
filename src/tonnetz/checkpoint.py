"""Checkpoints are data: tensors and plain values, loaded without running anything that they contain."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from tonnetz.errors import UserError


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of this framework on the CPU. Raises UserError when it is missing, foreign or unsafe."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds objects other than tensors and plain values; refused, nothing was run"
        ) from None
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError):
        raise UserError(f"{path}: cannot be read as a checkpoint; is it complete, and was it made by torch?") from None
    if not isinstance(checkpoint, dict) or "tonnetz" not in checkpoint:
        raise UserError(f"{path}: not a checkpoint of this framework (it does not describe itself)")
    if checkpoint["tonnetz"].get("format") != 1:
        raise UserError(f"{path}: checkpoint format {checkpoint['tonnetz'].get('format')} is not known to this version")
    return checkpoint
