"""Prototypical loss that climbs a tree of classes, for any number of episodes at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError, suggest
from tonnetz.geometry import geometry
from tonnetz.losses.levels import Weighting, chosen_heights

AGGREGATES = ("leaf_mean", "recursive", "support_mean")


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
        aggregate: prototype of a node: ``leaf_mean`` over its classes, ``recursive`` over its children's prototypes,
            ``support_mean`` over all support clips under it.
        weighting, alpha, beta, normalized: see `tonnetz.losses.levels.Weighting`; ``multi_hot`` is one sigmoid a node,
            with a learned scale and bias (`bias`: where it starts; null has none, then no positive can be fit).
        smoothing: share of the target that goes to the other classes, falling with their height in the tree as
            exp(-height).
        curvature, clip: of hyperbolic space.
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
        weighting: str = "exp",
        alpha: float = 1.0,
        beta: float = 0.5,
        normalized: bool = False,
        bias: float | None = 0.0,
        smoothing: float = 0.0,
        curvature: float = 0.01,
        clip: float = 10.0,
    ) -> None:
        super().__init__()
        if aggregate not in AGGREGATES:
            raise UserError(f"loss.aggregate={aggregate}: is unknown{suggest(aggregate, AGGREGATES)}")
        if not 0 <= smoothing < 1:
            raise UserError(f"loss.smoothing={smoothing}: must be from 0 up, and below 1")
        start = scale if scale is not None else 10.0 if distance == "cosine" else 1.0
        if start <= 0:
            raise UserError(f"loss.scale={scale}: must be above 0")
        self.space = geometry(distance, curvature, clip)
        self.weighting = Weighting(weighting, alpha, beta, normalized)
        self.height, self.levels, self.aggregate, self.smoothing = height, levels, aggregate, smoothing
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
            leaf, present = self._leaves(points, shown)
            logits = -self.space.distance(self.space.place(query.float()), leaf) * self.log_scale[0].exp()
            return logits.masked_fill(~present[:, None], -torch.inf)

    def level_logits(self, support: Tensor, shown: Tensor, query: Tensor, paths: Tensor) -> Tensor:
        """Logits (E, L, M, C) over the nodes at every height of `paths`, in the slot of the node's first class."""
        with torch.autocast(support.device.type, enabled=False):
            heights = range(1, paths.shape[-1])
            prototypes, _, exists = self._prototypes(support.float(), shown, paths, heights)
            far = self._distances(self.space.place(query.float()), prototypes)
            return (-far * self.log_scale[0].exp()).masked_fill(~exists[:, :, None], -torch.inf)

    def _distances(self, points: Tensor, prototypes: Tensor) -> Tensor:
        """Distances (E, n, M, C) of points (E, M, D) and prototypes (E, n, C, D), in one go for all levels."""
        far = self.space.distance(points, prototypes.flatten(1, 2))  # (E, M, n C)
        return far.unflatten(2, prototypes.shape[1:3]).transpose(1, 2)

    def _scores(self, support: Tensor, shown: Tensor, query: Tensor, paths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (E, n, M, C), slot of each class's node (E, n, C), which slots hold a node (E, n, C)."""
        prototypes, slots, exists = self._prototypes(support, shown, paths, self.heights)
        points = self.space.place(query.flatten(1, 2))  # (E, M, D)
        far = self._distances(points, prototypes)
        return -far * self.log_scale.exp()[:, None, None], slots, exists

    def _prototypes(
        self, support: Tensor, shown: Tensor, paths: Tensor, heights: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prototypes (E, n, C, D) of the leaf and of `heights`, with slots and existence (E, n, C)."""
        points = self.space.place(support)
        leaf, present = self._leaves(points, shown)
        own = torch.arange(leaf.shape[1], device=leaf.device).expand(present.shape)
        found = [(leaf, own, present)]
        below, exists = leaf, present
        for height in range(1, max(heights, default=0) + 1):  # the levels of a tree, never its classes
            above, upper = slot_of(paths[..., height], present)
            if self.aggregate == "leaf_mean":
                prototypes = self.space.mean(_shares(above, present, upper), leaf)
            elif self.aggregate == "support_mean":
                clips = above.repeat_interleave(shown.shape[2], 1)
                prototypes = self.space.mean(_shares(clips, shown.flatten(1), upper), points.flatten(1, 2))
            else:
                prototypes = self.space.mean(_shares(above, exists, upper), below)
            below, exists = prototypes, upper  # a node stands in the slot of its first class
            if height in heights:
                found.append((prototypes, above, upper))
        prototypes, slots, exists = (torch.stack(values, 1) for values in zip(*found, strict=True))
        return prototypes, slots, exists

    def _leaves(self, points: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (E, C, D) of the points that exist, and whether a class has any (E, C)."""
        weight = shown.to(points.dtype) / shown.sum(2, keepdim=True).clamp(min=1)
        return self.space.mean(weight[:, :, None], points)[:, :, 0], shown.any(2)

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


def slot_of(nodes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Slot of each class's node: the first present class under the same node; which slots are such firsts.

    nodes, present, and both results are (E, C).
    """
    alike = (nodes[:, :, None] == nodes[:, None, :]) & present[:, None, :]  # (E, C, C)
    slot = alike.to(torch.uint8).argmax(2)
    return slot, present & (slot == torch.arange(nodes.shape[1], device=nodes.device))


def _shares(slot: Tensor, counted: Tensor, exists: Tensor) -> Tensor:
    """Weights (E, G, N): 1 / count of the members that `counted` (E, N) of each slot; zeros in slots without node."""
    member = F.one_hot(slot, exists.shape[1]).mT * counted[:, None]  # (E, G, N)
    return member / member.sum(2, keepdim=True).clamp(min=1)


def _tree_shares(paths: Tensor, present: Tensor) -> Tensor:
    """Target (E, C, C) of the other classes, as exp(-height of the common ancestor), rows summing to 1."""
    height = (paths[:, :, None] != paths[:, None]).sum(-1)  # (E, C, C): levels at which the two differ
    weight = torch.exp(-height.float()) * present[:, None]
    weight = weight * (1 - torch.eye(paths.shape[1], device=paths.device))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
