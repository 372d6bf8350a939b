"""Where unknown begins: how novelty is measured, and the threshold that left-out examples set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest

ACCEPT = 0.8  # of left-out examples are less novel than the threshold
NOVELTY = ("ratio", "distance")


@dataclass(frozen=True)
class Limit:
    """The novelty beyond which a vector is of no enrolled class; None where nothing tells.

    `accepted` is the share of left-out examples that are less novel, `passed` the share that would be if their whole
    class were left out.
    """

    threshold: float | None
    accepted: float | None
    passed: float | None


def threshold(left_out: Tensor, code: Tensor, weight: Tensor, accept: float) -> Limit:
    """The threshold of novelties (N, C) of left-out examples of classes (N,), whose weights (N,) sum to 1."""
    if not len(code):
        return Limit(None, None, None)
    kin = left_out.min(1).values
    stranger = left_out.scatter(1, code[:, None], torch.inf).min(1).values  # what it would find as one
    ranked, order = kin.sort()
    enough = weight[order].cumsum(0) >= accept - 1e-9  # sums of weights are not exact
    beyond = ranked[int(enough.int().argmax())]
    accepted, passed = (float(weight[values <= beyond].sum()) for values in (kin, stranger))
    return Limit(float(beyond), accepted, passed)


def chosen(novelty: str | None, background: bool) -> str:
    """How novelty is measured: as asked, else by ratio where the `background` of training is known.

    Raises UserError for an unknown way, and for a ratio without a background.
    """
    if novelty is None:
        return NOVELTY[0] if background else NOVELTY[1]
    if novelty not in NOVELTY:
        raise UserError(f"job.novelty={novelty}: is unknown{suggest(novelty, NOVELTY)}")
    if novelty == NOVELTY[0] and not background:
        raise UserError(
            "job.novelty=ratio: the prototypes do not know how training classes lie; take job.novelty=distance, "
            "or enroll anew with a checkpoint of task=fewshot with task.whiten"
        )
    return novelty
