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
from tonnetz.fewshot.protocol import mean_by_row
from tonnetz.metrics.openset import auroc


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
    """One draw; a row each way of measuring novelty, and in `classes` a row each class.

    `found` are vectors (M, D) of windows and `row` (M,) of the files that have the labels (N,).
    """
    taught, shown, asked = trials.draw(labels, random)
    vectors, row = _of(found, shown)
    examples = [Example(str(labels[i]), str(i), 0.0, str(i)) for i in shown]
    enrolment = Enrolment.build(facts, examples, vectors, row, attach=False, background=background)
    windows, part = _of(found, asked)
    whole = mean_by_row(windows, part, len(asked))
    said = [enrolment.names[i] for i in enrolment.distances(whole).argmin(1).tolist()]
    right = torch.from_numpy(labels[asked] == np.array(said)).double()
    known = torch.from_numpy(np.isin(labels[asked], taught))
    head = {
        "taught": ";".join(taught),
        "unknown": ";".join(sorted({*labels[asked]} - {*taught})),
        "accuracy": float(right[known].mean()),
    }
    rows = []
    for way in ways:
        measures, rejected = _told("file", enrolment, whole, known, trials.accept, way)
        more, _ = _told("window", enrolment, windows, known[part], trials.accept, way)
        classes = _classes(enrolment.names, labels[asked], right, rejected)
        rows.append({"novelty": way, **head, **measures, **more, "classes": classes})
    return rows


def _told(
    kind: str, enrolment: Enrolment, z: Tensor, known: Tensor, accept: float, way: str
) -> tuple[dict[str, float], Tensor]:
    """How well the known are told from the unknown, and which share of either is rejected; and which (M,) are."""
    new = enrolment.novelties(z, way).min(1).values
    limit = enrolment.limit(kind, accept, way).threshold
    assert limit is not None  # two files or more teach each class
    rejected = (new > limit).double()
    return {
        f"{kind}_auroc": auroc(-new, known),
        f"{kind}_unknown_rejected": float(rejected[~known].mean()),
        f"{kind}_known_rejected": float(rejected[known].mean()),
    }, rejected


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
