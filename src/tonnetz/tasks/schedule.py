"""Learning-rate schedules over all `steps` optimizer steps of a run; the optimizer's own rate is the peak.

Shapes are functions of the step, not saved state: a resumed run goes on where it was, also with more steps.
Spans (`warmup`, `every`) are a fraction of `steps` as a float, or a number of steps as an int.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from tonnetz.errors import UserError


def cosine(optimizer: Optimizer, steps: int, warmup: float = 0.1, floor: float = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine down to `floor` times the rate (Loshchilov & Hutter 2017)."""
    rise = _span("warmup", warmup, steps)
    return _schedule(optimizer, lambda t: _rise(t, rise) if t < rise else _fall(t, rise, steps, 1.0, floor))


def one_cycle(
    optimizer: Optimizer, steps: int, warmup: float = 0.3, start: float = 0.04, floor: float = 4e-6
) -> LambdaLR:
    """Cosine from `start` times the rate up to the rate, then down to `floor` times it (Smith 2018)."""
    rise = _span("warmup", warmup, steps)
    return _schedule(
        optimizer, lambda t: _fall(t, 0, rise, start, 1.0) if t < rise else _fall(t, rise, steps, 1.0, floor)
    )


def plateau(
    optimizer: Optimizer,
    steps: int,
    factor: float = 0.5,
    patience: int = 5,
    mode: Literal["min", "max"] = "max",
    floor: float = 0.0,
) -> ReduceLROnPlateau:
    """Multiply the rate by `factor` when a metric has not improved by 1e-4 for more than `patience` epochs.

    Step it once an epoch with the metric; `mode` says which direction is better. The rate stays at or above
    `floor` times its first value.
    """
    _check_steps(steps)
    if not 0 < factor < 1:
        raise UserError(f"factor: {factor} does not shrink the rate; give a number between 0 and 1")
    if mode not in ("min", "max"):
        raise UserError(f"mode: '{mode}' is no direction; give min or max")
    smallest = [floor * group["lr"] for group in optimizer.param_groups]
    # torch's relative threshold takes an unchanged negative metric for a better one
    return ReduceLROnPlateau(optimizer, mode, factor, patience, threshold_mode="abs", min_lr=smallest)


def step(optimizer: Optimizer, steps: int, every: float = 0.3, gamma: float = 0.1) -> LambdaLR:
    """Multiply the rate by `gamma` after each span of `every`."""
    span = max(1, _span("every", every, steps))
    return _schedule(optimizer, lambda t: gamma ** (t // span))


def decay(
    optimizer: Optimizer,
    steps: int,
    every: int = 1000,
    gamma: float = 0.9,
    floor: float = 1e-4,
    hold: int = 0,
    warmup: int = 0,
) -> LambdaLR:
    """CoverHunter's schedule: multiply the rate by `gamma` at every multiple of `every` steps beyond `hold`.

    The rate itself (not a multiple of it) never falls below `floor`. `hold` and `warmup` (linear) count steps.
    """
    _check_steps(steps)
    if every < 1 or hold < 0 or warmup < 0 or not 0 < gamma <= 1 or floor < 0:
        raise UserError(
            f"schedule: every={every} gamma={gamma} floor={floor} hold={hold} warmup={warmup}; need every >= 1, "
            "0 < gamma <= 1, and the others not negative"
        )
    peak = optimizer.param_groups[0]["lr"]
    lowest = min(floor / peak, 1.0) if peak else 1.0

    def factor(t: int) -> float:
        times = max(0, t // every - hold // every)
        return max(gamma**times, lowest) * (_rise(t, warmup) if t < warmup else 1.0)

    made = _schedule(optimizer, factor)
    made.hold = hold  # type: ignore[attr-defined]  # patience waits for it
    return made


def constant(optimizer: Optimizer, steps: int, warmup: float = 0.0) -> LambdaLR:
    """Linear warm-up, then the optimizer's own rate."""
    rise = _span("warmup", warmup, steps)
    return _schedule(optimizer, lambda t: _rise(t, rise))


def _schedule(optimizer: Optimizer, factor: Callable[[int], float]) -> LambdaLR:
    return LambdaLR(optimizer, factor)  # a plain function is not part of its state_dict


def _rise(t: int, steps: int) -> float:
    """Linear from 1 / (steps + 1) at step 0, which is above 0, to 1 at step `steps`."""
    return min(1.0, (t + 1) / (steps + 1))


def _fall(t: int, begin: int, end: int, high: float, low: float) -> float:
    """Half a cosine from `high` at step `begin` to `low` at step `end` and after it."""
    progress = min(1.0, (t - begin) / max(1, end - begin))
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress))


def _span(name: str, span: float, steps: int) -> int:
    """Steps in a span given as a fraction (float) or a count (int), at most `steps`."""
    _check_steps(steps)
    if isinstance(span, int):
        if span < 0:
            raise UserError(f"{name}: {span} steps are below 0; give a count of steps, or a fraction such as 0.1")
        return min(span, steps)
    if not 0 <= span <= 1:
        raise UserError(f"{name}: {span} is no fraction of the run; give 0.0 to 1.0, or a whole number of steps")
    return round(span * steps)


def _check_steps(steps: int) -> None:
    if steps <= 0 or steps == math.inf:
        raise UserError(
            f"schedule: a run of {steps} steps has no schedule; limit it (trainer.max_epochs) or give it data"
        )
