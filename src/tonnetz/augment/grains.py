"""Transposition in the time domain: grains of the sound, played faster or slower and joined where they fit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tonnetz.augment.response import fast_size

GRAIN = 0.070  # seconds of output from one join to the next
FADE = 0.012  # seconds of a join
SEARCH = 0.015  # seconds within which the place for a grain is searched
COARSE = 4  # samples of the doubled rate in one of the search


def transpose(x: Tensor, ratio: Tensor, size: int, sample_rate: int) -> Tensor:
    """Frequencies times ``ratio`` (B,) at the same tempo: x (B, M) at twice ``sample_rate`` -> (B, size) at once.

    Waveform-similarity overlap-add (Verhelst and Roelands 1993), the method of SoX. A grain starts near the same
    time in x and in the output, where x resembles best how the grain before would have gone on (least squared
    difference), and is read ``ratio`` times as fast with cubic interpolation. x has to be free of frequencies that
    would pass half the sample rate; M may exceed 2 * size, what lies there is read as it is.
    """
    hop, fade = (max(round(seconds * sample_rate), 1) for seconds in (GRAIN, FADE))
    count = math.ceil(size / hop)
    spare = margin(float(ratio.max()), sample_rate)
    x = F.pad(x, (0, max(2 * (size + spare) - x.shape[1], 0)))  # (B, M)
    start = _places(x, ratio, size, sample_rate) if count > 1 else x.new_zeros(len(x), 1, dtype=torch.long)  # (B, K)
    grains = _read(x, start, ratio, hop + fade)  # (B, K, hop + fade)
    weight = torch.linspace(0, math.pi / 2, fade + 2, device=x.device)[1:-1].sin().square()  # (fade,)
    grains[:, 1:, :fade] = torch.lerp(grains[:, :-1, hop:], grains[:, 1:, :fade], weight)
    return grains[:, :, :hop].flatten(1)[:, :size]


def margin(ratio: float, sample_rate: int) -> int:
    """Samples behind the sound that ``transpose`` may read."""
    return math.ceil((math.ceil(ratio) * (GRAIN + FADE) + SEARCH) * sample_rate) + 16


def _places(x: Tensor, ratio: Tensor, size: int, sample_rate: int) -> Tensor:
    """Where each grain starts in x, (B, K) int64; searched at half the sample rate and refined by a parabola."""
    per = sample_rate * 2 / COARSE  # search samples a second
    hop = max(round(GRAIN * sample_rate), 1)
    span, fade = max(round(SEARCH * per), 2), max(round(FADE * per), 1)
    end = x.shape[1] // COARSE * COARSE
    coarse = x[:, :end:COARSE] + x[:, 2:end:COARSE]  # (B, M / COARSE) a mean of two samples at the single rate
    time = torch.arange(0, size, hop, device=x.device)  # (K,)
    speed = ratio.unsqueeze(1)  # (B, 1)
    due = time + (1 - speed) * (hop / 2)  # (B, K) so that the middle of a grain keeps its time
    last = size - (size - time).clamp(max=hop + 2 * fade) * speed  # (B, K) so that no grain runs over the end
    low = torch.minimum(due * (2 / COARSE) - span / 2, last * (2 / COARSE) - span + 2)
    low = low.clamp(min=0).long()  # (B, K) first place of the search
    window = low.unsqueeze(2) + torch.arange(span + fade, device=x.device)  # (B, K, W)
    region = coarse.gather(1, window.flatten(1)).view(window.shape)  # (B, K, W)
    energy = F.pad(region.square().cumsum(2), (1, 0))
    energy = energy[..., fade:] - energy[..., :-fade]  # (B, K, span + 1)
    length = fast_size(span + fade)
    spectrum = torch.fft.rfft(region, n=length)  # (B, K, F)
    tap = torch.arange(fade - 1, -1, -1, device=x.device)  # backwards, so that a convolution correlates
    step = 2 * hop * ratio  # (B,) that a grain has read when the next one comes
    start = x.new_zeros(len(x))  # (B,)
    starts = [start]
    for k in range(1, low.shape[1]):
        on = start + step  # (B,) where the grain before would go on
        near = (on / COARSE).round()
        template = coarse.gather(1, near.long().unsqueeze(1) + tap)  # (B, fade)
        likeness = torch.fft.irfft(torch.fft.rfft(template, n=length).mul_(spectrum[:, k]), n=length)
        difference = torch.add(energy[:, k], likeness[:, fade - 1 : fade + span], alpha=-2)  # (B, span + 1)
        start = (COARSE * (low[:, k] + _lowest(difference) - near) + on).round_().clamp_(min=0)
        starts.append(start)
    return torch.stack(starts, 1).long()


def _lowest(y: Tensor) -> Tensor:
    """Place of the minimum of y (B, S), S > 2, between samples by a parabola: (B,)."""
    best = y.argmin(1, keepdim=True).clamp_(1, y.shape[1] - 2)  # (B, 1)
    a, b, c = y.gather(1, best + torch.arange(-1, 2, device=y.device)).unbind(1)
    shift = (a - c) / (2 * (a - 2 * b + c)).clamp_(min=1e-12)
    return best.squeeze(1) + shift.clamp_(-1, 1)


def _read(x: Tensor, start: Tensor, ratio: Tensor, length: int) -> Tensor:
    """Cubic (Catmull-Rom) values of x (B, M) at start + 2 * ratio * (0 ... length - 1): (B, K, length).

    Starts are whole samples, so all grains of an example share the fractions and with them the weights.
    """
    position = 2 * ratio.unsqueeze(1) * torch.arange(length, device=x.device)  # (B, L)
    left = position.floor()
    t = (position - left).unsqueeze(1)  # (B, 1, L)
    weights = (
        t * (t * (2 - t) - 1) / 2,
        t * t * (3 * t - 5) / 2 + 1,
        t * (t * (4 - 3 * t) + 1) / 2,
        t * t * (t - 1) / 2,
    )
    x = F.pad(x, (1, 2))  # so that column m + k holds x[m + k - 1]
    index = (start.unsqueeze(2) + left.long().unsqueeze(1)).flatten(1)  # (B, K * L)
    shape = (len(x), start.shape[1], length)
    y = x[:, :-3].gather(1, index).view(shape) * weights[0]
    for k in (1, 2, 3):
        y.addcmul_(x[:, k : x.shape[1] - 3 + k].gather(1, index).view(shape), weights[k])
    return y
