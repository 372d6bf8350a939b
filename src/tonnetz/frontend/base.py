"""What every front-end shares: float32 outside autocast, the frame count, mean-pooling and the fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonnetz.errors import UserError

CACHED = 2**17  # samples at a time of front-ends by STFT: 2.5 times as fast as 600 seconds at once


class Frontend(nn.Module):
    """Audio (B, C, N) in [-1, 1] -> features (B, C', F, T) float32, T = N // hop + 1 centred frames.

    With ``mean_size`` above 1 consecutive groups of that many frames become their mean and the remainder is
    dropped (a signal too short for one group gives one frame); ``hop`` then is samples per output frame,
    ``raw_hop`` samples per frame before. ``floor`` is the value that fills up short crops of stored features,
    None for the crop's own minimum. ``decibels``: the values are; some networks and augmentations want that.
    ``bins_per_octave``: of bins that are pitches.

    ``compute`` sees each example alone: no number may depend on the others of the batch.

    A subclass writes ``compute`` and sets ``version`` up by one whenever its numbers change. Windows and
    kernels are non-persistent buffers: a checkpoint holds no front-end weights, only ``params`` and the
    fingerprint.
    """

    version: int = 1
    floor: float | None = None
    decibels: bool = False
    bins_per_octave: int | None = None
    cached: int | None = (
        None  # samples whose spectra stay in a processor's cache: a CPU takes examples in such portions
    )

    def __init__(
        self, sample_rate: int, hop: int, channels: int, bins: int, params: dict[str, Any], mean_size: int = 1
    ) -> None:
        """Sample rate in Hz, hop in samples, C' and F of the output, the constructor's arguments, and how many
        frames become one. ``params`` gets ``mean_size`` only where it is not 1: the fingerprint of a front-end
        does not change with an option that it does not use.
        """
        super().__init__()
        if min(hop, bins, sample_rate, mean_size) < 1:
            raise UserError(
                "frontend: sample_rate, hop, bins and mean_size must be at least 1; correct the one that is not"
            )
        self.sample_rate = sample_rate
        self.raw_hop, self.mean_size = hop, mean_size
        self.hop = hop * mean_size
        self.channels = channels
        self.bins = bins
        self.params = params | ({"mean_size": mean_size} if mean_size > 1 else {})

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) float32 -> features (B, C', F, T) before mean-pooling."""
        raise TypeError(f"{type(self).__name__} defines no compute")

    def finish(self, features: Tensor) -> Tensor:
        """Features (B, C', F, T) after mean-pooling -> the same shape, scaled as the subclass wants."""
        return features

    def forward(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) of any float type -> features (B, C', F, T) float32, whatever autocast says."""
        with torch.autocast(audio.device.type, enabled=False):
            parts = [
                self.finish(mean_pool(self.compute(part.float()), self.mean_size)) for part in self._portions(audio)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)  # (B, C', F, T)

    def _portions(self, audio: Tensor) -> tuple[Tensor, ...]:
        graph = torch.jit.is_tracing() or torch.compiler.is_compiling()  # there the number of examples is not known
        if graph or self.cached is None or audio.device.type != "cpu":
            return (audio,)
        return audio.split(max(1, self.cached // max(audio[0].numel(), 1)))

    def raw_frames(self, lengths: Tensor) -> Tensor:
        """Valid samples (B,) -> valid frames before mean-pooling (B,)."""
        return lengths // self.raw_hop + 1

    def frames(self, lengths: Tensor) -> Tensor:
        """Valid samples (B,) -> valid frames (B,)."""
        return (self.raw_frames(lengths) // self.mean_size).clamp(min=1)


def mean_pool(features: Tensor, size: int) -> Tensor:
    """Means of consecutive groups of ``size`` frames, the remainder dropped: (..., T) -> (..., max(T // size, 1))."""
    if size == 1:
        return features
    count = features.shape[-1] // size
    if count == 0:
        return features.mean(-1, keepdim=True)
    return features[..., : count * size].unflatten(-1, (count, size)).mean(-1)


def fingerprint(frontend: Frontend) -> str:
    """16 hexadecimal digits of the class name, version and parameters; the order of the parameters is
    immaterial.
    """
    numbers = {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in frontend.params.items()}
    identity = json.dumps([type(frontend).__name__, frontend.version, numbers], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def forget_buffers(module: nn.Module) -> None:
    """Make every buffer of a library's module non-persistent, in place."""
    for part in module.modules():
        for name, value in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, value, persistent=False)


def reflect(audio: Tensor, pad: int) -> Tensor:
    """Reflect ``pad`` samples at both ends: (..., N) -> (..., N + 2 pad), as ``numpy.pad(mode="reflect")``.

    Torch refuses signals of ``pad`` samples or fewer; those are reflected to and fro until they fill the
    padding.
    """
    size = audio.shape[-1]
    if size == 0:
        return F.pad(audio, (pad, pad))  # (..., 2 pad)
    if size > pad:
        flat = F.pad(audio.reshape(1, -1, size), (pad, pad), mode="reflect")  # (1, ..., N + 2 pad)
        return flat.reshape(*audio.shape[:-1], -1)
    period = max(2 * (size - 1), 1)
    index = torch.arange(-pad, size + pad, device=audio.device) % period  # (N + 2 pad,)
    return audio[..., torch.minimum(index, period - index)]  # (..., N + 2 pad)


def check_fft(n_fft: int, key: str = "n_fft") -> None:
    """Raise UserError for an odd or empty FFT size, for which centred frames are not N // hop + 1."""
    if n_fft < 2 or n_fft % 2:
        raise UserError(f"frontend.{key}: {n_fft} is not an even number of at least 2; use for example 1024")


def check_range(sample_rate: int, fmin: float, fmax: float | None) -> float:
    """Upper edge in Hz, half the sample rate for None; raises UserError for an impossible range."""
    top = sample_rate / 2 if fmax is None else float(fmax)
    if not 0 <= fmin < top <= sample_rate / 2:
        raise UserError(
            f"frontend.fmin, frontend.fmax: {fmin} to {top} Hz is not inside 0 to {sample_rate / 2} Hz; "
            "choose 0 <= fmin < fmax <= sample_rate / 2"
        )
    return top
