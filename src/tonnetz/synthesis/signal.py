"""Building blocks of the synthesiser: wavetables, damped modes, strings, envelopes and noise (pure NumPy and
SciPy).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Signal = NDArray[np.float32]
Array = NDArray[np.floating[Any]]
TABLE = 2048  # samples of one period in a wavetable


def hertz(pitch: float) -> float:
    """Frequency (Hz) of a MIDI pitch (69 = A4 = 440 Hz, fractions allowed)."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))


def seconds_axis(samples: int, rate: int) -> Signal:
    """Time of every sample, in seconds, (N,)."""
    return np.arange(samples, dtype=np.float32) / np.float32(rate)


def ramp(samples: int, rate: int, points: list[tuple[float, float]]) -> Signal:
    """Piecewise linear curve through (second, value) points, held outside them, (N,)."""
    times, values = zip(*points, strict=True)
    return np.interp(np.arange(samples) / rate, times, values).astype(np.float32)


def wander(rng: np.random.Generator, samples: int, rate: int, speed: float) -> Signal:
    """Slow random curve of about unit variance that moves `speed` times a second, (N,)."""
    knots = max(4, int(np.ceil(samples / rate * speed)) + 2)
    grid = np.linspace(0, samples, knots)
    return np.interp(np.arange(samples), grid, rng.standard_normal(knots)).astype(np.float32)


def wavetable(spectra: Array, frequency: Signal, level: Signal, rate: int) -> Signal:
    """Harmonic sound read from a bank of single-period tables.

    spectra (M, K): amplitudes of harmonics 1..K at M levels from softest to loudest; frequency (N,): Hz,
    sample by sample; level (N,): 0..1, position in the bank. Harmonics above the Nyquist frequency must be
    zero already.
    """
    levels, harmonics = spectra.shape
    # Schroeder phases keep the crest low, so that EQ and room act on a signal with a flat envelope
    order = np.arange(1, harmonics + 1)
    bins = np.zeros((levels, TABLE // 2 + 1), dtype=np.complex128)
    bins[:, 1 : harmonics + 1] = spectra * np.exp(-1j * np.pi * order * (order - 1) / harmonics)
    tables = np.fft.irfft(bins, axis=1).astype(np.float32) * (TABLE / 2)  # (M, TABLE)
    tables = np.concatenate([tables, tables[:, :1]], axis=1)  # (M, TABLE + 1), wraps for the interpolation
    place = np.cumsum(frequency, dtype=np.float64) / rate
    place = ((place - np.floor(place)) * TABLE).astype(np.float32)
    column = np.minimum(place.astype(np.int32), TABLE - 1)
    between = place - column
    if levels == 1:
        low = tables[0]
        return low[column] * (1 - between) + low[column + 1] * between
    height = np.clip(level, 0, 1) * (levels - 1)
    row = np.minimum(height.astype(np.int32), levels - 2)
    mix = height - row
    flat = tables.ravel()
    start = row * (TABLE + 1) + column
    below = flat[start] * (1 - between) + flat[start + 1] * between
    start += TABLE + 1
    above = flat[start] * (1 - between) + flat[start + 1] * between
    return below * (1 - mix) + above * mix


def modes(
    frequencies: Array,
    decays: Array,
    amplitudes: Array,
    phases: Array,
    samples: int,
    rate: int,
) -> Signal:
    """Sum of K exponentially damped sinusoids, (N,); decays are the seconds to fall by 60 dB.

    exp(a (i B + j)) = exp(a i B) exp(a j), so the K x N table is a matrix product of two small ones.
    """
    kept = frequencies < 0.46 * rate
    pole = (-6.91 / decays[kept] + 2j * np.pi * frequencies[kept]) / rate
    start = amplitudes[kept] * np.exp(1j * phases[kept])
    block = 256
    rows = -(-samples // block)
    coarse = np.exp(np.outer(np.arange(rows) * block, pole)) * start  # (rows, K)
    fine = np.exp(np.outer(pole, np.arange(block)))  # (K, block)
    both = coarse.real @ fine.real - coarse.imag @ fine.imag
    return both.ravel()[:samples].astype(np.float32)


def string(excitation: Signal, frequency: float, decay: float, damping: float, samples: int, rate: int) -> Signal:
    """Extended Karplus-Strong string (Jaffe & Smith 1983), (N,).

    A delay line of one period with a two-point average (weight `damping`, 0 bright .. 0.5 dull) and a loss
    that lets the fundamental fall by 60 dB in `decay` seconds. Linear interpolation gives the fraction of the
    period.
    """
    period = rate / frequency - damping  # the average delays by `damping` samples
    whole = int(period)
    part = period - whole
    loss = 10.0 ** (-3.0 / (frequency * decay))
    loop = loss * np.convolve([1 - damping, damping], [1 - part, part])
    # what the interpolation itself takes away at the fundamental is given back, never beyond a stable loop
    turn = np.exp(-2j * np.pi * frequency / rate * np.arange(3))
    loop = loop * min(loss / abs(loop @ turn), 0.99995 / abs(loop.sum()))
    feedback = np.zeros(whole + 3)
    feedback[0] = 1.0
    feedback[whole:] -= loop
    source = np.zeros(samples)
    source[: min(samples, len(excitation))] = excitation[:samples]
    return lfilter([1.0], feedback, source).astype(np.float32)


def pluck(rng: np.random.Generator, frequency: float, position: float, softness: float, rate: int) -> Signal:
    """One period of low-passed noise, notched by the plucking point (share of the string from the bridge),
    (P,).
    """
    period = max(8, round(rate / frequency))
    noise = rng.uniform(-1, 1, period)
    comb = max(1, round(position * period))
    shaped = noise - 0.9 * np.roll(noise, comb)
    spectrum = np.fft.rfft(shaped - shaped.mean())
    spectrum *= softness ** (np.arange(len(spectrum)) * frequency / 1000.0)
    out = np.fft.irfft(spectrum, period)
    return (out / (np.abs(out).max() + 1e-9)).astype(np.float32)


def shape_spectrum(signal: Signal, gain: Callable[[Array], Array], rate: int) -> Signal:
    """Filter with zero phase by a gain over frequency in Hz, (N,)."""
    size = fast_size(len(signal) + rate // 20)
    bins = np.fft.rfft(signal, size) * gain(np.fft.rfftfreq(size, 1 / rate))
    return np.fft.irfft(bins, size)[: len(signal)].astype(np.float32)


def fast_size(samples: int) -> int:
    """Smallest 2^a or 3 * 2^a that holds `samples`, for a quick FFT."""
    power = 1 << (samples - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= samples else power


def band_noise(
    rng: np.random.Generator, samples: int, low: float, high: float, rate: int, slope: float = 12.0
) -> Signal:
    """Gaussian noise between two frequencies (Hz), falling `slope` dB per octave outside, unit RMS, (N,)."""
    size = fast_size(samples)
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / rate), 1.0).astype(np.float32)
    octaves = np.maximum(0, np.log2(low / frequency)) + np.maximum(0, np.log2(frequency / high))
    bins = rng.standard_normal((2, len(frequency)), dtype=np.float32) * 10 ** (-octaves * np.float32(slope / 20))
    noise = np.fft.irfft(bins[0] + 1j * bins[1], size)[:samples].astype(np.float32)
    return noise / np.sqrt(np.mean(noise**2) + 1e-12)


def formants(frequency: Array, peaks: list[tuple[float, float, float]], floor: float = 0.03) -> Array:
    """Amplitude of a set of resonances (centre Hz, gain, bandwidth Hz) above a floor, same shape as
    `frequency`.
    """
    out = np.full_like(frequency, floor)
    for centre, gain, width in peaks:
        out = out + gain / np.sqrt(1.0 + ((frequency - centre) / (0.5 * width)) ** 2)
    return out


def adsr(samples: int, rate: int, held: float, attack: float, decay: float, sustain: float, release: float) -> Signal:
    """Attack, decay to `sustain`, hold until `held`, release (all seconds), smooth corners, (N,)."""
    attack = min(attack, 0.6 * held)
    decay = min(decay, max(1e-3, held - attack))
    corners = [
        (0.0, 0.0),
        (attack, 1.0),
        (attack + decay, sustain),
        (held + 1e-4, sustain),
        (held + release, 0.0),
    ]
    curve = ramp(samples, rate, corners)
    return curve * curve * (3 - 2 * curve)
