"""Gathers the segment vectors of an epoch over batches and processes, so that retrieval sees whole tracks once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Segments:
    """Distinct segments sorted by (tempo, row, start): z (M, D), row, group (M,) int64, start, tempo (M,)."""

    FIELDS = ("z", "row", "group", "start", "tempo")

    def __init__(self, z: Tensor, row: Tensor, group: Tensor, start: Tensor, tempo: Tensor) -> None:
        self.z, self.row, self.group, self.start, self.tempo = z, row, group, start, tempo

    def __len__(self) -> int:
        return len(self.row)

    def at(self, tempo: float) -> Segments:
        """The segments that were read at one tempo."""
        mine = (self.tempo - tempo).abs() < 1e-4
        return Segments(self.z[mine], self.row[mine], self.group[mine], self.start[mine], self.tempo[mine])

    def middle(self, seconds: float, tracks: int) -> Segments:
        """The segments that begin within so many seconds around the middle of their track; at least the nearest one."""

        def first(value: Tensor) -> Tensor:
            return value.new_full((tracks,), torch.inf).scatter_reduce(0, self.row, value, "amin")[self.row]

        away = (self.start - (first(self.start) - first(-self.start)) / 2).abs()  # (M,) seconds
        nearest = self.start.where(away <= first(away), torch.inf)  # of two alike the earlier
        kept = (away <= seconds / 2) | (self.start == first(nearest))
        return Segments(*(getattr(self, name)[kept] for name in self.FIELDS))

    @property
    def tempi(self) -> list[float]:
        """The tempi at which tracks were read."""
        return self.tempo.unique().tolist()


class Vectors(Metric):
    """Vectors with row, group, start seconds and tempo, joined over uneven processes.

    A segment is its (row, start, tempo); one that was seen twice, as when a sampler pads the last batch or two
    windows overlap, counts once.
    """

    full_state_update = False

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        for name in Segments.FIELDS:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, z: Tensor, row: Tensor, group: Tensor, start: Tensor, tempo: Tensor) -> None:
        """Keep vectors z (M, D) with row, group (M,) int64 and start, tempo (M,)."""
        self.z.append(z.detach().float())  # type: ignore[operator, union-attr]
        self.row.append(row.detach().long())  # type: ignore[operator, union-attr]
        self.group.append(group.detach().long())  # type: ignore[operator, union-attr]
        self.start.append(start.detach().float())  # type: ignore[operator, union-attr]
        self.tempo.append(tempo.detach().float())  # type: ignore[operator, union-attr]

    def compute(self) -> Segments:
        """Return the distinct segments of all processes, sorted; works when there are none."""
        self._fill()
        z, row, group, start, tempo = (dim_zero_cat(getattr(self, name)) for name in Segments.FIELDS)
        order = torch.arange(len(row), device=row.device)
        for key in (start, row, tempo):
            order = order[key[order].argsort(stable=True)]
        row, start, tempo = row[order], start[order], tempo[order]
        new = torch.ones_like(row, dtype=torch.bool)
        new[1:] = (row[1:] != row[:-1]) | (start[1:] != start[:-1]) | (tempo[1:] != tempo[:-1])
        return Segments(z[order[new]], row[new], group[order[new]], start[new], tempo[new])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Join the states of all processes; one without segments sends empty tensors of the right shape."""
        self._fill()
        super().sync(*args, **kwargs)

    def _fill(self) -> None:
        wide = torch.empty(0, self.dim, device=self.device)
        whole, real = wide[:, 0].long() if self.dim else wide.sum(1).long(), wide.sum(1)
        empty = {"z": wide, "row": whole, "group": whole, "start": real, "tempo": real}
        for name, tensor in empty.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [tensor])
