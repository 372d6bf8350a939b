"""Poolings over time: frame embeddings (B, T, D) in, one vector (B, D_out) out; padded frames never count."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError
from tonnetz.models.parts import Power


class Mean(nn.Module):
    """Average of the valid frames; zeros when there is none."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        return _average(h, mask)


def _average(h: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (B, D) of the valid frames of h (B, T, D)."""
    if mask is None:
        return h.mean(1)
    total = h.masked_fill(~mask[..., None], 0.0).sum(1)  # (B, D)
    return total / mask.sum(1, keepdim=True).clamp(min=1)  # (B, D)


class Max(nn.Module):
    """Maximum of the valid frames; zeros when there is none."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        if mask is None:
            return h.amax(1)
        top = h.masked_fill(~mask[..., None], torch.finfo(h.dtype).min).amax(1)  # (B, D)
        return top.masked_fill(~mask.any(1, keepdim=True), 0.0)  # (B, D)


class GeM(nn.Module):
    """Generalised mean (mean of h^p)^(1/p) with a learned p >= 1 (Radenovic et al., 2018, arXiv:1711.02512).

    Values below ``eps`` are raised to it, so it suits non-negative embeddings. ``p`` is the start value.
    """

    def __init__(self, dim: int, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.out_dim, self.eps = dim, eps
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        return _power_mean(h, self.p.float().clamp(min=1.0), self.eps, mask)  # (B, D)


def _power_mean(h: Tensor, p: Tensor, eps: float, mask: Tensor | None) -> Tensor:
    """Return (mean over the valid frames of max(h, eps)^p)^(1/p), (B, D), of h (B, T, D)."""
    power = _average(h.float().clamp(min=eps).pow(p), mask)  # (B, D)
    return power.clamp(min=torch.finfo(torch.float32).tiny).pow(1 / p)  # (B, D)


class SoftplusGeM(nn.Module):
    """:class:`GeM` with the exponent 1 + softplus of a learned number, as in CLEWS; ``p`` is its start, above 1."""

    def __init__(self, dim: int, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.out_dim, self.eps = dim, eps
        self.power = Power(p)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        return _power_mean(h, self.power(), self.eps, mask)  # (B, D)


class Softmax(nn.Module):
    """Sum weighted by the softmax over time of h / ``temperature``, each dimension for itself: a soft maximum."""

    def __init__(self, dim: int, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"pooling.temperature={temperature}: must be above 0; near 0 is max, large is mean")
        self.out_dim, self.temperature = dim, temperature

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        return _weighted(h.float(), _softmax(h / self.temperature, mask), mask)  # (B, D)


class AutoPool(nn.Module):
    """:class:`Softmax` with a learned inverse temperature a dimension, 0 = mean (McFee et al., 2018, arXiv:1804.10070).

    ``alpha`` is its start value.
    """

    def __init__(self, dim: int, alpha: float = 1.0) -> None:
        super().__init__()
        self.out_dim = dim
        self.alpha = nn.Parameter(torch.full((dim,), float(alpha)))

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        h = h.float() if mask is None else h.float().masked_fill(~mask[..., None], 0.0)  # (B, T, D)
        return _weighted(h, _softmax(h * self.alpha, mask), mask)  # (B, D)


class MeanStd(nn.Module):
    """Average and standard deviation of the valid frames, side by side; zeros when there is none."""

    eps = 1e-12

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = 2 * dim

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, 2 D)."""
        h = h.float()
        mean = _average(h, mask)  # (B, D)
        spread = _average((h - mean[:, None]).square(), mask).clamp(min=self.eps).sqrt()  # (B, D)
        some = 1.0 if mask is None else mask.any(1, keepdim=True)  # (B, 1)
        return torch.cat([mean, spread * some], 1)  # (B, 2 D)


class Attention(nn.Module):
    """Weighted sum, softmax over time of w2 . tanh(W1 h + b1) / sqrt(hidden); ``hidden`` None means dim."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        self.out_dim = dim
        self.hidden = nn.Linear(dim, hidden or dim)
        self.score = nn.Linear(hidden or dim, 1, bias=False)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D)."""
        score = self.score(torch.tanh(self.hidden(h))) / math.sqrt(self.hidden.out_features)  # (B, T, 1)
        return _weighted(h.float(), _softmax(score, mask), mask)  # (B, D)


def _softmax(score: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax over the valid frames of score (B, T, D); all zeros where no frame is valid."""
    score = score.float()
    if mask is None:
        return score.softmax(1)
    valid = mask[..., None]  # (B, T, 1)
    return score.masked_fill(~valid, torch.finfo(score.dtype).min).softmax(1) * valid  # (B, T, D)


def _weighted(h: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """Return the sum (B, D) of h (B, T, D) times weight (B, T, D or 1), whatever padded frames hold."""
    h = h if mask is None else h.masked_fill(~mask[..., None], 0.0)
    return (h * weight).sum(1)


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling with channel-wise attention and context (Okabe et al., 2018; ECAPA-TDNN).

    e = W2 tanh(W1 [h; mu; sigma] + b1) + b2, softmax over time per channel, then W3 of the weighted mean and
    standard deviation. ``embed_dim`` None means dim. 98,560 parameters for dim = embed_dim = 128.
    """

    eps = 1e-12

    def __init__(self, dim: int, embed_dim: int | None = None) -> None:
        super().__init__()
        self.out_dim = embed_dim or dim
        self.hidden = nn.Linear(3 * dim, dim)
        self.score = nn.Linear(dim, dim)
        self.output = nn.Linear(2 * dim, self.out_dim, bias=False)
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.xavier_uniform_(self.score.weight)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T) to (B, D_out)."""
        h = h.float() if mask is None else h.float().masked_fill(~mask[..., None], 0.0)  # (B, T, D)
        plain = h.new_ones(h.shape[:2])[..., None] if mask is None else mask[..., None].float()  # (B, T, 1)
        context = self._statistics(h, plain / plain.sum(1, keepdim=True).clamp(min=1))  # (B, 2D)
        context = context[:, None].expand(-1, h.shape[1], -1)  # (B, T, 2D)
        score = self.score(torch.tanh(self.hidden(torch.cat([h, context], -1))))  # (B, T, D)
        return self.output(self._statistics(h, _softmax(score, mask)))  # (B, D_out)

    def _statistics(self, h: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted mean and standard deviation (B, 2D) of h (B, T, D)."""
        mean = (h * weight).sum(1)  # (B, D)
        variance = ((h - mean[:, None]).square() * weight).sum(1)  # (B, D)
        return torch.cat([mean, variance.clamp(min=self.eps).sqrt()], -1)  # (B, 2D)


class Concat(nn.Module):
    """The frames of a segment one after the other, (B, T, D) to (B, frames x D); other numbers are interpolated."""

    def __init__(self, dim: int, frames: int = 8) -> None:
        super().__init__()
        self.frames, self.out_dim = frames, dim * frames

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool h (B, T, D) with mask (B, T), whose padding counts as zeros, to (B, frames x D)."""
        if mask is not None:
            h = h.masked_fill(~mask[..., None], 0.0)
        if h.shape[1] != self.frames:
            h = nn.functional.interpolate(h.mT, self.frames, mode="linear").mT  # (B, frames, D)
        return h.flatten(1)
