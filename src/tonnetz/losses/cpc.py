"""Contrastive predictive coding: the frames to come are told apart from those of other excerpts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.losses.views import ViewLoss


class CPC(ViewLoss):
    """InfoNCE on frames (van den Oord, Li and Vinyals 2018, arXiv:1807.03748).

    A GRU reads the encoder's frames z; its state c_t, times a matrix for each k, is to tell z_{t+k} among the frames
    that other excerpts have at that time: cross-entropy of z_{t+k}^T W_k c_t, mean over k = 1 to ``steps``, times and
    excerpts. Excerpts of equal code (of one recording) are no negatives of each other. Uninformed among N: ln N.
    """

    frames = True

    def __init__(self, frame_dim: int, steps: int = 6, hidden: int = 256) -> None:
        """Values of a frame, how many frames ahead it predicts at most, and values of the GRU's state."""
        super().__init__()
        if steps < 1 or hidden < 1:
            raise UserError(f"loss.steps={steps} loss.hidden={hidden}: must be above 0")
        self.steps = steps
        self.context = nn.GRU(frame_dim, hidden, batch_first=True)
        self.predict = nn.ModuleList(nn.Linear(hidden, frame_dim, bias=False) for _ in range(steps))

    def compare(self, frames: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        """Scalar loss of frames (M, T, D) of excerpts with prefix mask (M, T), of recordings (M,)."""
        context, _ = self.context(frames)  # (M, T, H)
        own = torch.arange(len(code), device=code.device)  # (M,)
        kin = (code[:, None] == code) & (own[:, None] != own)  # (M, M) neither itself nor a stranger
        losses = []
        for ahead, predict in enumerate(self.predict, 1):
            guess, true = predict(context[:, :-ahead]), frames[:, ahead:]  # (M, T', D)
            score = torch.einsum("mtd,ntd->tmn", guess, true)  # (T', M, M)
            there = mask[:, ahead:].T  # (T', M): the frame ahead is one, and so all before it
            score = score.masked_fill(kin | ~there[:, None], -torch.inf)
            losses.append(F.cross_entropy(score[there], own.expand_as(there)[there]))
        return torch.stack(losses).mean()
