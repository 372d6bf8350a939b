"""Contrast between the moments of two versions that match best, whatever their keys."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tonnetz.losses.metric import MetricLoss, check_positive
from tonnetz.reductions import TINY
from tonnetz.transposition import PITCHES, best_turn, turned


class BestMatches(MetricLoss):
    """NT-Xent on the best mutual matches between the segments of two versions.

    Nobody says which moments of two versions correspond, and parts may be missing. So of each ordered pair of tracks
    of a work, the `matches` segments are taken whose nearest neighbour in the other track is mutual and nearest; each
    costs log(1 + sum over the segments of other works of exp((s_neg - s_pos) / temperature)). With `pitches` = 12
    (vectors with the pitch class innermost) a pair of tracks is compared in the transposition in which they match
    best, and negatives in theirs, as retrieval will do.

    Args:
        stride: only every so many segments take part.
        within_track: whether two excerpts of one recording (at other starts, tempi, keys) are a pair, too.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        matches: int = 12,
        stride: int = 2,
        pitches: int = 0,
        within_track: bool = True,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        check_positive(temperature=temperature, matches=matches, stride=stride)
        self.temperature, self.matches, self.stride = temperature, matches, stride
        self.within_track = within_track
        self.turns = PITCHES if pitches == PITCHES else 1

    def segments(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor) -> Tensor:
        """Scalar loss of z (B, S, D) with works (B,), tracks (B,) and valid segments (B, S)."""
        z, valid = z[:, :: self.stride], valid[:, :: self.stride]
        first, second = self._pairs(group, row)
        if not len(first):
            return z.sum() * 0.0
        score = self._similarities(z)  # (turns, B, S, B, S)
        negative = valid & (group >= 0)[:, None]  # (B, S)
        other = (group[:, None] != group)[:, None, :, None] & negative  # (B, 1, B, S)
        rest = score.amax(0).masked_fill(~other, -torch.inf).flatten(2).logsumexp(2)  # (B, S)
        pair = score[:, first, :, second]  # (P, turns, S, S)
        pair = pair.masked_fill(~(valid[first][:, None, :, None] & valid[second][:, None, None]), -torch.inf)
        key = best_turn(pair.detach().amax(3).movedim(1, 0))  # (P,)
        pair = pair[torch.arange(len(pair)), key]  # (P, S, S) in the best transposition
        near, column = pair.max(2)  # (P, S)
        chosen, usable = self._mutual(pair.detach(), near.detach(), column)
        cost = F.softplus(rest[first].gather(1, chosen) - near.gather(1, chosen))  # (P, matches)
        usable &= rest[first].gather(1, chosen) != -torch.inf  # without rivals; NaN stays, so that the loss tells of it
        return cost.masked_fill(~usable, 0.0).sum() / usable.sum().clamp(min=1)

    def _pairs(self, group: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Ordered pairs of different excerpts of a work, of one recording too when `within_track`."""
        same = (group[:, None] == group) & (group >= 0)[:, None]
        same &= ~torch.eye(len(group), dtype=torch.bool, device=group.device)
        if not self.within_track:
            same &= row[:, None] != row
        first, second = same.nonzero(as_tuple=True)
        return first, second

    def _similarities(self, z: Tensor) -> Tensor:
        """Cosines over temperature of all segments in all transpositions of one side: (turns, B, S, B, S)."""
        unit = F.normalize(z.flatten(0, 1), dim=-1, eps=TINY)  # (B S, D)
        return (turned(unit, self.turns) @ unit.T).unflatten(2, z.shape[:2]).unflatten(
            1, z.shape[:2]
        ) / self.temperature

    def _mutual(self, pair: Tensor, near: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (P, matches) of the best matches, mutual ones first, and which of them exist."""
        mutual = near >= pair.amax(1).gather(1, column)
        rank = near.clamp(min=-1e4) - (~mutual) * 1e3
        chosen = rank.topk(min(self.matches, rank.shape[1]), 1).indices
        return chosen, near.gather(1, chosen) != -torch.inf  # what padding makes; NaN stays
