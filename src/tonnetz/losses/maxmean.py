"""MaxMean prototypes: ByteCover3's losses on segments."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError
from tonnetz.losses.metric import MetricLoss, check_groups, check_positive, mean_of, pairs
from tonnetz.reductions import TINY, reduce


class MaxMean(MetricLoss):
    """Works as sets of prototypes, tracks as sets of segments (Du et al. 2023).

    The similarity S(a, b) is the mean over the segments of `a` of the largest cosine to one of `b`. The loss is
    cross-entropy of the logits e^t S(track, prototypes of a work), with a learnt t, plus `triplet` times the mean of
    relu((1 + margin) max S to another work - min S to a version), plus `alignment` times the mean of 1 - S over the
    pairs of versions. Another excerpt of the same recording is a version when `within_track`, else it is left out.

    Args:
        scale: of the logits, e^t, at the start.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        prototypes: int = 9,
        scale: float = 16.0,
        label_smoothing: float = 0.1,
        margin: float = 0.1,
        triplet: float = 1.0,
        alignment: float = 0.1,
        within_track: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        check_positive(prototypes=prototypes, scale=scale)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing: {label_smoothing} is outside [0, 1); 0 turns it off")
        self.label_smoothing, self.margin, self.triplet, self.alignment = label_smoothing, margin, triplet, alignment
        self.within_track = within_track
        self.prototypes = nn.Parameter(torch.randn(classes, prototypes, dim) / dim**0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def segments(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor) -> Tensor:
        """Scalar loss of z (B, S, D) with works (B,), tracks (B,) and valid segments (B, S)."""
        check_groups(group, len(self.prototypes))
        some = valid.any(1)  # (B,)
        z, group, row, valid = z[some], group[some], row[some], valid[some]
        if not len(z):
            return z.sum()
        z = F.normalize(z, dim=-1, eps=TINY)
        logits = self.log_scale.exp() * self._to_works(z, valid)  # (B, K)
        cost = F.cross_entropy(logits, group, label_smoothing=self.label_smoothing)
        s = self._to_tracks(z, valid)  # (B, B)
        positive, negative = pairs(group, row, self.within_track)
        return cost + self.triplet * self._triplet(s, positive, negative) + self.alignment * mean_of(1 - s, positive)

    def _to_works(self, z: Tensor, valid: Tensor) -> Tensor:
        """S (B, K) of tracks of unit vectors (B, S, D) to the prototypes of the works."""
        cosine = torch.einsum("bsd,kpd->bskp", z, F.normalize(self.prototypes, dim=-1, eps=TINY))
        best = cosine.amax(-1)  # (B, S, K)
        return (best * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)

    def _to_tracks(self, z: Tensor, valid: Tensor) -> Tensor:
        """S (B, B) of tracks of unit vectors (B, S, D) to each other."""
        d = 1 - torch.einsum("asd,btd->abst", z, z)
        return 1 - reduce(d, "maxmean", valid[:, None], valid[None])

    def _triplet(self, s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        used = positive.any(1) & negative.any(1)  # (B,)
        near = torch.where(used, s.masked_fill(~positive, torch.inf).amin(1), 0.0)  # without infinities
        far = torch.where(used, s.masked_fill(~negative, -torch.inf).amax(1), 0.0)
        return mean_of(((1 + self.margin) * far - near).relu(), used)
