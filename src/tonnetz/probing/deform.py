"""Deformed test sound: how much of a score survives? Every excerpt has noise of its own, keyed by its track."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tonnetz.errors import UserError, suggest

VERSION = 2  # of the deformations: stored features of an earlier one are made anew
Deform = Callable[[Tensor, Tensor, int], Tensor]  # audio (B, 1, N), track number (B,), sample rate -> audio


def noise(audio: Tensor, row: Tensor, snr: float) -> Tensor:
    """Add white Gaussian noise at a signal-to-noise ratio in dB."""
    draws = [torch.randn(audio.shape[-1], generator=torch.Generator().manual_seed(int(r))) for r in row]
    white = torch.stack(draws)[:, None].to(audio.device)  # (B, 1, N)
    power = audio.square().mean((1, 2), keepdim=True)
    return audio + white * (power * 10 ** (-snr / 10)).sqrt()


def gain(audio: Tensor, db: float) -> Tensor:
    """Change the level by decibels."""
    return audio * 10 ** (db / 20)


def clip(audio: Tensor, share: float) -> Tensor:
    """Cut the peaks off, so that this share of the samples of each excerpt is cut."""
    limit = audio.abs().flatten(1).quantile(1 - share, dim=1)[:, None, None].clamp(min=1e-6)  # (B, 1, 1)
    return audio.clamp(-limit, limit)


def lowpass(audio: Tensor, share: float) -> Tensor:
    """Remove the frequencies above a share of half the sample rate, as narrow-band codecs do."""
    spectrum = torch.fft.rfft(audio)
    spectrum[..., round(share * spectrum.shape[-1]) :] = 0
    return torch.fft.irfft(spectrum, audio.shape[-1])


def room(audio: Tensor, sample_rate: int, decay: float) -> Tensor:
    """Convolve with decaying noise, whose level falls by 60 dB within so many seconds; the level is kept."""
    impulse = response(sample_rate, decay)  # (L,)
    length = len(impulse)
    size = audio.shape[-1] + length
    wet = torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(impulse.to(audio.device), size), size)
    wet = wet[..., : audio.shape[-1]]
    level = [value.square().mean((1, 2), keepdim=True).sqrt() for value in (audio, wet)]
    return wet * level[0] / level[1].clamp(min=1e-9)


def response(sample_rate: int, decay: float) -> Tensor:
    """Impulse response of a room (L,): direct sound, then as much energy of noise that falls by 60 dB in `decay` s."""
    length = round(decay * sample_rate)
    fall = 10 ** (-3 * torch.arange(length) / length)  # (L,)
    impulse = fall * torch.randn(length, generator=torch.Generator().manual_seed(0))
    impulse[0] = impulse[1:].norm()
    return impulse


def pitch(audio: Tensor, sample_rate: int, semitones: float) -> Tensor:
    """Shift the pitch, not the tempo."""
    from tonnetz.augment.pitch import PitchShift

    return PitchShift(sample_rate=sample_rate).transform(audio, semitones=audio.new_full((len(audio),), semitones))


def mp3(audio: Tensor, sample_rate: int, kbps: int) -> Tensor:
    """Encode as MP3 and decode again, one excerpt after the other; the encoder's delay is taken out."""
    found = [_coded(one, sample_rate, kbps) for one in audio[:, 0].cpu().numpy()]
    return torch.from_numpy(np.stack(found))[:, None].to(audio.device)


def _coded(signal: np.ndarray, sample_rate: int, kbps: int) -> np.ndarray:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        try:
            stream = container.add_stream("libmp3lame", rate=sample_rate)
            stream.layout, stream.bit_rate = "mono", 1000 * kbps
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal[None]), format="fltp", layout="mono")
            frame.sample_rate = sample_rate
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
        except av.error.FFmpegError as error:
            raise UserError(f"job.deformations: no MP3 at {sample_rate} Hz ({error}); leave mp3_64k out") from None
    file.seek(0)
    with av.open(file, "r") as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    decoded = np.concatenate(parts).astype(np.float32)[: len(signal)]
    return np.pad(decoded, (0, len(signal) - len(decoded)))


KNOWN: dict[str, Deform] = {
    "noise_15db": lambda audio, row, rate: noise(audio, row, 15.0),
    "noise_0db": lambda audio, row, rate: noise(audio, row, 0.0),
    "gain_-12db": lambda audio, row, rate: gain(audio, -12.0),
    "clip_5%": lambda audio, row, rate: clip(audio, 0.05),
    "lowpass_25%": lambda audio, row, rate: lowpass(audio, 0.25),
    "room": lambda audio, row, rate: room(audio, rate, 1.0),
    "pitch_+1": lambda audio, row, rate: pitch(audio, rate, 1.0),
    "mp3_64k": lambda audio, row, rate: mp3(audio, rate, 64),
}


def deformation(name: str) -> tuple[str, Deform]:
    """A deformation by its name. Raises UserError for an unknown one."""
    if name not in KNOWN:
        raise UserError(f"job.deformations: no deformation '{name}'{suggest(name, KNOWN)}")
    return name, KNOWN[name]
