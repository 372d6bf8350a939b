"""From features and targets to a result: every configuration, the best on validation, the test split once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.errors import UserError, suggest
from tonnetz.metrics.bootstrap import percentiles, resampled
from tonnetz.probing.features import Features, mark_of
from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, groups
from tonnetz.probing.stack import Examples, Fitted, fit
from tonnetz.windows import mean_by_row

Units = dict[str, Tensor]  # split -> number of the unit that each track of its table belongs to (N,)


@dataclass(frozen=True)
class Settings:
    """How vectors become examples, and results.

    Args:
        train: ``mean``: one vector a track; ``all``: every window; a number: so many windows a track.
        rules: how the windows of a track are joined in evaluation; of several, validation chooses.
        seeds: how often the winner is trained; the configurations are searched with the first seed alone.
        seed: the first.
        draws: resamplings of the test tracks for the interval; 0 leaves it out.
        device: where the work is done.
    """

    train: str | int = "mean"
    rules: tuple[str, ...] = ("embedding",)
    seeds: int = 3
    seed: int = 0
    draws: int = 1000
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.train not in ("mean", "all") and not (isinstance(self.train, int) and self.train > 0):
            raise UserError(f"job.train={self.train}: known are mean, all, or a number of windows a track")
        if self.seeds < 1 or self.draws < 0:
            raise UserError(f"job.seeds={self.seeds} job.draws={self.draws}: at least 1, and not negative")


def unit_of(frame: pl.DataFrame, column: str | None) -> Tensor:
    """Number (N,) of what each track of a table is judged with: itself, or all of its value in `job.unit`'s column."""
    if column is None:
        return torch.arange(frame.height)
    if column not in frame.columns:
        raise UserError(f"job.unit={column}: the track table has no such column{suggest(column, frame.columns)}")
    if frame[column].null_count():
        raise UserError(f"job.unit={column}: is empty for some tracks; choose another column")
    return torch.from_numpy(frame[column].rank("dense").cast(pl.Int64).to_numpy(writable=True))


def training_examples(features: Features, target: Tensor, keep: Tensor, settings: Settings) -> Examples:
    """Training examples of the tracks to `keep`: their mean vectors, or their windows."""
    x, row = features.x["train"], features.row["train"]
    chosen = torch.isin(row, keep)
    if isinstance(settings.train, int):
        random = torch.Generator().manual_seed(settings.seed)
        order = torch.randperm(len(row), generator=random)
        order = order[row[order].argsort(stable=True)]
        first = row.bincount().cumsum(0) - row.bincount()
        place = torch.empty_like(row)
        place[order] = torch.arange(len(row)) - first[row[order]]  # in a random order within each track
        chosen &= place < settings.train
    x, row = x[chosen], row[chosen]
    if settings.train == "mean":
        row, index = row.unique(return_inverse=True)
        x = mean_by_row(x, index, len(row))
    if not len(x):
        raise UserError("no training example is left; take a larger job.fractions")
    return Examples(x, target[..., row])


def evaluation_examples(
    features: Features, split: str, target: Tensor, unit: Tensor, rules: Sequence[str], train: str | int = "all"
) -> Examples:
    """Windows of a split with the unit that each belongs to, and targets (..., N) of the units.

    Where a unit is several tracks (the clips of a song) and a probe is trained on the mean vectors of tracks
    (`train`), each track is one vector here too.
    """
    x, row = features.x[split], features.row[split]
    if train == "mean" and len(unit.unique()) < len(unit):
        row, place = row.unique(return_inverse=True)
        x = mean_by_row(x, place, len(row))
    names, index = unit[row].unique(return_inverse=True)
    first = torch.full((len(names),), len(row)).scatter_reduce(0, index, torch.arange(len(row)), "amin")
    truth = target[..., row[first]]
    if list(rules) == ["embedding"]:
        return Examples(mean_by_row(x, index, len(names)), truth)
    return Examples(x, truth, index)


def search(
    features: Features,
    goal: Goal,
    values: dict[str, Tensor],
    units: Units,
    keep: Tensor,
    probes: Sequence[Probe],
    protocol: Protocol,
    settings: Settings,
    folder: Path,
    advance: Callable[[int, int], None] | None = None,
    others: Sequence[tuple[str, Features]] = (),
) -> dict[str, Any]:
    """Try all probes, take the best on validation, judge it on the test split.

    Each group that is done is kept in `folder`, so an interrupted search goes on where it was. `others` are features
    of deformed test tracks, by name, for the same winner.
    """
    device = torch.device(settings.device)
    train = training_examples(features, values["train"], keep, settings)
    valid = evaluation_examples(features, "valid", values["valid"], units["valid"], settings.rules, settings.train)
    if goal.kind == "multilabel" and len(goal.undefined(valid.target)) == len(goal.names):
        raise UserError(
            "the validation split has no class with a positive and a negative, so nothing can choose a probe; "
            "more validation tracks (data.valid) or other labels are needed"
        )
    facts = {
        "features": features.mark,
        "goal": asdict(goal),
        "protocol": asdict(protocol),
        "train": settings.train,
        "rules": settings.rules,
    }
    facts |= {"examples": _digest(train), "judged": _digest(valid), "first": settings.seed}
    data = train.to(device), valid.to(device)

    def run(some: Sequence[Probe], seed: int) -> Path:
        path = folder / f"{mark_of(**facts, probes=[p.id for p in some], seed=seed)}.safetensors"
        if not path.exists():
            write_kept(path, fit(some, goal, *data, protocol, seed, settings.rules, advance, features.taps))
        return path

    found = []
    for group in groups(probes):
        path = run([probes[i] for i in group], settings.seed)
        found += [(i, row, path) for i, row in zip(group, read_kept(path)[0], strict=True)]
    found.sort(key=lambda one: one[0])
    number, row, path = max(found, key=lambda one: (one[1]["score"], -one[0]))
    best = read_kept(path)[1]
    if row["score"] == float("-inf"):
        raise UserError(f"{features.name}: no configuration gave a finite score; lower job.axes.lr")
    result: dict[str, Any] = {
        "features": features.name,
        "dimensions": train.x.shape[1] // features.taps,
        "mark": features.mark,
        "of": list(features.of),
        "weights": path.name,
    }
    result |= {"winner": row, "valid": row["score"], "configurations": [one[1] for one in found]}
    rule = settings.rules[row["rule"]]
    result |= {"rule": rule, "failed": sum(one[1]["failed"] is not None for one in found)}
    if features.taps > 1:
        result["taps"] = best.weights[-1][0].softmax(-1).tolist()
    result |= _judge(features, goal, values, units, settings, best, rule)
    again = [result["test"][goal.monitor]]
    for seed in range(settings.seed + 1, settings.seed + settings.seeds):
        other = read_kept(run([probes[number]], seed))[1]
        again.append(
            _judge(features, goal, values, units, replace(settings, draws=0), other, rule)["test"][goal.monitor]
        )
    spread = torch.tensor(again, dtype=torch.float64)
    result["seeds"] = {"values": again, "mean": spread.mean().item(), "std": spread.std(correction=0).item()}
    plain = replace(settings, draws=0)
    result["deformed"] = {
        name: _judge(changed, goal, values, units, plain, best, rule)["test"] for name, changed in others
    }
    return result


def _digest(examples: Examples) -> str:
    unit = None if examples.unit is None else examples.unit.numpy().tobytes().hex()
    target = examples.target.nan_to_num(-7).double().numpy().tobytes().hex()
    return mark_of(x=list(examples.x.shape), target=target, unit=unit)


def _judge(
    features: Features, goal: Goal, values: dict[str, Tensor], units: Units, settings: Settings, best: Fitted, rule: str
) -> dict[str, Any]:
    """Test metrics of the one probe of `best`, with an interval over tracks."""
    test = evaluation_examples(features, "test", values["test"], units["test"], (rule,), settings.train)
    unit = torch.arange(len(test.x)) if test.unit is None else test.unit
    outputs, count = best.outputs(0, test.x)[None], test.target.shape[-1]  # (1, K, M)
    score = goal.join(outputs, unit, count, rule)[0]  # (K, N)
    found = judged(goal, score, test.target, settings)
    if len(settings.rules) > 1:  # beside the one that validation chose
        joined = {name: goal.join(outputs, unit, count, name)[0] for name in settings.rules}
        found["rules"] = {name: goal.metrics(each, test.target) for name, each in joined.items()}
    if len(unit) > count:
        found["single"] = goal.metrics(outputs[0], test.target[..., unit])
    return found


def judged(goal: Goal, score: Tensor, target: Tensor, settings: Settings) -> dict[str, Any]:
    """Metrics of scores (K, N), the classes that they leave out, and the bootstrap of what chooses."""
    found: dict[str, Any] = {"test": goal.metrics(score, target), "undefined": goal.undefined(target)}
    if settings.draws:
        draws = resampled(goal.value, score, target, settings.draws, seed=settings.seed)
        found |= {"interval": percentiles(draws), "draws": draws.tolist()}
    return found


def write_kept(path: Path, fitted: Fitted) -> None:
    """Write what a group gave, and the weights of its best probe alone."""
    from safetensors.torch import save_file

    best = int(fitted.score.argmax())
    tensors = {f"weight{i:02}": value[best : best + 1] for i, value in enumerate(fitted.weights)}
    tensors |= {"mean": fitted.mean, "std": fitted.std}
    facts = {"rows": rows_of(fitted), "best": asdict(fitted.probes[best])}
    with replacing(path) as part:
        save_file(
            {name: value.cpu().contiguous() for name, value in tensors.items()},
            part,
            metadata={name: json.dumps(value) for name, value in facts.items()},
        )


def read_kept(path: Path) -> tuple[list[dict[str, Any]], Fitted]:
    """The rows of all probes of a group, and the best one alone."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items()}
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a file of tensors is no dict
    weights = [values[name] for name in sorted(values) if name.startswith("weight")]
    probe = Probe(**{**facts["best"], "hidden": tuple(facts["best"]["hidden"])})
    one = torch.zeros(1, dtype=torch.long)
    return facts["rows"], Fitted([probe], one, one, one, one, {}, weights, values["mean"], values["std"])


def rows_of(fitted: Fitted) -> list[dict[str, Any]]:
    """One plain row a configuration."""
    columns = zip(
        fitted.probes,
        *(value.tolist() for value in (fitted.score, fitted.rule, fitted.best_step, fitted.steps)),
        strict=True,
    )
    return [
        {
            "id": probe.id,
            **asdict(probe),
            "hidden": [weight.shape[1] for weight in fitted.weights[: 2 * len(probe.hidden) : 2]],
            "score": score,
            "rule": rule,
            "best_step": best,
            "steps": steps,
            "failed": fitted.failed.get(i),
        }
        for i, (probe, score, rule, best, steps) in enumerate(columns)
    ]
