"""Momentum contrast: negatives come from a queue of earlier vectors, so their number does not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.losses.contrastive import nt_xent
from tonnetz.losses.metric import check_positive
from tonnetz.losses.views import PairLoss, check_momentum
from tonnetz.reductions import TINY


class MoCo(PairLoss):
    """NT-Xent of each view against the target of the other view, among a queue of targets (He et al. 2020).

    Both views ask, and both targets of a training batch enter the queue, in place of the oldest. It starts with
    random directions.

    Args:
        dim: size of the vectors.
        temperature: divides the cosines.
        queue: targets that are kept.
        momentum: first and last decay of the moving average that makes the targets.
        kin: see `PairLoss`; the queue remembers the codes.
    """

    others = False
    queue: Tensor
    codes: Tensor
    place: Tensor

    def __init__(
        self,
        dim: int,
        temperature: float = 0.2,
        queue: int = 4096,
        momentum: Sequence[float] = (0.999, 0.999),
        kin: str = "masked",
    ) -> None:
        super().__init__(kin)
        check_positive(temperature=temperature)
        if queue < 1:
            raise UserError(f"loss.queue={queue}: must be at least 1")
        self.temperature, self.momentum = temperature, check_momentum(momentum)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=-1))
        self.register_buffer("codes", torch.full((queue,), -1))  # of nobody
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def forward(self, online: Tensor, target: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of views (2, N, D) against targets (2, N, D) of excerpts of recordings (N,)."""
        query, key = F.normalize(online, dim=-1, eps=TINY), F.normalize(target, dim=-1, eps=TINY)
        near = (query * key.flip(0)).sum(-1).view(-1, 1)  # (2N, 1)
        far = query.flatten(0, 1) @ self.queue.clone().T  # (2N, Q)
        score = torch.cat([near, far], 1) / self.temperature
        strange = torch.zeros(len(score), len(self.codes), dtype=torch.bool, device=code.device)
        positive, negative = self.relation(code.repeat(2), self.codes, strange)
        own = torch.ones_like(positive[:, :1])
        loss = nt_xent(score, torch.cat([own, positive], 1), torch.cat([~own, negative], 1))
        if self.training:
            self.enter(key.flatten(0, 1), code.repeat(2))
        return loss

    @torch.no_grad()
    def enter(self, key: Tensor, code: Tensor) -> None:
        """Put keys (M, D) and their codes (M,) in the place of the oldest; of more than fit, the last."""
        size = len(self.queue)
        key, code = key[-size:].detach(), code[-size:]
        slots = (self.place + torch.arange(len(key), device=key.device)) % size
        self.queue[slots], self.codes[slots] = key, code
        self.place.copy_((self.place + len(key)) % size)
