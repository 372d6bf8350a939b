"""Prototypical loss that climbs a tree of classes, for any number of episodes at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.geometry import geometry
from tonnetz.losses.aggregate import Aggregate, leaves
from tonnetz.losses.levels import Weighting, chosen_heights


class Prototypes(nn.Module):
    """Cross-entropy of queries over class prototypes (Snell et al. 2017), and over those of nodes above (Music Trees).

    A class's prototype is the mean of its support. At height h the prototype of a node is the mean over the classes of
    the episode that lie under it, and a query is to find the ancestor of its own class. Logits are minus distance times
    a scale. The loss of an episode is the mean over its queries at each level, the levels weighted; the loss of a
    batch is the mean over its episodes.

    Args:
        distance: euclidean (not squared, as Music Trees) | squared (Snell et al.) | cosine | hyperbolic.
        scale: of the distances; null takes 10 for cosine, else 1.
        learn_scale: learn it.
        scale_per_level: learn one for every level.
        height: so many of the highest levels count beside the leaf: 0 is a flat prototypical network.
        levels: leaf | all | heights counted from the leaf; null takes `height`.
        aggregate, power: what the prototype of a node is made of, see `tonnetz.losses.aggregate.Aggregate`.
        weighting, alpha, beta, normalized: see `tonnetz.losses.levels.Weighting`; ``multi_hot`` is one sigmoid a node,
            with a learned scale and bias (`bias`: where it starts; null has none, then no positive can be fit).
        smoothing: share of the target that goes to the other classes, falling with their height in the tree as
            exp(-height).
        curvature, clip: of hyperbolic space.
        dim: of the embeddings; only aggregate=learned needs it.
    """

    kind = "episodes"

    def __init__(
        self,
        distance: str = "euclidean",
        scale: float | None = None,
        learn_scale: bool = False,
        scale_per_level: bool = False,
        height: int = 1,
        levels: str | Sequence[int] | None = None,
        aggregate: str = "leaf_mean",
        power: float = 0.5,
        weighting: str = "exp",
        alpha: float = 1.0,
        beta: float = 0.5,
        normalized: bool = False,
        bias: float | None = 0.0,
        smoothing: float = 0.0,
        curvature: float = 0.01,
        clip: float = 10.0,
        dim: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise UserError(f"loss.smoothing={smoothing}: must be from 0 up, and below 1")
        start = scale if scale is not None else 10.0 if distance == "cosine" else 1.0
        if start <= 0:
            raise UserError(f"loss.scale={scale}: must be above 0")
        self.space = geometry(distance, curvature, clip)
        self.weighting = Weighting(weighting, alpha, beta, normalized)
        self.aggregate = Aggregate(aggregate, power, dim)
        self.height, self.levels, self.smoothing = height, levels, smoothing
        self.start, self.learned, self.per_level = start, learn_scale or scale_per_level, scale_per_level
        self.bias = None if bias is None or weighting != "multi_hot" else nn.Parameter(torch.tensor(float(bias)))
        self.heights: tuple[int, ...] = ()  # beside the leaf
        self.last: dict[str, Tensor] = {}  # the latest terms, for logging
        self.grow(1)

    def grow(self, depth: int) -> None:
        """Fit to a tree of so many levels, the classes' own included; 1 is no tree.

        Raises UserError for heights that it does not have.
        """
        self.heights = chosen_heights(self.levels, self.height, depth) if depth > 1 else ()
        count = len(self.heights) + 1
        self.weighting.grow(count)
        scale = torch.full((count if self.per_level else 1,), self.start).log()
        self.log_scale = nn.Parameter(scale, requires_grad=self.learned or self.bias is not None)

    def forward(self, support: Tensor, shown: Tensor, query: Tensor, asked: Tensor, paths: Tensor) -> Tensor:
        """Scalar loss of a batch of episodes.

        Args:
            support, shown: (E, C, S, D) embeddings and (E, C, S) which of them exist.
            query, asked: the same with Q.
            paths: (E, C, L) node ids of each class from itself upwards.
        """
        terms = self.terms(support, shown, query, asked, paths)  # (E, n)
        if terms.shape[1] > 1:
            names = [f"level{height}_loss" for height in (0, *self.heights)]
            self.last = dict(zip(names, terms.detach().mean(0), strict=True))
        if self.weighting.kind == "multi_hot":
            return terms[:, 0].mean()
        return self.weighting(terms).mean()

    def terms(self, support: Tensor, shown: Tensor, query: Tensor, asked: Tensor, paths: Tensor) -> Tensor:
        """Mean loss of the queries of each episode at each level, (E, n); of multi_hot one column."""
        with torch.autocast(support.device.type, enabled=False):
            logits, slots, exists = self._scores(support.float(), shown, query.float(), paths)
            ask = asked.flatten(1)  # (E, M)
            target = slots.repeat_interleave(query.shape[2], 2)  # (E, n, M)
            if self.weighting.kind == "multi_hot":
                return self._multi_hot(logits, target, exists, ask)[:, None]
            cost = self._cross_entropy(logits, target, exists, paths, query.shape[2])  # (E, n, M)
            cost = cost.masked_fill(~ask[:, None], 0.0)  # an absent class costs infinitely much
            return cost.sum(2) / ask.sum(1).clamp(min=1)[:, None]

    def leaf_logits(self, support: Tensor, shown: Tensor, query: Tensor) -> Tensor:
        """Logits (E, M, C) of queries (E, M, D) over the classes; -inf where a class has no support."""
        with torch.autocast(support.device.type, enabled=False):
            points = self.space.place(support.float())
            leaf, present = leaves(self.space, points, shown)
            logits = -self.space.distance(self.space.place(query.float()), leaf) * self.log_scale[0].exp()
            return logits.masked_fill(~present[:, None], -torch.inf)

    def level_logits(self, support: Tensor, shown: Tensor, query: Tensor, paths: Tensor) -> Tensor:
        """Logits (E, L, M, C) over the nodes at every height of `paths`, in the slot of the node's first class."""
        with torch.autocast(support.device.type, enabled=False):
            points, heights = self.space.place(support.float()), range(1, paths.shape[-1])
            prototypes, _, exists = self.aggregate(self.space, points, shown, paths, heights)
            far = self._distances(self.space.place(query.float()), prototypes)
            return (-far * self.log_scale[0].exp()).masked_fill(~exists[:, :, None], -torch.inf)

    def _distances(self, points: Tensor, prototypes: Tensor) -> Tensor:
        """Distances (E, n, M, C) of points (E, M, D) and prototypes (E, n, C, D), in one go for all levels."""
        far = self.space.distance(points, prototypes.flatten(1, 2))  # (E, M, n C)
        return far.unflatten(2, prototypes.shape[1:3]).transpose(1, 2)

    def _scores(self, support: Tensor, shown: Tensor, query: Tensor, paths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (E, n, M, C), slot of each class's node (E, n, C), which slots hold a node (E, n, C)."""
        prototypes, slots, exists = self.aggregate(self.space, self.space.place(support), shown, paths, self.heights)
        points = self.space.place(query.flatten(1, 2))  # (E, M, D)
        far = self._distances(points, prototypes)
        return -far * self.log_scale.exp()[:, None, None], slots, exists

    def _cross_entropy(self, logits: Tensor, target: Tensor, exists: Tensor, paths: Tensor, queries: int) -> Tensor:
        """Cost (E, n, M) of logits (E, n, M, C) against the target slot (E, n, M)."""
        logp = logits.masked_fill(~exists[:, :, None], -torch.inf).log_softmax(-1)
        cost = -logp.gather(3, target[..., None])[..., 0]
        if not self.smoothing:
            return cost
        share = _tree_shares(paths, exists[:, 0]).repeat_interleave(queries, 1)  # (E, M, C)
        others = -(share * logp[:, 0].masked_fill(~exists[:, 0, None], 0.0)).sum(-1)
        leaf = (1 - self.smoothing) * cost[:, 0] + self.smoothing * others
        return torch.cat([leaf[:, None], cost[:, 1:]], 1)

    def _multi_hot(self, logits: Tensor, target: Tensor, exists: Tensor, ask: Tensor) -> Tensor:
        """Binary cross-entropy (E,) over the nodes of all levels; every query has one positive at each."""
        if self.bias is not None:
            logits = logits + self.bias
        positive = F.one_hot(target, logits.shape[-1]).to(logits.dtype)
        cost = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
        counted = exists[:, :, None] & ask[:, None, :, None]
        return cost.masked_fill(~counted, 0.0).sum((1, 2, 3)) / counted.sum((1, 2, 3)).clamp(min=1)


def _tree_shares(paths: Tensor, present: Tensor) -> Tensor:
    """Target (E, C, C) of the other classes, as exp(-height of the common ancestor), rows summing to 1."""
    height = (paths[:, :, None] != paths[:, None]).sum(-1)  # (E, C, C): levels at which the two differ
    weight = torch.exp(-height.float()) * present[:, None]
    weight = weight * (1 - torch.eye(paths.shape[1], device=paths.device))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
