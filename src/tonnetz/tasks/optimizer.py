"""Parameter groups for optimizers."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn

from tonnetz.errors import UserError


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters in two optimizer groups: weight decay for matrices and kernels, none where ndim <= 1.

    Biases, norm gains and other vectors must not shrink. Frozen parameters are listed too: without a gradient
    they neither move nor decay, and the optimizer keeps its shape when they are unfrozen or a run resumes.
    """
    parameters = list(module.parameters())
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def prodigy(
    params: Any,
    lr: float = 1.0,
    weight_decay: float = 0.01,
    d_coef: float = 1.0,
    safeguard_warmup: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Prodigy (Mishchenko & Defazio 2023) with decoupled decay: it finds the rate by itself; leave lr at 1.

    Raises UserError when the extra `prodigy` is not installed.
    """
    try:
        from prodigyopt import Prodigy
    except ImportError:
        raise UserError("optimizer=prodigy: is not installed; pip install 'tonnetz[prodigy]'") from None
    with redirect_stdout(io.StringIO()):  # it prints that the decay is decoupled
        return Prodigy(
            params,
            lr=lr,
            betas=tuple(betas),
            weight_decay=weight_decay,
            decouple=True,
            d_coef=d_coef,
            safeguard_warmup=safeguard_warmup,
        )
