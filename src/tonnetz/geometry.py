"""Where prototypes live: means and distances of embeddings in flat space, on the sphere, in the Poincare ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.errors import UserError, suggest

KINDS = ("euclidean", "squared", "cosine", "hyperbolic")
EDGE = 1e-5  # how near to the edge of the ball a point may lie
TINY = 1e-12


class Flat(nn.Module):
    """Arithmetic means; Euclidean, squared Euclidean or cosine distance."""

    def __init__(self, kind: str = "euclidean") -> None:
        super().__init__()
        self.kind = kind

    def place(self, z: Tensor) -> Tensor:
        """Embeddings (..., D) as points of the space."""
        return F.normalize(z, dim=-1, eps=1e-8) if self.kind == "cosine" else z

    def mean(self, weight: Tensor, points: Tensor) -> Tensor:
        """Weighted means (..., G, D) of points (..., N, D) with weights (..., G, N) whose rows sum to 1 (or 0)."""
        return weight @ points

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (..., M, G) of points a (..., M, D) and b (..., G, D)."""
        if self.kind == "cosine":
            return 1 - a @ F.normalize(b, dim=-1, eps=1e-8).mT
        return apart(a, b) if self.kind == "euclidean" else apart(a, b).square()


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (..., M, G) of a (..., M, D) and b (..., G, D).

    Not by |a|^2 - 2 a b + |b|^2: that cancels when embeddings lie far from the origin.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


class Hyperbolic(nn.Module):
    """The Poincare ball of curvature -c (Khrulkov et al. 2020): exponential map at 0, Einstein midpoints.

    Args:
        curvature: c.
        clip: longest Euclidean norm of an embedding before it is mapped.
    """

    def __init__(self, curvature: float = 0.01, clip: float = 10.0) -> None:
        super().__init__()
        if curvature <= 0 or clip <= 0:
            raise UserError(f"loss.curvature={curvature} loss.clip={clip}: must be above 0")
        self.c, self.clip = curvature, clip

    def place(self, z: Tensor) -> Tensor:
        """Embeddings (..., D) as points of the ball: tanh(sqrt(c) |z|) z / (sqrt(c) |z|)."""
        norm = z.norm(dim=-1, keepdim=True).clamp(min=1e-7)
        z = z * (self.clip / norm).clamp(max=1.0)
        norm = norm.clamp(max=self.clip)
        root = self.c**0.5
        return self._inside(torch.tanh(root * norm) * z / (root * norm))

    def _inside(self, points: Tensor) -> Tensor:
        limit = (1 - EDGE) / self.c**0.5
        norm = points.norm(dim=-1, keepdim=True).clamp(min=1e-7)
        return points * (limit / norm).clamp(max=1.0)

    def mean(self, weight: Tensor, points: Tensor) -> Tensor:
        """Einstein midpoints (..., G, D) of points (..., N, D) with weights (..., G, N), by Klein coordinates."""
        klein = 2 * points / (1 + self.c * points.square().sum(-1, keepdim=True))
        gamma = (1 - self.c * klein.square().sum(-1)).clamp(min=EDGE).rsqrt()  # (..., N) Lorentz factors
        share = weight * gamma[..., None, :]
        middle = share @ klein / share.sum(-1, keepdim=True).clamp(min=TINY)
        inside = (1 - self.c * middle.square().sum(-1, keepdim=True)).clamp(min=EDGE**2).sqrt()
        return middle / (1 + inside)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Geodesic distances (..., M, G) of a (..., M, D) and b (..., G, D), in the form without Moebius addition.

        (1 / sqrt c) arcosh(1 + 2 c |a - b|^2 / ((1 - c |a|^2) (1 - c |b|^2))), which equals
        (2 / sqrt c) artanh(sqrt c |(-a) (+) b|).
        """
        room = (1 - self.c * a.square().sum(-1))[..., :, None] * (1 - self.c * b.square().sum(-1))[..., None, :]
        x = 2 * self.c * apart(a, b).square() / room.clamp(min=TINY)  # arcosh(1 + x) = log1p(x + sqrt(x (x + 2)))
        return torch.log1p(x + (x * (x + 2)).clamp(min=TINY).sqrt()) / self.c**0.5


def geometry(kind: str, curvature: float = 0.01, clip: float = 10.0) -> Flat | Hyperbolic:
    """The space of a distance. Raises UserError for an unknown one."""
    if kind not in KINDS:
        raise UserError(f"loss.distance={kind}: is unknown{suggest(kind, KINDS)}")
    return Hyperbolic(curvature, clip) if kind == "hyperbolic" else Flat(kind)
