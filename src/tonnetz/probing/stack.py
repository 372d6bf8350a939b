"""All probes of a group trained at once: one stacked model, batched matrix products, no loop over configurations.

Probes of a group see the same batches, the same initial weights and the same uniform draws for dropout, as they would
if each were trained alone from one seed: `probing/serial.py` does just that and gets the same. So probes that share
dropout and standardisation share their input, and their first layers are one matrix product.

With several taps the input (B, L D) is their sum, weighted by a softmax that each probe learns, starting from the mean.

Layout: examples last. Weights (C, O, I), hidden values (C, H, B), outputs (C, K, B).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, widths

CELLS = 2**24  # hidden values of an evaluation held at once


@dataclass(frozen=True)
class Examples:
    """Features and targets of a split.

    Args:
        x: features (M, D), float32.
        target: of the M training examples, or of the N tracks that evaluation joins them to; examples last.
        unit: the track (M,) of each window; null: one window a track, in order.
    """

    x: Tensor
    target: Tensor
    unit: Tensor | None = None

    def to(self, device: torch.device) -> Examples:
        """The same on a device."""
        unit = None if self.unit is None else self.unit.to(device)
        return Examples(self.x.to(device), self.target.to(device), unit)


@dataclass
class Fitted:
    """What training found, for each probe in the order given.

    Args:
        probes: the configurations.
        score: validation score (C,) at the best validation, -inf where none was finite.
        rule: number (C,) of the rule by which windows are best joined.
        best_step: step (C,) of that validation.
        steps: steps (C,) trained.
        failed: step at which a probe's outputs were no longer finite, by its number.
        weights: best weights and biases by layer, (C, O, I) and (C, O); then those of taps (C, L) if there are several.
        mean, std: (D,) of the training examples.
    """

    probes: list[Probe]
    score: Tensor
    rule: Tensor
    best_step: Tensor
    steps: Tensor
    failed: dict[int, int]
    weights: list[Tensor]
    mean: Tensor
    std: Tensor
    validations: int = 0

    def outputs(self, i: int, x: Tensor) -> Tensor:
        """Outputs (K, M) of probe i for features (M, D)."""
        x = (x - self.mean) / self.std if self.probes[i].standardize else x
        depth = 2 * len(self.probes[i].hidden) + 2
        if len(self.weights) > depth:
            x = mixed(x, self.weights[depth][i : i + 1])[0]
        h = x.T
        layers = list(zip(self.weights[:depth:2], self.weights[1:depth:2], strict=True))
        for n, (weight, bias) in enumerate(layers):
            h = weight[i] @ h + bias[i][:, None]
            h = h.relu() if n + 1 < len(layers) else h
        return h


def by_tap(x: Tensor, taps: int) -> Tensor:
    """Features (B, L D) of taps side by side as (L, B D)."""
    return x.unflatten(1, (taps, -1)).transpose(0, 1).flatten(1)


def mixed(x: Tensor, mix: Tensor) -> Tensor:
    """Sums (C, B, D) of taps, features (B, L D), with the softmax of weights (C, L)."""
    return (mix.softmax(-1) @ by_tap(x, mix.shape[1])).unflatten(1, (len(x), -1))


def initial(sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Weights and biases of linear layers as torch starts them, from a seed: (O, I), (O,), (O', O), ..."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return [value.detach() for layer in layers for value in (layer.weight, layer.bias)]


def draws(
    seed: int, items: int, batch: int, widths: Sequence[int], protocol: Protocol
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Endless steps: which examples (B,), and uniform numbers (B, width) for the dropout of each layer."""
    random = torch.Generator().manual_seed(seed)
    batch = min(batch, items)
    while True:
        order = torch.randperm(items, generator=random)
        parts = order.split(batch) if protocol.sampling == "epochs" else [order[:batch]]
        for index in parts:
            yield index, [torch.rand(len(index), width, generator=random) for width in widths]


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of features (M, D); 1 for a constant feature."""
    wide = x.double()
    std = wide.std(0, correction=0)
    return wide.mean(0).float(), torch.where(std > 1e-12, std, 1.0).float()


class Stack:
    """The living probes of a group, with their optimizer's state, sorted so that equal inputs stand together."""

    def __init__(
        self, probes: Sequence[Probe], sizes: Sequence[int], seed: int, protocol: Protocol, taps: int = 1
    ) -> None:
        self.protocol, self.taps, self.depth = protocol, taps, 2 * len(sizes) - 2
        order = sorted(range(len(probes)), key=lambda i: (probes[i].standardize, probes[i].dropout))
        self.number = torch.tensor(order)  # (C,) of each probe in the caller's order
        self.probes = [probes[i] for i in order]
        start = initial(sizes, seed) + ([torch.zeros(taps)] if taps > 1 else [])
        self.weights = [value.expand(len(order), *value.shape).clone() for value in start]
        self.moments = [[torch.zeros_like(value) for value in self.weights] for _ in range(2)]
        self.rates = torch.tensor([probe.lr for probe in self.probes], dtype=torch.float64)
        self.time = 0
        self._arrange()

    def to(self, device: torch.device) -> Stack:
        """Move everything to a device."""
        self.weights = [value.to(device) for value in self.weights]
        self.moments = [[value.to(device) for value in kind] for kind in self.moments]
        self._arrange()
        return self

    def _arrange(self) -> None:
        """Find what shares an input, and what shares a rate and decay; give gradients their place."""
        self.grads = [torch.empty_like(value) for value in self.weights]
        self.parts = _runs([(probe.standardize, probe.dropout) for probe in self.probes])
        self.sides = _runs([probe.standardize for probe in self.probes])
        dropout = torch.tensor([probe.dropout for probe in self.probes])
        self.scale = (1 / (1 - dropout)).to(self.weights[0].device)[:, None, None]  # (C, 1, 1)
        self.arrange_rates()

    def arrange_rates(self) -> None:
        """List the slices of weights that one call of Adam updates: those of one rate and decay."""
        members: dict[tuple[float, float], list[int]] = {}
        for i, probe in enumerate(self.probes):
            members.setdefault((float(self.rates[i]), probe.weight_decay), []).append(i)
        self.updates = []
        for key, numbers in members.items():
            kinds = (self.weights, self.grads, *self.moments)
            lists = [[value[i] for value in kind for i in numbers] for kind in kinds]
            clock = [torch.tensor(float(self.time), device=value.device) for value in lists[0]]
            self.updates.append((*key, lists, clock))

    def keep(self, alive: Tensor) -> None:
        """Go on with some probes (C,) only."""
        index = alive.nonzero()[:, 0]
        there = index.to(self.weights[0].device)
        self.number, self.rates = self.number[index], self.rates[index]
        self.probes = [self.probes[i] for i in index.tolist()]
        self.weights = [value[there] for value in self.weights]
        self.moments = [[value[there] for value in kind] for kind in self.moments]
        self._arrange()

    def outputs(self, sides: Sequence[Tensor]) -> Tensor:
        """Outputs (C, K, M) without dropout, for features (M, D) raw and standardised."""
        wide = max(value.shape[1] for value in self.weights[: self.depth : 2])
        wide = max(wide, sides[0].shape[1] // self.taps) if self.taps > 1 else wide
        size = max(1, CELLS // (len(self.probes) * wide))
        blocks = zip(*(side.split(size) for side in sides), strict=True)
        return torch.cat([self._evaluate(block) for block in blocks], -1)

    def _evaluate(self, sides: Sequence[Tensor]) -> Tensor:
        inputs = [(part, self._taken(sides[side], part)) for part, side in self.sides]
        h = self._first(inputs)
        for weight, bias in self._upper():
            h = torch.baddbmm(bias[..., None], weight, h.relu_())
        return h

    def _upper(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of the layers above the first."""
        return list(zip(self.weights[2 : self.depth : 2], self.weights[3 : self.depth : 2], strict=True))

    def _taken(self, x: Tensor, part: slice) -> Tensor:
        """What a part of the probes takes of features (B, L D): all (B, D), or each its own sum of taps (k, B, D)."""
        return x if self.taps == 1 else mixed(x, self.weights[-1][part])

    def _first(self, inputs: Sequence[tuple[slice, Tensor]]) -> Tensor:
        """Outputs (C, O, B) of the first layer; one matrix product for the probes that share an input (B, D)."""
        weight, bias = self.weights[:2]
        out = weight.new_empty(len(weight), weight.shape[1], inputs[0][1].shape[-2])
        for part, x in inputs:
            if self.taps > 1:
                torch.bmm(weight[part], x.mT, out=out[part])
            else:
                torch.mm(weight[part].flatten(0, 1), x.T, out=out[part].flatten(0, 1))
        return out.add_(bias[..., None])

    def step(self, sides: Sequence[Tensor], target: Tensor, uniform: Sequence[Tensor], goal: Goal) -> None:
        """One step of every probe: examples (B, D) raw and standardised, their targets, draws for the dropout."""
        inputs = [
            (part, self._drop_input(self._taken(sides[side], part), uniform[0], p)) for part, (side, p) in self.parts
        ]
        hidden = []
        h = self._first(inputs)
        for (weight, bias), draw in zip(self._upper(), uniform[1:], strict=True):
            h = self._drop(h.relu_(), draw)
            hidden.append(h)
            h = torch.baddbmm(bias[..., None], weight, h)
        grad = goal.gradient(h, target)  # (C, K, B)
        for n in range(len(hidden), 0, -1):
            torch.bmm(grad, hidden[n - 1].mT, out=self.grads[2 * n])
            torch.sum(grad, -1, out=self.grads[2 * n + 1])
            grad = torch.bmm(self.weights[2 * n].mT, grad * self.scale)
            grad = torch.ops.aten.threshold_backward(grad, hidden[n - 1], 0)  # 0 where ReLU or dropout cut
        torch.sum(grad, -1, out=self.grads[1])
        for part, x in inputs:
            if self.taps > 1:
                torch.bmm(grad[part], x, out=self.grads[0][part])
            else:
                torch.mm(grad[part].flatten(0, 1), x, out=self.grads[0][part].flatten(0, 1))
        if self.taps > 1:
            self._mix_gradient(grad, sides, uniform[0])
        self._update()

    def _mix_gradient(self, grad: Tensor, sides: Sequence[Tensor], draw: Tensor) -> None:
        """Gradient of the weights of taps, from that of the first layer's outputs (C, O, B)."""
        for part, (side, p) in self.parts:
            back = self._drop_input(grad[part].mT @ self.weights[0][part], draw, p)  # (k, B, D)
            share = self.weights[-1][part].softmax(-1)  # (k, L)
            pull = back.flatten(1) @ by_tap(sides[side], self.taps).T
            self.grads[-1][part] = share * (pull - (share * pull).sum(-1, keepdim=True))

    def _drop_input(self, x: Tensor, draw: Tensor, p: float) -> Tensor:
        return x * (draw >= p) / (1 - p) if p and self.protocol.dropout_input else x

    def _drop(self, h: Tensor, draw: Tensor) -> Tensor:
        """Dropout of hidden values (C, H, B) by draws (B, H), in place."""
        for part, (_, p) in self.parts:
            if p:
                h[part].mul_(draw.T.ge(p) / (1 - p))
        return h

    def _update(self) -> None:
        self.time += 1
        for rate, decay, (values, grads, first, second), clock in self.updates:
            adam(
                values,
                grads,
                first,
                second,
                [],
                clock,
                fused=True,
                decoupled_weight_decay=self.protocol.optimizer == "adamw",
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate,
                weight_decay=decay,
                eps=1e-8,
                maximize=False,
            )


def _runs(keys: Sequence[Any]) -> list[tuple[slice, Any]]:
    """Neighbours with equal keys, as slices with their key."""
    starts = [i for i in range(len(keys)) if i == 0 or keys[i] != keys[i - 1]]
    return [(slice(a, b), keys[a]) for a, b in zip(starts, [*starts, len(keys)][1:], strict=True)]


class Course:
    """How each probe of a group has fared: its best validation, the weights it had then, when it stops."""

    def __init__(self, stack: Stack, protocol: Protocol) -> None:
        count = len(stack.probes)
        self.protocol = protocol
        self.score, self.reached = (torch.full((count,), -torch.inf, dtype=torch.float64) for _ in range(2))
        self.rule, self.best_step, self.steps = (torch.zeros(count, dtype=torch.long) for _ in range(3))
        self.bored, self.flat = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
        self.failed: dict[int, int] = {}
        self.weights = [torch.zeros_like(value) for value in stack.weights]
        self.validations = 0

    def judge(self, stack: Stack, score: Tensor, rule: Tensor, merit: Tensor, step: int) -> Tensor:
        """Take note of a validation of the living probes, (A,), better where the merit is; says which go on, (A,)."""
        number = stack.number
        self.validations += len(number)
        self.steps[number] = step
        broken = score.isnan()
        self.failed |= dict.fromkeys(number[broken].tolist(), step)
        better = merit > self.reached[number]  # strictly, and never for NaN
        found = number[better]
        self.reached[found] = merit[better]
        self.score[found], self.rule[found], self.best_step[found] = score[better], rule[better], step
        place = better.nonzero()[:, 0].to(self.weights[0].device)
        for best, value in zip(self.weights, stack.weights, strict=True):
            best[found.to(best.device)] = value[place]
        self.bored[number] = torch.where(better, 0, self.bored[number] + 1)
        self._lower_rates(stack, better)
        return (self.bored[number] < self.protocol.patience) & ~broken

    def _lower_rates(self, stack: Stack, better: Tensor) -> None:
        if self.protocol.plateau is None:
            return
        factor, patience = self.protocol.plateau
        flat = torch.where(better, 0, self.flat[stack.number] + 1)
        lower = flat > patience
        self.flat[stack.number] = torch.where(lower, 0, flat)
        if lower.any():
            stack.rates = torch.where(lower, stack.rates * factor, stack.rates)
            stack.arrange_rates()


def fit(
    probes: Sequence[Probe],
    goal: Goal,
    train: Examples,
    valid: Examples,
    protocol: Protocol,
    seed: int = 0,
    rules: Sequence[str] = ("embedding",),
    advance: Callable[[int, int], None] | None = None,
    taps: int = 1,
) -> Fitted:
    """Train probes of one group on a split, each until it no longer gets better on the other.

    All tensors lie on one device, and the work is done there. A probe whose outputs are no longer finite is given up;
    the others go on. `advance` is told how many probes have ended, of how many. `taps`: features are so many taps of
    one width side by side, and each probe learns how to weigh them.
    """
    device = train.x.device
    mean, std = (value.to(device) for value in statistics(train.x))
    sides = [train.x, (train.x - mean) / std]
    seen = [valid.x, (valid.x - mean) / std]
    sizes = widths(probes[0], train.x.shape[1] // taps, len(goal.names))
    stack = Stack(probes, sizes, seed, protocol, taps).to(device)
    course = Course(stack, protocol)
    interval, limit = (f(len(train.x), probes[0].batch) for f in (protocol.interval, protocol.limit))
    for step, (index, uniform) in enumerate(draws(seed, len(train.x), probes[0].batch, sizes[:-1], protocol)):
        end = step >= limit
        if step % interval == 0 or end:
            alive = course.judge(stack, *evaluate(stack, goal, seen, valid, rules), step)
            if not alive.all():
                stack.keep(alive)
            if advance:
                advance(len(probes) - len(stack.probes), len(probes))
            if end or not stack.probes:
                break
        index = index.to(device)
        batch = [side[index] for side in sides]
        stack.step(batch, train.target[..., index], [draw.to(device) for draw in uniform], goal)
    facts = {name: getattr(course, name) for name in ("score", "rule", "best_step", "steps", "failed", "validations")}
    return Fitted(list(probes), weights=course.weights, mean=mean, std=std, **facts)


def evaluate(
    stack: Stack, goal: Goal, sides: Sequence[Tensor], valid: Examples, rules: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Score (A,) of every living probe by its best rule, number of that rule, and what is to grow: that, or -loss.

    NaN where outputs are not finite.
    """
    z = stack.outputs(sides)  # (A, K, M)
    finite = z.isfinite().all(-1).all(-1)
    z = torch.where(finite[:, None, None], z, 0.0) if not bool(finite.all()) else z
    unit = torch.arange(z.shape[-1], device=z.device) if valid.unit is None else valid.unit
    units = valid.target.shape[-1]
    value = torch.stack([goal.value(goal.join(z, unit, units, rule), valid.target) for rule in rules])  # (rules, A)
    best, rule = value.max(0)  # the first of equal ones
    merit = -goal.losses(z, valid.target[..., unit]) if stack.protocol.stop == "loss" else best
    score, merit = (torch.where(finite, each.double(), torch.nan).cpu() for each in (best, merit))
    return score, rule.cpu(), merit
