"""How far music lies beside 440 Hz, and front-ends that follow it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonnetz.frontend.base import Frontend, forget_buffers

STEPS = 20  # kernel banks a semitone: what is left is at most 2.5 cents
N_FFT = 2048
LOWEST, HIGHEST = 150.0, 4000.0  # Hz between which a peak counts as a pitch


class Tunable(Frontend):
    """Front-end on a kernel bank that moves, where ``tuning`` asks for it, by each example's deviation from
    440 Hz.

    A subclass writes ``make_bank`` and ``analyse``. Banks are made when first needed, one for each 1/20 of a
    semitone, and kept.
    """

    tuning: bool = False
    bins_per_octave: int
    banks: nn.ModuleDict

    def make_bank(self, ratio: float) -> nn.Module:
        """The kernels with every frequency times ``ratio``."""
        raise TypeError(f"{type(self).__name__} defines no make_bank")

    def analyse(self, audio: Tensor, bank: nn.Module) -> Tensor:
        """Audio (B, C, N) -> features (B, C', F, T) by one bank."""
        raise TypeError(f"{type(self).__name__} defines no analyse")

    def start_banks(self, tuning: bool) -> None:
        """Make the untuned bank; ``params`` gets ``tuning`` only where it is on."""
        self.tuning, self.banks = tuning, nn.ModuleDict()
        self.params = self.params | ({"tuning": True} if tuning else {})
        self._bank(0, torch.device("cpu"))

    def _bank(self, step: int, device: torch.device) -> nn.Module:
        """The kernels moved by ``step`` twentieths of a semitone."""
        name = str(step)
        if name not in self.banks:
            with torch.inference_mode(False):  # the kernels outlive the mode in which they are first needed
                bank = self.make_bank(2 ** (step / STEPS / 12))
                forget_buffers(bank)
                self.banks[name] = bank.to(device)
        return self.banks[name]

    def compute(self, audio: Tensor) -> Tensor:
        """Audio (B, C, N) -> features (B, C', F, T), the examples of one tuning together."""
        if not self.tuning:
            return self.analyse(audio, self._bank(0, audio.device))
        steps = (estimate_tuning(audio.mean(1), self.sample_rate) * STEPS).round().long()  # (B,)
        groups = [(int(step), (steps == step).nonzero().squeeze(1)) for step in steps.unique()]
        parts = [self.analyse(audio[rows], self._bank(step, audio.device)) for step, rows in groups]
        order = torch.cat([rows for _, rows in groups]).argsort()  # (B,)
        return torch.cat(parts)[order]


@torch.no_grad()
def estimate_tuning(audio: Tensor, sample_rate: int) -> Tensor:
    """Deviation from 440 Hz of each example, audio (B, N) -> fractions of a semitone (B,) in [-0.5, 0.5).

    Interpolated spectral peaks that are at least as loud as their median vote for their distance to the next
    semitone; the fullest of 100 bins wins, as in ``librosa.estimate_tuning``. 0 for silence.
    """
    pitch, loudness = _peaks(audio, sample_rate)  # (B, P) each, pitch 0 where there is no peak
    found = pitch > 0
    count = found.sum(1, keepdim=True)  # (B, 1)
    ordered = loudness.masked_fill(~found, torch.inf).sort(1).values  # (B, P)
    lower, upper = ((count - 1).clamp(min=0) // 2), (count // 2).clamp(max=pitch.shape[1] - 1)
    median = (ordered.gather(1, lower) + ordered.gather(1, upper)) / 2  # (B, 1)
    votes = found & (loudness >= median)
    residual = (12 * torch.log2(pitch.clamp(min=1.0) / 440.0) + 0.5).remainder(1.0)  # (B, P) in [0, 1): 0.5 is in tune
    bins = (residual * 100).long().clamp(max=99)
    counts = torch.zeros(len(audio), 100, device=audio.device).scatter_add_(1, bins, votes.float())  # (B, 100)
    return torch.where(count.squeeze(1) > 0, counts.argmax(1) / 100 - 0.5, 0.0)


def _peaks(audio: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Frequencies in Hz and magnitudes of the local maxima of every spectrum, interpolated by parabolas, (B, P)."""
    window = torch.hann_window(N_FFT, device=audio.device)
    spectrum = torch.stft(
        F.pad(audio, (N_FFT // 2, N_FFT // 2)), N_FFT, N_FFT // 4, window=window, center=False, return_complex=True
    ).abs()  # (B, F, T)
    low, mid, high = spectrum[:, :-2], spectrum[:, 1:-1], spectrum[:, 2:]  # (B, F - 2, T)
    slope, bend = (high - low) / 2, 2 * mid - low - high
    shift = torch.where(bend.abs() > 1e-12, slope / bend, 0.0)
    hertz = (torch.arange(1, mid.shape[1] + 1, device=audio.device)[:, None] + shift) * (sample_rate / N_FFT)
    centre = torch.arange(1, mid.shape[1] + 1, device=audio.device)[:, None] * (sample_rate / N_FFT)
    peak = (mid > low) & (mid >= high) & (mid > 0.1 * spectrum.amax(1, keepdim=True))
    peak &= (centre >= LOWEST) & (centre < HIGHEST)
    return torch.where(peak, hertz, 0.0).flatten(1), (mid + slope * shift / 2).flatten(1)
