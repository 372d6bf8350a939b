"""What losses on two views of excerpts share: their shapes, who is kin to whom, gathering over processes."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tonnetz.errors import UserError, suggest

KIN = ("masked", "positive", "negative")


class ViewLoss(nn.Module):
    """A loss of ``task=contrastive``: two views of each of N excerpts should agree, and not all be the same.

    `forward` gets float32 vectors of all processes. `predicts`: the online vectors have gone through a predictor.
    `momentum`: first and last decay of the moving average of the network that makes the targets; null has no such
    network, the targets are then the projections without their gradient. `norm`: whether the projector of the
    method has batch normalisation. `frames`: it does not compare vectors of views at all but the frames of every
    excerpt, by `compare(frames (M, T, D), mask (M, T), code (M,))`, and looks `steps` of them ahead. `others`: it
    says nothing of an excerpt that is alone in its batch.
    """

    kind = "views"
    predicts: bool = False
    frames: bool = False
    others: bool = False
    norm: bool = False
    momentum: tuple[float, float] | None = None

    def __init__(self) -> None:
        super().__init__()  # nn.Module's own signature takes anything

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of views `online` (2, N, D), `target` (2, N, D) without gradient, and recordings (N,)."""
        raise TypeError(f"{type(self).__name__} defines no forward")


class PairLoss(ViewLoss):
    """A view is compared with the other view of its excerpt and with all other views.

    Args:
        kin: what two excerpts of equal code (of one recording, artist, ...) are to each other: ``masked`` leaves the
            pair out, ``positive`` draws them together, ``negative`` ignores that they are kin.
    """

    others = True

    def __init__(self, kin: str = "masked") -> None:
        super().__init__()
        if kin not in KIN:
            raise UserError(f"loss.kin={kin}{suggest(kin, KIN)}")
        self.kin = kin

    def relation(self, anchor: Tensor, other: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
        """Positive and negative pairs (N, M) of codes (N,) and (M,); `same` (N, M) are views of one excerpt."""
        kin = anchor[:, None] == other
        return (same | kin if self.kin == "positive" else same), ~(same if self.kin == "negative" else same | kin)


def check_momentum(momentum: Any) -> tuple[float, float]:
    """First and last decay of a moving average. Raises UserError unless both are in [0, 1]."""
    pair = tuple(momentum)
    if len(pair) != 2 or not all(0 <= value <= 1 for value in pair):
        raise UserError(f"loss.momentum={list(pair)}: need its first and its last value, both from 0 to 1")
    return pair[0], pair[1]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gathered(x: Tensor) -> Tensor:
    """Rows (N, ...) of all processes in the order of their ranks (W N, ...), with gradients; x itself when alone.

    Every process holds the same number of rows. If all of them compute the same loss of the result, the mean of
    their gradients, as DDP takes it, is the gradient of that loss.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    return cast(Tensor, _Gather.apply(x))
