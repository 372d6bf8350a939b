"""What stands between an instrument and its file: body resonances, room, microphone, background noise and
level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tonnetz.synthesis.signal import Array, Signal, fast_size


@dataclass(frozen=True)
class Channel:
    """How strongly the recording of each file varies; decibels unless stated."""

    tilt: float = 2.0  # slope of the microphone's response, at most, dB per octave
    peak: float = 5.0  # height or depth of its resonances, at most
    reverberation: tuple[float, float] = (0.15, 0.7)  # seconds to fall by 60 dB
    wet: tuple[float, float] = (-24.0, -8.0)  # energy of the tail against the direct sound
    noise: tuple[float, float] = (22.0, 48.0)  # signal to noise ratio
    level: tuple[float, float] = (-24.0, -1.0)  # peak of the file, dBFS


def equaliser(rng: np.random.Generator, frequency: Array, channel: Channel) -> Array:
    """Gain of a random microphone: a tilt around 1 kHz and a few broad peaks and dips, (F,)."""
    octave = np.log2(np.maximum(frequency, 40.0) / 1000.0)
    gain = rng.uniform(-channel.tilt, channel.tilt) * octave
    for _ in range(rng.integers(2, 6)):
        centre, width = rng.uniform(-3.5, 2.8), rng.uniform(0.3, 1.0)
        gain += rng.uniform(-channel.peak, channel.peak) * np.exp(-0.5 * ((octave - centre) / width) ** 2)
    return 10.0 ** (np.clip(gain, -30, 30) / 20.0)


def impulse_response(rng: np.random.Generator, rate: int, channel: Channel) -> Array:
    """Direct sound at sample 0, a handful of early reflections, an exponential tail of noise, (R,)."""
    decay = rng.uniform(*channel.reverberation)
    wet = 10.0 ** (rng.uniform(*channel.wet) / 20.0)
    samples = int(0.8 * decay * rate)
    tail = rng.standard_normal(samples) * np.exp(-6.91 * np.arange(samples) / (decay * rate))
    tail[: int(rng.uniform(0.005, 0.02) * rate)] = 0.0
    for _ in range(rng.integers(2, 7)):
        tail[rng.integers(int(0.002 * rate), int(0.04 * rate))] += rng.normal() * 3.0
    # air and walls take the treble first: a one-pole average of neighbours
    tail = 0.5 * (tail + np.concatenate([[0.0], tail[:-1]]))
    response = wet * tail / np.sqrt(np.sum(tail**2) + 1e-12)
    response[0] += 1.0
    return response


def record(dry: Signal, rng: np.random.Generator, rate: int, channel: Channel, *, noisy: bool = True) -> Signal:
    """Play a dry sound (N,) in a random room into a random microphone; returns (N,) with peak <= 1."""
    response = impulse_response(rng, rate, channel)
    size = fast_size(len(dry) + len(response))
    frequency = np.fft.rfftfreq(size, 1 / rate)
    bins = np.fft.rfft(dry, size) * np.fft.rfft(response, size) * equaliser(rng, frequency, channel)
    wet = np.fft.irfft(bins, size)[: len(dry)]
    if noisy:
        wet = wet + background(rng, frequency, size, channel)[: len(dry)] * loudness(wet)
    peak = 10.0 ** (rng.uniform(*channel.level) / 20.0)
    return (wet * (peak / (np.abs(wet).max() + 1e-9))).astype(np.float32)


def loudness(signal: Array) -> float:
    """Root of the mean square over the louder half of a sound, so that silence around a note counts not."""
    blocks = (signal[: len(signal) // 64 * 64].reshape(-1, 64) ** 2).mean(axis=1)
    return float(np.sqrt(np.sort(blocks)[len(blocks) // 2 :].mean() + 1e-12))


def background(rng: np.random.Generator, frequency: Array, size: int, channel: Channel) -> Array:
    """Coloured noise with now and then a mains hum, RMS set by a random signal to noise ratio, (N,)."""
    octave = np.log2(np.maximum(frequency, 40.0) / 1000.0)
    colour = 10.0 ** (rng.uniform(-6.0, 1.5) * octave / 20.0) * equaliser(rng, frequency, channel) ** 0.5
    parts = rng.standard_normal((2, len(frequency))) * colour
    noise = np.fft.irfft(parts[0] + 1j * parts[1], size)
    noise /= np.sqrt(np.mean(noise**2) + 1e-12)
    if rng.random() < 0.2:
        hum = rng.choice([50.0, 60.0]) * rng.integers(1, 4)
        noise = noise + np.sin(2 * np.pi * hum / (2 * frequency[-1]) * np.arange(size))
    return noise * 10.0 ** (-rng.uniform(*channel.noise) / 20.0)
