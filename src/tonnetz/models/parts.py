"""Parts that several convolutional networks share: masked instance and batch norm, poolings over frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError, suggest

FREQUENCY = ("gem", "max", "mean")


class InstanceNorm(nn.Module):
    """Every channel of every example to mean 0 and variance 1 over its bins and valid frames, then gain and bias."""

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, F, T), whose frames outside keep (B, 1, 1, T) of ones and zeros are zeros."""
        h = x.float()
        if keep is None:
            variance, mean = torch.var_mean(h, (2, 3), correction=0, keepdim=True)  # (B, C, 1, 1) each
        else:
            keep = keep.float()
            count = h.shape[2] * keep.sum(3, keepdim=True).clamp(min=1)  # (B, 1, 1, 1)
            mean = h.sum((2, 3), keepdim=True) / count  # (B, C, 1, 1)
            variance = ((h - mean) * keep).square().sum((2, 3), keepdim=True) / count  # (B, C, 1, 1)
        scale = self.weight[:, None, None] * (variance + self.eps).rsqrt()  # (B, C, 1, 1)
        return ((h - mean) * scale + self.bias[:, None, None]).to(x.dtype)  # (B, C, F, T)


class IBN(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the rest (Pan et al., 2018, arXiv:1807.09441)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = channels // 2
        self.instance_norm = InstanceNorm(self.first)
        self.batch_norm = nn.BatchNorm2d(channels - self.first)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, F, T), whose frames outside keep (B, 1, 1, T) are zeros."""
        first, rest = x[:, : self.first], x[:, self.first :]
        return torch.cat([self.instance_norm(first, keep), self.batch_norm(rest).to(first.dtype)], 1)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the signature of :class:`IBN`; padded frames count as zeros."""

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, F, T)."""
        return super().forward(x)


def make_norm(channels: int, ibn: bool) -> nn.Module:
    """Return :class:`IBN` or :class:`BatchNorm` for so many channels."""
    return IBN(channels) if ibn else BatchNorm(channels)


def clear(h: Tensor, keep: Tensor | None) -> Tensor:
    """Set frames of h (B, C, F, T) outside keep (B, 1, 1, T) to zero."""
    return h if keep is None else h * keep


class Power(nn.Module):
    """The exponent of a generalised mean, 1 + softplus of a free number: above 1 whatever is learned."""

    def __init__(self, start: float = 3.0) -> None:
        super().__init__()
        if start <= 1:
            raise UserError(f"pooling.p={start}: 1 + softplus is above 1; choose a larger start, for example 3")
        self.free = nn.Parameter(torch.tensor(math.log(math.expm1(start - 1))))

    def forward(self) -> Tensor:
        """Return the exponent, a scalar."""
        return 1 + functional.softplus(self.free.float())


class FrequencyPool(nn.Module):
    """Join the bins of every frame, (B, C, F, T) to (B, T, C): ``mean``, ``max``, or ``gem`` with a learned exponent.

    GeM over bins and then over frames with one exponent equals GeM over both, as ByteCover and CLEWS do it.
    """

    eps = 1e-6

    def __init__(self, how: str) -> None:
        super().__init__()
        if how not in FREQUENCY:
            raise UserError(f"model.frequency={how}: unknown pooling over frequency{suggest(how, FREQUENCY)}")
        self.how = how
        self.power = Power() if how == "gem" else None

    def forward(self, h: Tensor) -> Tensor:
        """Pool non-negative h (B, C, F, T) to (B, T, C)."""
        if self.how == "max":
            return h.amax(2).transpose(1, 2)
        if self.power is None:
            return h.mean(2).transpose(1, 2)
        p = self.power()
        return h.float().clamp(min=self.eps).pow(p).mean(2).pow(1 / p).transpose(1, 2)  # (B, T, C)


def initialise(module: nn.Module) -> None:
    """Draw all 2-D convolutions so that layers with ReLU keep the variance (He et al., 2015, arXiv:1502.01852)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
