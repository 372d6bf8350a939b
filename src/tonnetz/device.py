"""The device for work outside a Lightning trainer."""

from __future__ import annotations

import torch


def choose_device(accelerator: str) -> torch.device:
    """cpu for ``cpu``; else the best that is there: CUDA, Apple's GPU, CPU."""
    if accelerator != "cpu":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device("cpu")
