"""Losses of pytorch-metric-learning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tonnetz.errors import UserError, suggest
from tonnetz.losses.metric import MetricLoss, check_groups, pairs

STEEP = 1 - 1e-6  # cosine up to which its angle has a slope of a sensible size


class Library(MetricLoss):
    """A loss of pytorch-metric-learning by its class `name`, with its own keywords in `options`.

    Losses with class weights learn one or some of each work. Losses of pairs take another segment of the same track
    as a positive when `within_track`, else they leave it out.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        dim: int | None = None,
        classes: int | None = None,
        within_track: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        from pytorch_metric_learning import losses
        from pytorch_metric_learning.losses.generic_pair_loss import GenericPairLoss

        kind = _find(losses, name)
        takes = _keywords(kind)
        facts = {"embedding_size": dim, "num_classes": classes} if "num_classes" in takes else {}
        if any(value is None for value in facts.values()):
            raise UserError(f"loss: {name} has weights of classes; give dim and classes")
        for word in set(options or ()) - takes:
            raise UserError(f"loss.options.{word}: {name} takes no '{word}'{suggest(word, takes)}")
        self.classes = classes if facts else None
        self.inner: nn.Module = kind(**facts, **(options or {}))
        self.paired, self.within_track = issubclass(kind, GenericPairLoss), within_track
        if issubclass(kind, losses.LargeMarginSoftmaxLoss):
            self.inner.distance.register_forward_hook(_from_poles)

    def compare(self, z: Tensor, group: Tensor, row: Tensor) -> Tensor:
        """Scalar loss of vectors z (N, D) with works (N,) and tracks (N,)."""
        if self.classes is not None:
            check_groups(group, self.classes)
        if not self.paired:
            return self.inner(z, group)
        positive, negative = pairs(group, row, self.within_track)
        return self.inner(z, group, (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True)))


def _find(losses: Any, name: str) -> Any:
    kind = getattr(losses, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, losses.BaseMetricLossFunction)):
        known = [key for key in dir(losses) if key.endswith("Loss") and not key.startswith("Base")]
        raise UserError(f"loss.name: pytorch-metric-learning has no loss '{name}'{suggest(name, known)}")
    return kind


def _keywords(kind: type) -> set[str]:
    """Keywords that a class and its bases take."""
    names = {name for base in inspect.getmro(kind)[:-1] for name in inspect.signature(base).parameters}
    return names - {"args", "kwargs"}


def _from_poles(module: nn.Module, inputs: Any, cosine: Tensor) -> Tensor:
    """Keep cosines away from 1 and -1, where the angle has no slope."""
    return cosine.clamp(-STEEP, STEEP)
