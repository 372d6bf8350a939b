"""Parameter groups for optimizers."""

from __future__ import annotations

from typing import Any

from torch import nn


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
