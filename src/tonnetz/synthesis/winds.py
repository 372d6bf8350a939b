"""Aerophones and the singing voice: one sustained harmonic model whose spectrum, onset, breath and vibrato
differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tonnetz.synthesis.player import Note, Player
from tonnetz.synthesis.signal import (
    Array,
    Signal,
    adsr,
    band_noise,
    formants,
    hertz,
    ramp,
    seconds_axis,
    wander,
    wavetable,
)

Spectrum = Callable[[Array, Array, float, Player], Array]  # (order, Hz, loudness 0..1, player) -> amplitudes


def sustained(
    note: Note,
    player: Player,
    rng: np.random.Generator,
    rate: int,
    *,
    spectrum: Spectrum,
    attack: float,
    release: float = 0.08,
    sustain: float = 0.85,
    swell: float = 0.0,
    vibrato: tuple[float, float, float] = (5.0, 0.0, 0.3),
    tremolo: float = 0.0,
    scoop: tuple[float, float] = (0.0, 0.03),
    glide: float = 0.02,
    breath: tuple[float, float, float] = (0.0, 500.0, 4000.0),
    chiff: float = 0.0,
    jitter: float = 2.0,
    levels: int = 4,
) -> Signal:
    """Harmonic tone whose brightness follows its loudness.

    vibrato: (Hz, cents, seconds until it sets in); tremolo: depth of loudness at the same rate; scoop:
    (cents, seconds) of the approach to the pitch; glide: seconds of a slur; breath: (level, from Hz, to Hz)
    of the noise; chiff: breath at the attack alone; swell: growth of loudness over the note; jitter: cents of
    unsteadiness.
    """
    samples = int((note.seconds + release) * rate)
    time = seconds_axis(samples, rate)
    frequency = hertz(note.pitch + 0.08 * player.detune)
    speed, depth, delay = vibrato
    wobble = np.sin(2 * np.pi * (speed + 0.4 * player.vibrato_rate) * time + np.float32(rng.uniform(0, 6)))
    wobble *= np.clip((time - delay) / 0.25, 0, 1) * 2.0 ** (0.4 * player.vibrato_depth)
    cents = depth * wobble + jitter * wander(rng, samples, rate, 10.0)
    if note.previous is None:
        cents += scoop[0] * np.exp(-time / np.float32(scoop[1]))
    else:
        cents += 100.0 * (note.previous - note.pitch) * ramp(samples, rate, [(0.0, 1.0), (glide, 0.0)])
    quick = attack * 2.0 ** (0.5 * player.attack) * (1.0 if note.previous is None else 0.5)
    level = adsr(samples, rate, note.seconds, quick, 0.1, sustain, release)
    level *= note.velocity * (1 + tremolo * wobble)
    if swell:
        level *= ramp(samples, rate, [(0.0, 1 - swell), (0.7 * note.seconds, 1.0), (note.seconds, 1 - 0.6 * swell)])
    order = np.arange(1, int(min(60, 0.44 * rate / (frequency * 2 ** (abs(depth) / 600)))) + 1, dtype=np.float64)
    bank = np.stack([spectrum(order, order * frequency, loud, player) for loud in np.linspace(0, 1, levels)])
    bank /= np.sqrt(np.sum(bank**2, axis=1, keepdims=True)) + 1e-9
    wave = (frequency * 2.0 ** (cents / 1200)).astype(np.float32)
    out = level * wavetable(bank, wave, level, rate)
    if breath[0] or chiff:
        air = band_noise(rng, samples, breath[1], breath[2], rate) * 2.0 ** (0.6 * player.noise)
        out += air * (breath[0] * level + chiff * np.exp(-time / 0.025) * ramp(samples, rate, [(0, 0), (0.004, 1)]))
    return out.astype(np.float32)


def rolled(order: Array, frequency: Array, loud: float, player: Player, *, soft: float, hard: float) -> Array:
    """Partials that fall by a share which the loudness lifts from `soft` to `hard` (share left one kHz
    higher).
    """
    share = np.clip(soft + (hard - soft) * loud + 0.05 * player.bright, 0.05, 0.97)
    return np.asarray(share ** ((frequency - frequency[0]) / 1000.0))


def clarinet(order: Array, frequency: Array, loud: float, player: Player) -> Array:
    """A cylinder closed at one end: the odd partials alone, the even ones come in above the sixth."""
    even = np.where(order % 2 == 0, np.clip((order - 4) / 14.0, 0.025, 0.5), 1.0)
    return even * rolled(order, frequency, loud, player, soft=0.3, hard=0.62) * order**-0.25


def double_reed(
    order: Array, frequency: Array, loud: float, player: Player, *, peaks: list[tuple[float, float, float]]
) -> Array:
    """Conical bore with fixed formants and a weak fundamental."""
    scale = 2.0 ** (0.1 * player.body)
    shape = [(centre * scale, gain, width) for centre, gain, width in peaks]
    return formants(frequency, shape, 0.02) * rolled(order, frequency, loud, player, soft=0.6, hard=0.82)


def saxophone(order: Array, frequency: Array, loud: float, player: Player) -> Array:
    """Conical bore: all partials, a broad hump between one and two kHz, growing edge."""
    hump = formants(frequency, [(650.0, 1.0, 900.0), (1700.0 * 2 ** (0.1 * player.body), 0.6, 900.0)], 0.1)
    return hump * rolled(order, frequency, loud, player, soft=0.45, hard=0.8)


def brass(order: Array, frequency: Array, loud: float, player: Player, *, soft: float, hard: float) -> Array:
    """Lip-vibrated: nearly a sine when soft, steep fronts when loud (the shock of Hirschberg et al. 1996)."""
    return rolled(order, frequency, loud**1.3, player, soft=soft, hard=hard) * np.where(order == 1, 0.8, 1.0)


def flute(order: Array, frequency: Array, loud: float, player: Player) -> Array:
    """Few partials; the second grows with the breath."""
    table = np.array([1.0, 0.25 + 0.5 * loud, 0.12 + 0.12 * loud, 0.05, 0.03])
    out = np.zeros_like(order)
    out[: len(table)] = table[: len(out)]
    return out


def recorder(order: Array, frequency: Array, loud: float, player: Player) -> Array:
    """Almost a sine with a weak third and fifth partial, however it is blown."""
    table = np.array([1.0, 0.02, 0.22, 0.01, 0.07, 0.0, 0.02])
    out = np.zeros_like(order)
    out[: len(table)] = table[: len(out)]
    return out


def organ_pipes(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Principal ranks at 8', 4', 2 2/3' and 2': each a steady pipe with its own chiff, tuned a hair apart."""
    ranks = ((0.0, 1.0), (12.0, 0.75), (19.02, 0.4 + 0.2 * player.body), (24.0, 0.5 + 0.2 * player.bright))
    pipe = partial(
        sustained,
        player=Player(detune=player.detune),
        rng=rng,
        rate=rate,
        spectrum=lambda order, frequency, loud, player: 0.5 ** (order - 1) * (order <= 6),
        attack=0.035,
        release=0.15,
        sustain=1.0,
        breath=(0.02, 800.0, 5000.0),
        chiff=0.25 * (1 + 0.5 * player.noise),
        jitter=0.4,
        levels=1,
    )
    sounds = [gain * pipe(Note(note.pitch + above + rng.normal(0, 0.02), note.seconds, 0.8)) for above, gain in ranks]
    return np.asarray(0.5 * np.sum(sounds, axis=0), dtype=np.float32)


def accordion(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Musette: three free reeds per note, mistuned so that they beat a few times a second, on trembling
    bellows.
    """
    samples = int((note.seconds + 0.06) * rate)
    time = seconds_axis(samples, rate)
    frequency = hertz(note.pitch + 0.03 * player.detune)
    beat = 4.5 * 2.0 ** (0.35 * player.vibrato_rate)
    order = np.arange(1, int(min(40, 0.44 * rate / frequency)) + 1, dtype=np.float64)
    reed = order**-0.75 * (1 + 0.5 * (order % 2)) * rolled(order, order * frequency, 1.0, player, soft=0.5, hard=0.75)
    reed = (reed / np.sqrt(np.sum(reed**2)))[None]  # (1, K)
    out = np.zeros(samples, dtype=np.float32)
    for offset, gain in ((0.0, 1.0), (beat, 0.85), (-0.93 * beat, 0.5)):
        wave = np.full(samples, frequency + offset, dtype=np.float32)
        # a phase of its own for each reed: the first period starts anywhere
        wave[0] += np.float32(rng.uniform(0, 1) * rate)
        out += np.float32(gain) * wavetable(reed, wave, wave, rate)
    bellows = 1 + 0.08 * np.sin(2 * np.pi * 3.0 * time + rng.uniform(0, 6))
    envelope = adsr(samples, rate, note.seconds, 0.03 * 2 ** (0.5 * player.attack), 0.1, 0.95, 0.06)
    return (0.5 * note.velocity * bellows * envelope * out).astype(np.float32)


VOWELS = {
    "a": [(730.0, 1.0, 90.0), (1090.0, 0.6, 110.0), (2440.0, 0.25, 170.0), (3400.0, 0.15, 250.0)],
    "e": [(530.0, 1.0, 80.0), (1840.0, 0.5, 120.0), (2480.0, 0.3, 170.0), (3500.0, 0.15, 250.0)],
    "i": [(280.0, 1.0, 70.0), (2250.0, 0.45, 130.0), (2900.0, 0.35, 180.0), (3600.0, 0.15, 250.0)],
    "o": [(500.0, 1.0, 80.0), (880.0, 0.6, 100.0), (2540.0, 0.12, 170.0), (3300.0, 0.08, 250.0)],
    "u": [(320.0, 1.0, 70.0), (800.0, 0.35, 100.0), (2300.0, 0.08, 170.0), (3200.0, 0.05, 250.0)],
}


def singer(note: Note, player: Player, rng: np.random.Generator, rate: int, *, tract: float) -> Signal:
    """Sung syllable: glottal pulses through a vowel that turns into another, wide vibrato, sometimes a
    consonant first.

    tract: formants scale with it (1 for a male voice, about 1.17 for a female one; Peterson & Barney 1952).
    """
    size = tract * 2.0 ** (0.07 * player.body)
    first, second = (VOWELS[name] for name in rng.choice(sorted(VOWELS), 2, replace=False))

    def vowel(order: Array, frequency: Array, loud: float, player: Player) -> Array:
        # the bank runs from the first vowel to the second; `loud` is the place in the syllable here
        mixed = [
            tuple((1 - loud) * x + loud * y for x, y in zip(p, q, strict=True))
            for p, q in zip(first, second, strict=True)
        ]
        shape = [(centre * size, gain, width) for centre, gain, width in mixed]
        return formants(frequency, shape, 0.02) * order ** -(0.7 - 0.2 * player.bright)

    release = 0.1
    samples = int((note.seconds + release) * rate)
    time = seconds_axis(samples, rate)
    frequency = hertz(note.pitch + 0.1 * player.detune)
    depth = 65.0 * 2.0 ** (0.4 * player.vibrato_depth) * np.clip((time - 0.15) / 0.3, 0, 1)
    cents = depth * np.sin(2 * np.pi * (5.5 + 0.5 * player.vibrato_rate) * time + rng.uniform(0, 6))
    start = rng.uniform(-200, -60) if note.previous is None else 100.0 * (note.previous - note.pitch)
    cents += start * np.exp(-time / np.float32(0.05)) + 9.0 * wander(rng, samples, rate, 14.0)
    order = np.arange(1, int(min(50, 0.42 * rate / frequency)) + 1, dtype=np.float64)
    bank = np.stack([vowel(order, order * frequency, place, player) for place in np.linspace(0, 1, 5)])
    turn = ramp(samples, rate, [(0.25 * note.seconds, 0.0), (0.25 * note.seconds + 0.18, 1.0)])
    tone = wavetable(bank, (frequency * 2.0 ** (cents / 1200)).astype(np.float32), turn, rate)
    tone /= np.sqrt(np.mean(tone**2) + 1e-9)
    envelope = adsr(samples, rate, note.seconds, 0.06 * 2 ** (0.5 * player.attack), 0.15, 0.85, release)
    breath = band_noise(rng, samples, 1500, 6000, rate) * 0.03 * 2**player.noise
    out = envelope * (tone + breath)
    if note.previous is None and rng.random() < 0.75:
        low, high = ((3500.0, 7000.0), (1800.0, 4500.0))[rng.integers(2)]
        hiss = band_noise(rng, samples, low, high, rate)
        out += 0.35 * hiss * ramp(samples, rate, [(0, 0), (0.015, 1), (0.05, 0.8), (0.08, 0)])
    return (note.velocity * out).astype(np.float32)
