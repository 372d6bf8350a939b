"""Chordophones: plucked strings (Karplus-Strong), struck strings (inharmonic modes), bowed strings (Helmholtz
motion).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tonnetz.synthesis.player import Note, Player
from tonnetz.synthesis.signal import (
    Signal,
    adsr,
    band_noise,
    formants,
    hertz,
    modes,
    pluck,
    ramp,
    seconds_axis,
    shape_spectrum,
    string,
    wander,
    wavetable,
)


def plucked(
    note: Note,
    player: Player,
    rng: np.random.Generator,
    rate: int,
    *,
    decay: float,
    damping: float,
    position: float,
    softness: float,
    courses: tuple[float, ...] = (0.0,),
    release: float = 0.08,
    scrape: float = 0.05,
) -> Signal:
    """Plucked string. decay: seconds at middle C; damping: 0 bright .. 0.5 dull; position: of the pluck, from
    the bridge; softness: share of the excitation left one kHz higher; courses: cents of each string of a
    course; scrape: plectrum noise.
    """
    samples = int((note.seconds + release) * rate)
    frequency = hertz(note.pitch + 0.06 * player.detune)
    ring = decay * 2.0 ** (0.6 * player.decay) * (261.6 / frequency) ** 0.5
    damping = float(np.clip(damping * 2.0 ** (0.5 * player.bright), 0.02, 0.5))
    place = float(np.clip(position * 2.0 ** (0.5 * player.body) * rng.uniform(0.85, 1.15), 0.03, 0.5))
    soft = min(0.98, softness * (0.75 + 0.35 * note.velocity))
    out = np.zeros(samples, dtype=np.float32)
    for cents in courses:
        each = frequency * 2.0 ** (cents * (1 + 0.4 * player.vibrato_depth) / 1200)
        source = pluck(rng, each, place, soft, rate)
        out += string(source, each, ring, damping, samples, rate)
    if scrape > 0:
        click = int(0.006 * rate)
        noise = rng.standard_normal(click).astype(np.float32) * np.linspace(1, 0, click, dtype=np.float32)
        out[:click] += scrape * (1 + 0.5 * player.noise) * noise[: len(out)]
    return note.velocity * out * ramp(samples, rate, [(note.seconds, 1.0), (note.seconds + release, 0.0)])


def banjo(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Short bright string on a drum head whose own modes thump at the attack."""
    out = plucked(
        note,
        player,
        rng,
        rate,
        decay=0.75,
        damping=0.12,
        position=0.09,
        softness=0.93,
        scrape=0.25,
        release=0.05,
    )
    head = np.array([290.0, 460.0, 620.0, 790.0]) * 2 ** (0.15 * player.body)
    thump = modes(head, np.full(4, 0.09), np.full(4, 0.12), rng.uniform(0, 6, 4), len(out), rate)
    return out + note.velocity * thump


def mandolin(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Double course played tremolo: a fast plectrum goes to and fro as long as the note lasts."""
    if note.seconds < 0.28:
        return _mandolin_stroke(note, player, rng, rate)
    gap = 1.0 / (11.5 * 2 ** (0.2 * player.vibrato_rate) * rng.uniform(0.93, 1.07))
    out = np.zeros(int((note.seconds + 0.5) * rate), dtype=np.float32)
    # one ringing stroke, repeated, is enough: the strokes differ by their strength and a little in time
    stroke = _mandolin_stroke(Note(note.pitch, 0.3, note.velocity), player, rng, rate)
    for count, start in enumerate(np.arange(0.0, note.seconds - 0.02, gap)):
        at = int(max(0.0, start + rng.normal() * 0.004 * (count > 0)) * rate)
        length = min(len(stroke), len(out) - at, int(1.05 * gap * rate) if start + gap < note.seconds else len(stroke))
        out[at : at + length] += (0.75 + 0.25 * (count % 2 == 0)) * rng.uniform(0.8, 1.0) * stroke[:length]
    return out


def _mandolin_stroke(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    return plucked(
        note,
        player,
        rng,
        rate,
        decay=1.0,
        damping=0.15,
        position=0.14,
        softness=0.9,
        courses=(-5.0, 6.0),
        release=0.1,
        scrape=0.15,
    )


def harpsichord(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Two bright choirs an octave apart, indifferent to velocity, and the jack's clack when the key is let
    go.
    """
    flat = Note(note.pitch, note.seconds, 0.8)
    rank = partial(plucked, damping=0.06, position=0.12, softness=0.97, release=0.06, scrape=0.3)
    out = rank(flat, player, rng, rate, decay=3.0, courses=(0.0, 2.5))
    octave = Note(note.pitch + 12, note.seconds, 0.6 + 0.2 * player.body)
    out += rank(octave, player, rng, rate, decay=2.4)
    at = int(note.seconds * rate)
    clack = np.concatenate([np.zeros(at), band_noise(rng, int(0.03 * rate), 500, 3000, rate)]).astype(np.float32)
    clack[at:] *= np.linspace(1, 0, len(clack) - at, dtype=np.float32) ** 2
    longer = np.zeros(max(len(out), len(clack)), dtype=np.float32)
    longer[: len(out)] = out
    longer[: len(clack)] += 0.12 * (1 + 0.5 * player.noise) * clack
    return longer


def distorted_guitar(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Two strings a fifth apart through a soft clipper and a loudspeaker: sustained, full of difference
    tones.
    """
    root = plucked(note, player, rng, rate, decay=5.0, damping=0.25, position=0.2, softness=0.8, release=0.05)
    fifth = Note(note.pitch + 7, note.seconds, 0.8 * note.velocity)
    dry = (
        root
        + plucked(fifth, player, rng, rate, decay=5.0, damping=0.25, position=0.2, softness=0.8, release=0.05)[
            : len(root)
        ]
    )
    driven = np.tanh(dry * (14.0 * 2.0 ** (0.5 * player.bright)))
    speaker = shape_spectrum(driven, lambda f: 1 / (1 + (f / 3800.0) ** 4) * f / (f + 90.0), rate)
    return 0.6 * speaker * ramp(len(root), rate, [(note.seconds, 1.0), (note.seconds + 0.05, 0.0)])


def piano(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Struck, stiff strings: partials k f sqrt(1 + B k^2) (Fletcher 1964), with a double decay and a
    thump.
    """
    release = 0.12
    samples = int((note.seconds + release) * rate)
    frequency = hertz(note.pitch + 0.04 * player.detune)
    count = int(min(28, 0.44 * rate / frequency))
    order = np.arange(1, count + 1)
    stiffness = 2.5e-4 * 2.0 ** ((note.pitch - 60) / 9.0) * 2.0 ** (0.4 * player.body)
    partials = order * frequency * np.sqrt(1 + stiffness * order**2)
    # a felt hammer is a low-pass filter that a faster blow opens
    cut = 700.0 * 2.0 ** (2.2 * note.velocity + 0.5 * player.bright)
    strength = np.abs(np.sin(np.pi * order / 8.0)) / order**0.5 / (1 + (partials / cut) ** 2)
    decay = 7.0 * 2.0 ** (-(note.pitch - 48) / 14.0) / (1 + 0.12 * order) * 2.0 ** (0.4 * player.decay)
    phase = rng.uniform(0, 2 * np.pi, count)
    spread = 2.0 ** (rng.normal(0, 0.5, count) / 1200)
    # the strings of a note are a little mistuned: together they fall fast, then slowly (Weinreich 1977)
    out = modes(partials, 0.25 * decay, 0.75 * strength, phase, samples, rate)
    out += modes(partials * spread, decay, 0.35 * strength, phase, samples, rate)
    thump = modes(np.array([70.0, 115.0, 190.0, 330.0]), np.full(4, 0.08), np.full(4, 0.25), np.zeros(4), samples, rate)
    attack = ramp(samples, rate, [(0.0, 0.0), (0.002, 1.0), (note.seconds, 1.0), (note.seconds + release, 0.0)])
    out += (0.6 + 0.4 * player.noise) * thump
    return note.velocity * out * attack


def bowed(
    note: Note,
    player: Player,
    rng: np.random.Generator,
    rate: int,
    *,
    body: list[tuple[float, float, float]],
    depth: float,
    attack: float,
    noise: float,
    speed: float = 5.8,
    cut: float = 3500.0,
) -> Signal:
    """Bowed string: sawtooth-like Helmholtz motion, fixed body resonances (so that vibrato becomes a ripple
    of each partial's strength), bow noise in the rhythm of the string, a scoop at the attack. depth: of
    the vibrato, cents.
    """
    release = 0.09
    samples = int((note.seconds + release) * rate)
    time = seconds_axis(samples, rate)
    frequency = hertz(note.pitch + 0.08 * player.detune)
    late = np.clip((time - 0.12) / 0.3, 0, 1)
    cents = depth * 2.0 ** (0.4 * player.vibrato_depth) * late
    cents = cents * np.sin(2 * np.pi * (speed + 0.5 * player.vibrato_rate) * time + rng.uniform(0, 6))
    start = -25.0 if note.previous is None else 100.0 * (note.previous - note.pitch)
    glide = 0.03 if note.previous is None else 0.06
    cents = cents + start * np.exp(-time / np.float32(glide)) + 3.0 * wander(rng, samples, rate, 8.0)
    wave = frequency * 2.0 ** (cents / 1200)
    harmonics = int(min(70, 0.44 * rate / frequency))
    order = np.arange(1, harmonics + 1)
    tilt = 1.0 + 0.15 * player.bright
    spectra = np.stack([order**-tilt / (1 + (order * frequency / (cut * loud)) ** 3) for loud in (0.45, 1.0)])
    slow = attack * 2.0 ** (0.5 * player.attack) * (1.4 - 0.6 * note.velocity)
    level = adsr(samples, rate, note.seconds, slow, 0.2, 0.85, release) * (1 + 0.12 * wander(rng, samples, rate, 5.0))
    tone = wavetable(spectra, wave.astype(np.float32), level, rate)
    place = np.cumsum(wave, dtype=np.float64) / rate
    grain = (0.4 + 0.6 * (1 - (place - np.floor(place)))).astype(np.float32)
    rasp = band_noise(rng, samples, 900, 6000, rate) * grain * (0.35 + np.exp(-time / 0.07))
    raw = level * (tone / np.sqrt(np.mean(tone**2) + 1e-9) + noise * 2.0 ** (0.6 * player.noise) * rasp)
    scale = 2.0 ** (0.12 * player.body)
    shape = [(centre * scale, gain, width) for centre, gain, width in body]
    return note.velocity * shape_spectrum(raw.astype(np.float32), lambda f: formants(f, shape, 0.12), rate)
