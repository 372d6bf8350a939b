"""What every augmentation shares: drawn per example, off in eval mode, skipped with probability 1 - p."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tonnetz.errors import UserError

Batch = dict[str, Any]


class Augmentation(nn.Module):
    """Change ``batch[key]`` of each example with probability ``p``, with parameters of its own.

    A subclass writes ``draw`` (all the randomness, from torch's global generator on the tensor's device) and
    ``transform`` (deterministic). ``lengths`` in the batch stay what they are unless it writes ``measure``; a
    class with ``uses_lengths`` gets them as a parameter of ``transform``, in the unit of the last axis. One with
    ``decibels`` has numbers that are: features must be in decibels as well.
    """

    key: str = "audio"
    uses_lengths: bool = False
    decibels: bool = False

    def __init__(self, p: float = 1.0, sample_rate: int = 16000) -> None:
        """Probability per example and sample rate in Hz; raises UserError for p outside 0 to 1."""
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise UserError(f"augment {type(self).__name__}.p: {p} is no probability; choose 0 to 1")
        self.p = p
        self.sample_rate = sample_rate

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Parameters for every example of x (B, ...): tensors whose first dimension is B."""
        return {}

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, ...) -> changed x of the same shape."""
        raise TypeError(f"{type(self).__name__} defines no transform")

    def measure(self, lengths: Tensor, size: int, **params: Tensor) -> Tensor:
        """Valid lengths (B,) after the change; ``size`` is the most there can be, in their unit."""
        return lengths

    def forward(self, batch: Batch) -> Batch:
        """Batch with ``key`` -> new batch; the same one in eval mode."""
        if not self.training:
            return batch
        x = batch[self.key]
        with torch.autocast(x.device.type, enabled=False):
            params = self.draw(x)
            rows = (torch.rand(len(x), device=x.device) < self.p).nonzero().squeeze(1)  # (R,)
            if len(rows) == 0:
                return dict(batch)
            return {**batch, **self._change(batch, rows, {k: v[rows] for k, v in params.items()})}

    def _change(self, batch: Batch, rows: Tensor, params: dict[str, Tensor]) -> Batch:
        """The keys that change, with only ``rows`` (R,) computed."""
        x, size, lengths = batch[self.key], batch[self.key].shape[-1], batch.get("lengths")
        changed: Batch = {}
        if lengths is not None:
            # Lengths beside features may count samples or frames: the longest of the batch bounds both.
            most = size if self.key == "audio" else int(lengths.max())
            changed["lengths"] = lengths.index_copy(0, rows, self.measure(lengths[rows], most, **params))
        if self.uses_lengths:
            full = torch.full((len(rows),), size, device=x.device)
            params["lengths"] = full if lengths is None else lengths[rows].clamp(1, max(size, 1))
        y = self.transform(x.index_select(0, rows), **params).to(x.dtype)
        changed[self.key] = y if len(rows) == len(x) else x.index_copy(0, rows, y)
        return changed


class Augment(nn.Module):
    """Two chains in the order they are written: on the waveform and on the features; either may be empty or
    null.
    """

    def __init__(
        self,
        wave: Mapping[str, Augmentation] | None = None,
        features: Mapping[str, Augmentation] | None = None,
    ) -> None:
        """Named augmentations of ``audio`` and of ``features``; UserError for one in the wrong chain."""
        super().__init__()
        for chain, members, key in (("wave", wave, "audio"), ("features", features, "features")):
            wrong = [name for name, member in (members or {}).items() if member.key != key]
            if wrong:
                raise UserError(f"augment.{chain}.{wrong[0]}: does not work on {key!r}; move it to the other chain")
        self.wave_chain = nn.ModuleDict(dict(wave or {}))
        self.features_chain = nn.ModuleDict(dict(features or {}))

    def wave(self, batch: Batch) -> Batch:
        """Batch with ``audio`` (B, 1, N) through the waveform chain."""
        for member in self.wave_chain.values():
            batch = member(batch)
        return batch

    def features(self, batch: Batch) -> Batch:
        """Batch with ``features`` (B, C, F, T) through the spectral chain."""
        for member in self.features_chain.values():
            batch = member(batch)
        return batch


def uniform(x: Tensor, low: float, high: float, *shape: int) -> Tensor:
    """One draw from [low, high) for each example of x, (B, *shape) float32."""
    return low + (high - low) * torch.rand(len(x), *shape, device=x.device)


def check_order(owner: Augmentation, low: float, high: float, keys: str = "low, high") -> None:
    """Raise UserError unless low <= high."""
    if low > high:
        raise UserError(f"augment {type(owner).__name__}.{keys}: {low} is above {high}; swap them")
