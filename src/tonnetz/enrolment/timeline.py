"""From windows to a label track: medians over neighbours, boundaries, runs of one label."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from tonnetz.errors import UserError

Run = tuple[float, float, str]  # start and end in seconds, label


def smooth(values: Tensor, width: int) -> Tensor:
    """Median (n, C) of values (n, C) over `width` neighbouring windows, an odd number; the ends repeat."""
    if width < 1 or width % 2 == 0:
        raise UserError(f"job.smooth={width}: must be an odd number of windows, 1 does not smooth")
    if width == 1 or not len(values):
        return values
    padded = F.pad(values.T[None], (width // 2, width // 2), mode="replicate")[0].T  # (n + width - 1, C)
    return padded.unfold(0, width, 1).median(-1).values


def boundaries(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Where (n + 1,) one window's word ends and the next one's begins: halfway between the middles of windows."""
    middle = (start + end) / 2
    return np.concatenate([start[:1], (middle[1:] + middle[:-1]) / 2, end[-1:]])


def runs(labels: Sequence[str], edges: np.ndarray) -> list[Run]:
    """Neighbours with one label as one."""
    found = []
    for label, group in groupby(range(len(labels)), key=lambda i: labels[i]):
        members = list(group)
        found.append((float(edges[members[0]]), float(edges[members[-1] + 1]), label))
    return found


def label_track(found: Sequence[Run]) -> str:
    """The text of an Audacity label track: start, end and label of a line, separated by tabs."""
    return "".join(f"{start:.6f}\t{end:.6f}\t{' '.join(label.split())}\n" for start, end, label in found)
