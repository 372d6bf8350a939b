"""How well would teaching work? Classes are taught by a few of their files and asked by others, over and over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonnetz.enrolment.examples import Example
from tonnetz.enrolment.taught import Enrolment
from tonnetz.errors import UserError
from tonnetz.fewshot.background import Background
from tonnetz.heads.chance import BLIND
from tonnetz.metrics.openset import auroc
from tonnetz.windows import mean_by_row

Told = tuple[Tensor, dict[str, Tensor], dict[str, float]]  # answers (m,); novelties and threshold of files and windows


@dataclass(frozen=True)
class Trials:
    """What is drawn: so many classes are taught by `shots` files each, so many strangers are not taught.

    Of each class, taught or not, up to `queries` other files ask. With `teach` and `strangers` named, only files are
    drawn.
    """

    classes: int = 3
    unknown: int = 1
    shots: int = 5
    queries: int = 20
    accept: float = 0.8
    teach: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()

    def check(self, counts: Mapping[str, int]) -> None:
        """Raise UserError when classes of so many files cannot be drawn from like this."""
        for name in (*self.teach, *self.strangers):
            if name not in counts:
                raise UserError(f"job.teach, job.strangers: no class '{name}' among the examples")
        if bool(self.teach) != bool(self.strangers):
            raise UserError("job.teach and job.strangers: name both or neither")
        if not self.teach and self.classes + self.unknown > len(counts):
            asked = f"job.classes={self.classes} job.unknown={self.unknown}"
            raise UserError(f"{asked}: the examples have {len(counts)} classes")
        if min(len(self.teach) or self.classes, self.shots) < 2 or min(self.unknown, self.queries) < 1:
            raise UserError("job.classes and job.shots must be 2 or more, job.unknown and job.queries 1 or more")
        for name, count in sorted(counts.items()):
            if count <= self.shots:
                raise UserError(f"{name}: has {count} files; job.shots={self.shots} leaves none that asks")

    def draw(self, labels: np.ndarray, random: np.random.Generator) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of the classes that are taught; files (k,) that teach; and (m,) that ask; of files of labels (N,)."""
        if self.teach:
            names = [*self.teach, *self.strangers]
        else:
            names = random.permutation(np.unique(labels))[: self.classes + self.unknown].tolist()
        taught = names[: len(self.teach) or self.classes]
        shown, asked = [], []
        for name in names:
            files = random.permutation(np.flatnonzero(labels == name))
            first = self.shots if name in taught else 0
            shown.append(files[:first])
            asked.append(files[first : first + self.queries])
        return taught, np.concatenate(shown), np.concatenate(asked)


def trial(
    trials: Trials,
    facts: dict[str, Any],
    found: Mapping[str, Tensor],
    labels: np.ndarray,
    background: Background | None,
    ways: Sequence[str],
    random: np.random.Generator,
) -> list[dict[str, Any]]:
    """One draw; a row each way of measuring novelty and each of `BLIND`, and in `classes` a row each class.

    `found` are vectors (M, D) of windows and `row` (M,) of the files that have the labels (N,).
    """
    taught, shown, asked = trials.draw(labels, random)
    vectors, row = _of(found, shown)
    examples = [Example(str(labels[i]), str(i), 0.0, str(i)) for i in shown]
    enrolment = Enrolment.build(facts, examples, vectors, row, attach=False, background=background)
    windows, part = _of(found, asked)
    whole = mean_by_row(windows, part, len(asked))
    sizes = {"file": len(asked), "window": len(part)}
    known = torch.from_numpy(np.isin(labels[asked], taught))
    heard = {"file": known, "window": known[part]}
    said = enrolment.distances(whole).argmin(1)
    told: dict[str, Told] = {}
    for way in ways:
        limits = {kind: _limit(enrolment, kind, trials.accept, way) for kind in sizes}
        new = {kind: enrolment.novelties(z, way).min(1).values for kind, z in (("file", whole), ("window", windows))}
        told[way] = said, new, limits
    told |= _blind(sizes, len(enrolment.names), trials.accept, random.spawn(1)[0])
    rows = []
    for way, (answer, new, limits) in told.items():
        right = torch.from_numpy(labels[asked] == np.array(enrolment.names)[answer.numpy()]).double()
        measures: dict[str, float] = {}
        for kind in sizes:
            measures |= _told(kind, new[kind], limits[kind], heard[kind])
        rows.append(
            {
                "novelty": way,
                "taught": ";".join(taught),
                "unknown": ";".join(sorted({*labels[asked]} - {*taught})),
                "accuracy": float(right[known].mean()),
                **measures,
                "classes": _classes(enrolment.names, labels[asked], right, (new["file"] > limits["file"]).double()),
            }
        )
    return rows


def _limit(enrolment: Enrolment, kind: str, accept: float, way: str) -> float:
    limit = enrolment.limit(kind, accept, way).threshold
    assert limit is not None  # two files or more teach each class
    return limit


def _blind(sizes: Mapping[str, int], classes: int, accept: float, random: np.random.Generator) -> dict[str, Told]:
    """What `BLIND` answer: the first class and nothing new, and dice for both.

    The dice reject as large a share as the threshold does of the examples.
    """
    first = torch.zeros(sizes["file"], dtype=torch.long)
    nothing = {kind: torch.zeros(size) for kind, size in sizes.items()}
    drawn = torch.from_numpy(random.integers(classes, size=sizes["file"]))
    dice = {kind: torch.from_numpy(random.random(size)) for kind, size in sizes.items()}
    limits = (dict.fromkeys(sizes, limit) for limit in (0.0, accept))
    return dict(zip(BLIND, zip((first, drawn), (nothing, dice), limits, strict=True), strict=True))


def _told(kind: str, new: Tensor, limit: float, known: Tensor) -> dict[str, float]:
    """How well the known are told from the unknown by their novelty, and which share of either is rejected."""
    rejected = (new > limit).double()
    return {
        f"{kind}_auroc": auroc(-new, known),
        f"{kind}_unknown_rejected": float(rejected[~known].mean()),
        f"{kind}_known_rejected": float(rejected[known].mean()),
    }


def _classes(taught: Sequence[str], labels: np.ndarray, right: Tensor, rejected: Tensor) -> list[dict[str, Any]]:
    """Accuracy of each class that was taught, and which share of its files, or of a stranger's, is rejected."""
    rows = []
    for name in np.unique(labels).tolist():
        mine = torch.from_numpy(labels == name)
        accuracy = float(right[mine].mean()) if name in taught else None
        rows.append(
            {"class": name, "taught": name in taught, "accuracy": accuracy, "rejected": float(rejected[mine].mean())}
        )
    return rows


def _of(found: Mapping[str, Tensor], files: np.ndarray) -> tuple[Tensor, Tensor]:
    """The windows of some files, in their order, and which of these each belongs to."""
    place = torch.full((int(found["row"].max()) + 1,), -1)
    place[torch.from_numpy(files)] = torch.arange(len(files))
    row = place[found["row"]]
    kept = (row >= 0).nonzero()[:, 0]
    return found["vectors"][kept], row[kept]
