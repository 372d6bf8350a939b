"""Layer-wise adaptive rates for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD with momentum whose rate adapts to each matrix and kernel (You et al. 2017, algorithm 1).

    w of two or more dimensions: trust = eta |w| / (|g| + weight_decay |w|), 1 where |w| or |g| is 0;
    v = momentum v + lr trust (g + weight_decay w); w = w - v. Biases, norm gains and other vectors are neither
    adapted nor decayed: v = momentum v + lr g. Parameters without a gradient stay.

    Args:
        params: parameters or groups of them.
        lr: the rate; 0.3 x batch / 256 in SimCLR.
        momentum: of the velocity v.
        weight_decay: of matrices and kernels.
        eta: trust coefficient.

    Raises ValueError for values outside their range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        eta: float = 1e-3,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0 or eta <= 0:
            raise ValueError(
                f"LARS: lr={lr} momentum={momentum} weight_decay={weight_decay} eta={eta}; need lr and weight_decay "
                "not negative, momentum from 0 to below 1, eta above 0"
            )
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state["velocity"] = torch.zeros_like(p)
                    move = adapted(p, p.grad, group["weight_decay"], group["eta"]) if p.ndim > 1 else p.grad
                    p.sub_(state["velocity"].mul_(group["momentum"]).add_(move, alpha=group["lr"]))
        return loss


def adapted(w: Tensor, g: Tensor, weight_decay: float, eta: float) -> Tensor:
    """trust x (g + weight_decay w), without a wait for the device."""
    size, slope = w.norm(), g.norm()
    trust = torch.where((size > 0) & (slope > 0), eta * size / (slope + weight_decay * size), 1.0)
    return trust * (g + weight_decay * w)
