"""Gathers the predictions of an epoch over batches and processes, so that metrics see whole tracks once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Windows:
    """Distinct windows by (row, start); by name or unpacked: prob and target (M, K), row and start (M,).

    No dict or tuple, because torchmetrics squeezes one-element tensors out of collections.
    """

    def __init__(self, prob: Tensor, target: Tensor, row: Tensor, start: Tensor) -> None:
        self.prob, self.target, self.row, self.start = prob, target, row, start

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.prob, self.target, self.row, self.start))

    def __getitem__(self, name: str) -> Tensor:
        return getattr(self, name)

    def __len__(self) -> int:
        return len(self.row)


class Scores(Metric):
    """Probabilities, targets, rows and start seconds of every window, joined over uneven processes.

    A window is its (row, start); one that was seen twice, as when a sampler pads the last batch, counts once.
    """

    full_state_update = False
    prob: list[Tensor]
    target: list[Tensor]
    row: list[Tensor]
    start: list[Tensor]

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        for name in ("prob", "target", "row", "start"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, prob: Tensor, target: Tensor, row: Tensor, start: Tensor) -> None:
        """Keep a batch: prob (B, K), target (B, K), NaN = unknown, row (B,) int64, start (B,) in seconds."""
        self.prob.append(prob.detach().float())
        self.target.append(target.detach().float())
        self.row.append(row.detach().long())
        self.start.append(start.detach().float())

    def compute(self) -> Windows:
        """Return the distinct windows of all processes, sorted; works when there are none."""
        self._fill()
        prob, target = dim_zero_cat(self.prob), dim_zero_cat(self.target)  # (M, K)
        row, start = dim_zero_cat(self.row), dim_zero_cat(self.start)  # (M,)
        order = start.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]  # by row, then by start
        row, start = row[order], start[order]
        new = torch.ones_like(row, dtype=torch.bool)
        new[1:] = (row[1:] != row[:-1]) | (start[1:] != start[:-1])
        return Windows(prob[order[new]], target[order[new]], row[new], start[new])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Join the states of all processes; one without windows sends empty tensors of the right shape."""
        self._fill()
        super().sync(*args, **kwargs)

    def _fill(self) -> None:
        wide = torch.empty(0, self.classes, device=self.device)
        empty = {"prob": wide, "target": wide, "row": wide[:, 0].long(), "start": wide.sum(1)}
        for name, tensor in empty.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [tensor])
