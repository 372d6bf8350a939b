"""How the answers of enrolled classes agree with folders: accuracy, confusion, and rejection of the unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tonnetz.enrolment.lineage import place_of
from tonnetz.enrolment.taught import UNKNOWN, Enrolment
from tonnetz.errors import UserError
from tonnetz.metrics.openset import auroc, false_positives_at, oscr


@dataclass(frozen=True)
class Recognition:
    """What `recognise` found.

    Args:
        columns: the enrolled classes, then unknown.
        classes: a dict a folder: folder, label (None: not enrolled), files, answers by column, accuracy of the
            likeliest class (None when not enrolled), rejected share of files and of windows.
        accuracy: of the likeliest class, over files of enrolled classes; None without any.
        accepted_accuracy: share of these that are accepted and right.
        chance: accuracy of the commonest class for all (`constant`) and of dice (`random`); None without any.
        file, window: auroc, oscr and fpr95 of telling enrolled from other classes by novelty; None without both.
    """

    columns: list[str]
    classes: list[dict[str, Any]]
    accuracy: float | None
    accepted_accuracy: float | None
    chance: dict[str, float] | None
    file: dict[str, float | None]
    window: dict[str, float | None]

    def summary(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def sentence(self) -> str:
        """The numbers in a line or two."""
        parts = []
        if self.accuracy is not None and self.chance:
            chance = f"one class for all {self.chance['constant']:.1%}, dice {self.chance['random']:.1%}"
            parts.append(
                f"accuracy {self.accuracy:.1%} ({self.accepted_accuracy:.1%} right and not rejected; {chance})"
            )
        if self.file["auroc"] is not None:
            numbers = (
                f"{name}s AUROC {of['auroc']:.3f}, OSCR {of['oscr']:.3f}, FPR@95 {of['fpr95']:.3f}"
                for name, of in (("file", self.file), ("window", self.window))
            )
            parts.append("rejection of what is not enrolled: " + "; ".join(numbers) + "; AUROC of dice 0.500")
        return "\n".join(parts) or "nothing to compare"


def truths(paths: Sequence[str], inputs: Sequence[str], enrolment: Enrolment) -> list[tuple[str, str | None]]:
    """Folder and enrolled class (None: not enrolled) of each file, as in INPUT/FOLDER/**/FILE.

    Folders are compared with class names, then by what both mean in the tree. Raises UserError for a file that lies in
    no sub-folder of an input, and when no folder is named like a class.
    """
    nodes = {place.node: place.name for place in enrolment.places if place.node and not place.attached}
    roots = [Path(item) for item in inputs if Path(item).is_dir()]
    found = []
    for path in map(Path, paths):
        inside = next((path.relative_to(root).parts for root in roots if path.is_relative_to(root)), ())
        if len(inside) < 2:
            raise UserError(
                f"job.truth=folders: {path} lies in no sub-folder of an input; give FOLDER of FOLDER/CLASS/FILE"
            )
        folder = inside[0]
        node = place_of(folder, enrolment.tree).node
        label = folder if folder in enrolment.names else nodes.get(node) if node else None
        found.append((folder, label))
    if not any(label for _, label in found):
        raise UserError(f"job.truth=folders: no folder is named like a class ({', '.join(enrolment.names)})")
    return found


def recognise(
    enrolment: Enrolment,
    results: Sequence[Mapping[str, Any]],
    novelties: Mapping[str, Tensor],
    truth: Sequence[tuple[str, str | None]],
) -> Recognition:
    """Compare the results of files with their folders and classes, `novelties` as job=classify gives them."""
    folders = sorted(dict(truth).items(), key=lambda pair: (pair[1] is None, pair[0]))
    columns = [*enrolment.names, UNKNOWN]
    classes = [_row(folder, label, columns, _of(results, truth, folder)) for folder, label in folders]
    known = torch.tensor([label is not None for _, label in truth])
    right = torch.tensor([item["label"] == label for item, (_, label) in zip(results, truth, strict=True)])
    kept = torch.tensor([not item["unknown"] for item in results])
    row = novelties["row"]
    asked = [label for _, label in truth if label is not None]
    most = max(map(asked.count, enrolment.names)) / max(len(asked), 1)
    window_right = torch.tensor(
        [w["label"] == label for item, (_, label) in zip(results, truth, strict=True) for w in item["timeline"]]
    )
    return Recognition(
        columns,
        classes,
        float(right[known].double().mean()) if bool(known.any()) else None,
        float((right & kept)[known].double().mean()) if bool(known.any()) else None,
        {"constant": most, "random": 1 / len(enrolment.names)} if asked else None,
        _open_set(novelties["file"], known, right),
        _open_set(novelties["window"], known[row], window_right),
    )


def _of(results: Sequence[Any], truth: Sequence[tuple[str, str | None]], folder: str) -> list[Any]:
    return [item for item, (name, _) in zip(results, truth, strict=True) if name == folder]


def _row(folder: str, label: str | None, columns: Sequence[str], mine: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answers = [UNKNOWN if item["unknown"] else item["label"] for item in mine]
    windows = [w["unknown"] for item in mine for w in item["timeline"]]
    return {
        "folder": folder,
        "label": label,
        "files": len(mine),
        "answers": {name: answers.count(name) for name in columns},
        "accuracy": None if label is None else sum(item["label"] == label for item in mine) / len(mine),
        "rejected": sum(item["unknown"] for item in mine) / len(mine),
        "windows_rejected": sum(windows) / len(windows),
    }


def _open_set(novelty: Tensor, known: Tensor, right: Tensor) -> dict[str, float | None]:
    """How well the novelty (M, C) to the nearest class tells the known (M,) from others."""
    if bool(known.all()) or not bool(known.any()):
        return {"auroc": None, "oscr": None, "fpr95": None}
    score = -novelty.min(1).values
    values = auroc(score, known), oscr(score, known, right).area, false_positives_at(score, known)
    return dict(zip(("auroc", "oscr", "fpr95"), (round(value, 6) for value in values), strict=True))
