"""How examples become prototypes, and how far vectors are from them: with every example, and with each left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tonnetz.geometry import Flat, Hyperbolic, geometry
from tonnetz.heads import normalized


@dataclass(frozen=True)
class Measure:
    """A prototype is the mean of its examples; a score is minus `scale` times the distance to it.

    The defaults are SimpleShot's (Wang et al. 2019): squared distances of vectors of unit length. Computes in float64.

    Args:
        distance: euclidean | squared | cosine | hyperbolic, see `tonnetz.geometry`.
        scale: of the distances in scores, whose softmax is a probability.
        normalize: none, or l2 for vectors of unit length.
        curvature, clip: of hyperbolic space.
    """

    distance: str = "squared"
    scale: float = 10.0
    normalize: str = "l2"
    curvature: float = 0.01
    clip: float = 10.0

    @classmethod
    def of(cls, task: Any) -> Measure:
        """The measure that a few-shot task was trained with; SimpleShot's for other tasks."""
        if not hasattr(task, "own"):
            return cls()
        space, scale = task.criterion.space, float(task.criterion.log_scale[0].exp())
        if isinstance(space, Hyperbolic):
            return cls("hyperbolic", scale, "none", space.c, space.clip)
        return cls(space.kind, scale, "none")

    @property
    def space(self) -> Flat | Hyperbolic:
        """Where prototypes live."""
        return geometry(self.distance, self.curvature, self.clip)

    def points(self, z: Tensor) -> Tensor:
        """Vectors (N, D) as points of the space."""
        return self.space.place(normalized(z.double(), self.normalize))

    def prototypes(self, points: Tensor, member: Tensor) -> Tensor:
        """Means (K, D) of the points (N, D) that are members (K, N); of none, the origin."""
        weight = member.to(points)
        return self.space.mean(weight / weight.sum(1, keepdim=True).clamp(min=1), points)

    def away(self, points: Tensor, prototypes: Tensor) -> Tensor:
        """Distances (M, K) of points (M, D) and prototypes (K, D)."""
        return self.space.distance(points, prototypes)

    def left_out(self, points: Tensor, code: Tensor, classes: int, asked: Tensor, row: Tensor) -> Tensor:
        """Distances (M, classes) of `asked` (M, D), parts of the examples `row` (M,), from prototypes without these.

        The examples are points (N, D) of classes `code` (N,). Infinite to a class whose only example is left out.
        """
        member = code == torch.arange(classes)[:, None]  # (K, N)
        away = self.away(asked, self.prototypes(points, member))
        others = member[code] & ~torch.eye(len(code), dtype=torch.bool)  # (N, N) the rest of each example's class
        rest = self.prototypes(points, others)[row]  # (M, D)
        own = self.space.distance(asked[:, None], rest[:, None])[:, 0]  # (M, 1)
        own = own.masked_fill(~others.any(1)[row, None], torch.inf)
        return away.scatter(1, code[row, None], own)
