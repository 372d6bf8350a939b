"""Within-class whitening: directions in which clips of one class differ count less (WCCN, Hatch et al. 2006)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError

LENGTH = 10**0.5  # of whitened vectors: squared distances are those of cosines at a scale of 20


class Whitening(nn.Module):
    """Linear map learned in closed form from training classes; the identity until it is fitted.

    A new class varies from clip to clip much as the known ones do: with pitch, loudness, articulation. After the map
    such variation has equal variance in every direction, so that the distance of two clips tells classes apart.
    Whitened vectors get one length.

    Args:
        dim: of the vectors.
        shrinkage: share of the diagonal in the within-class covariance, in (0, 1]; null fits nothing.
    """

    mean: Tensor
    matrix: Tensor
    fitted: Tensor

    def __init__(self, dim: int, shrinkage: float | None = None) -> None:
        super().__init__()
        if shrinkage is not None and not 0 < shrinkage <= 1:
            raise UserError(f"task.whiten={shrinkage}: must be above 0 and at most 1, or null for none")
        self.shrinkage = shrinkage
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim if shrinkage is not None else 0))
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, z: Tensor) -> Tensor:
        """Vectors (..., D) to whitened ones of equal length."""
        return self.plain()(z)

    def plain(self) -> nn.Module:
        """The map as it is now, without a question in it."""
        if self.shrinkage is None or not self.fitted:
            return nn.Identity()
        return White(self.mean, self.matrix)

    @torch.no_grad()
    def fit(self, z: Tensor, codes: Tensor) -> None:
        """Learn from vectors z (N, D) with class codes (N,); at least two clips of a class are needed."""
        if self.shrinkage is None:
            return
        matrix = whitening_matrix(z.double(), codes, self.shrinkage)
        self.mean.copy_(z.double().mean(0))
        self.matrix.copy_(matrix)
        self.fitted.fill_(True)


class White(nn.Module):
    """Vectors (..., D) minus a mean, through a matrix, to one length."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Whitened vectors of equal length."""
        return LENGTH * nn.functional.normalize((z.float() - self.mean) @ self.matrix.T, dim=-1)


def whitening_matrix(z: Tensor, codes: Tensor, shrinkage: float) -> Tensor:
    """Matrix (D, D) that makes the within-class covariance of z (N, D) the identity, up to shrinkage.

    Values are standardised first. The covariance S becomes (1 - a) S + a mean(diag S) I, and the map its symmetric
    inverse square root. Raises UserError when no class has two clips.
    """
    _, place, counts = codes.unique(return_inverse=True, return_counts=True)
    if int(counts.max()) < 2:
        raise UserError("task.whiten: no training class has two clips to learn from; take task.whiten=null")
    spread = z.std(0).clamp(min=1e-6)
    scaled = (z - z.mean(0)) / spread
    means = z.new_zeros(len(counts), z.shape[1]).index_add(0, place, scaled) / counts[:, None]
    rest = scaled - means[place]  # (N, D)
    within = rest.T @ rest / len(rest)
    level = within.diagonal().mean()
    within = (1 - shrinkage) * within + shrinkage * level * torch.eye(len(within), dtype=z.dtype, device=z.device)
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ torch.diag(values.clamp(min=1e-12).rsqrt()) @ vectors.T
    return root / spread
