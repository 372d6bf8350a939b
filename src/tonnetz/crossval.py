"""K-fold training as a state machine: which run comes next follows from the runs that are finished, from nothing else.

Relay (CoverHunterMPS): every fold starts from the best weights so far, at a rate that falls from fold to fold; then a
final run on everything. Ensemble: independent folds. All: one run on everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tonnetz.errors import UserError, suggest
from tonnetz.manifest import first_process, write_json

MODES = ("relay", "ensemble", "all")
FINAL = "final"


@dataclass(frozen=True)
class Rules:
    """What decides about the order and the rates of the runs.

    Args:
        mode: relay | ensemble | all.
        folds: how many, in relay and ensemble.
        rate: learning rate of the first fold (of every one in an ensemble).
        floor: rate that the relay falls towards.
        anchor: rate of the second fold; null takes the rate at the best epoch of the first.
        position: fold at whose rate the final run starts, may lie between two; null takes folds - 0.5.
        steady: the optimizer finds its own rate, so all runs have `rate`.
        best: ``max`` or ``min``: the better score.
    """

    mode: str = "relay"
    folds: int = 5
    rate: float = 1e-3
    floor: float = 1e-4
    anchor: float | None = None
    position: float | None = None
    steady: bool = False
    best: str = "max"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"job.mode={self.mode}{suggest(self.mode, MODES)}")
        if self.mode == "all":
            return
        if self.folds < 2:
            raise UserError(f"job.folds={self.folds}: need at least 2; job.mode=all trains on everything without folds")
        if self.mode == "relay" and not self.steady and not 0 < self.floor <= min(self.rate, self.anchor or self.rate):
            raise UserError(
                f"job.floor={self.floor}: must be above 0 and not above optimizer.lr={self.rate} and "
                f"job.anchor={self.anchor}"
            )
        if self.position is not None and self.position < 2:
            raise UserError(f"job.position={self.position}: must be at least 2, the fold whose rate is the anchor")

    @property
    def names(self) -> list[str]:
        """The runs in their order."""
        folds = [] if self.mode == "all" else [f"fold_{k}" for k in range(1, self.folds + 1)]
        return [*folds, *([] if self.mode == "ensemble" else [FINAL])]


@dataclass(frozen=True)
class Step:
    """One run: the `fold` (from 0) that it holds back (null: none), its first rate, and the run it starts from."""

    name: str
    fold: int | None
    rate: float
    start: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its best score on validation (null: nothing validated it), the epoch (from 0) and rate there."""

    name: str
    score: float | None
    epoch: int
    rate: float


def following(rules: Rules, finished: Sequence[Outcome]) -> Step | None:
    """Return the run that comes after the `finished` ones; null at the end."""
    if len(finished) == len(rules.names):
        return None
    name = rules.names[len(finished)]
    fold = None if name == FINAL else len(finished)
    if rules.mode != "relay" or not finished:
        return Step(name, fold, rules.rate)
    place = len(finished) + 1.0 if fold is not None else rules.position or max(rules.folds - 0.5, 2.0)
    return Step(name, fold, rate(rules, finished[0].rate, place), best(rules, finished).name)


def rate(rules: Rules, found: float, place: float) -> float:
    """First rate of the fold at `place` (from 2): geometric from the anchor to the floor, over folds 2 to K + 1.

    `found` is the rate at the best epoch of the first fold.
    """
    if rules.steady:
        return rules.rate
    anchor = max(rules.anchor or found, rules.floor)
    ratio = (rules.floor / anchor) ** (1 / (rules.folds - 1))
    return anchor * ratio ** (place - 2)


def best(rules: Rules, finished: Sequence[Outcome]) -> Outcome:
    """The run with the best score; the last one where none has a score."""
    sign = 1 if rules.best == "max" else -1
    scored = [(sign * outcome.score, outcome) for outcome in finished if outcome.score is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else finished[-1]


@dataclass
class State:
    """The finished runs, in a file that is true at every moment."""

    path: Path
    rules: Rules
    finished: list[Outcome] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, rules: Rules) -> State:
        """Go on from the file, if there is one. Raises UserError when it is broken or of other rules."""
        if not path.exists():
            return cls(path, rules)
        try:
            content = json.loads(path.read_text())
            finished = [Outcome(**{f.name: item[f.name] for f in fields(Outcome)}) for item in content["finished"]]
            stored: dict[str, Any] = content["rules"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: is no state of a crossval run; choose another run=NAME or delete it") from None
        for key, value in asdict(rules).items():
            if stored.get(key) != value:
                raise UserError(
                    f"{path}: was begun with {key}={stored.get(key)} (now {value}); choose another run=NAME or delete "
                    f"{path.parent}"
                )
        if [outcome.name for outcome in finished] != rules.names[: len(finished)]:
            raise UserError(f"{path}: its runs are not in order; choose another run=NAME or delete {path.parent}")
        return cls(path, rules, finished)

    def write(self, running: str | None) -> None:
        """Write the file atomically; only the first process of a distributed run does."""
        if first_process():
            finished = [asdict(outcome) for outcome in self.finished]
            write_json(self.path, {"rules": asdict(self.rules), "finished": finished, "running": running})

    def advance(self, train: Callable[[Step], Outcome | None]) -> bool:
        """Let `train` do all runs that are left; False when it returned none because somebody stopped it."""
        while step := following(self.rules, self.finished):
            self.write(step.name)
            outcome = train(step)
            if outcome is None:
                return False
            self.finished.append(outcome)
            self.write(None)
        return True
