"""The slow way: one probe at a time, as an `nn.Module` with a `torch.optim` optimizer. The oracle of `stack`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, widths
from tonnetz.probing.stack import Examples, draws, initial, statistics

Metric = Callable[[Tensor, Tensor], float]  # scores (K, N), target


class Alone(nn.Module):
    """Dropout, then layers with ReLU and dropout between them; draws come from outside."""

    def __init__(
        self, probe: Probe, sizes: Sequence[int], seed: int, dropout_input: bool = True, taps: int = 1
    ) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(taps)) if taps > 1 else None
        self.p, self.dropout_input = probe.dropout, dropout_input
        start = initial(sizes, seed)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for layer, weight, bias in zip(self.layers, start[::2], start[1::2], strict=True):
            layer.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, x: Tensor, uniform: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs (B, K) of features (B, D); with draws it drops."""
        if self.mix is not None:
            x = torch.einsum("l,bld->bd", self.mix.softmax(0), x.unflatten(1, (len(self.mix), -1)))
        for n, layer in enumerate(self.layers):
            if n:
                x = x.relu()
            if uniform is not None and (n or self.dropout_input):
                x = x * (uniform[n] >= self.p) / (1 - self.p)
            x = layer(x)
        return x


def fit_alone(
    probe: Probe,
    goal: Goal,
    train: Examples,
    valid: Examples,
    protocol: Protocol,
    seed: int = 0,
    metric: Metric | None = None,
    validations: int | None = None,
    taps: int = 1,
) -> dict[str, Any]:
    """Train one probe; its score, best_step, steps and model. `metric` replaces the goal's own, e.g. by scikit-learn's.

    `validations` ends it early: for timing.
    """
    mean, std = statistics(train.x)
    sides = [(part.x - mean) / std if probe.standardize else part.x for part in (train, valid)]
    sizes = widths(probe, train.x.shape[1] // taps, len(goal.names))
    model = Alone(probe, sizes, seed, protocol.dropout_input, taps)
    kind = torch.optim.AdamW if protocol.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(model.parameters(), probe.lr, weight_decay=probe.weight_decay)
    plateau = None
    if protocol.plateau is not None:
        factor, wait = protocol.plateau
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor, wait, threshold=0.0)
    judge = metric or (lambda score, target: float(goal.value(score[None], target)[0]))
    best: dict[str, Any] = {"score": float("-inf"), "best_step": 0}
    reached = float("-inf")
    bored = seen = 0
    interval, limit = protocol.interval(len(train.x), probe.batch), protocol.limit(len(train.x), probe.batch)
    for step, (index, uniform) in enumerate(draws(seed, len(train.x), probe.batch, sizes[:-1], protocol)):
        if step % interval == 0 or step >= limit:
            with torch.no_grad():
                outputs = model(sides[1]).T
                score = judge(outputs, valid.target)
                merit = -float(goal.loss(outputs, valid.target)) if protocol.stop == "loss" else score
            seen += 1
            bored += 1
            if merit > reached:
                reached = merit
                best, bored = {"score": score, "best_step": step, "weights": deepcopy(model.state_dict())}, 0
            if bored >= protocol.patience or step >= limit or seen == validations:
                break
            if plateau:
                plateau.step(merit)
        optimizer.zero_grad()
        goal.loss(model(sides[0][index], uniform).T, train.target[..., index]).backward()
        optimizer.step()
    model.load_state_dict(best.pop("weights"))
    return {**best, "steps": step, "validations": seen, "model": model}
