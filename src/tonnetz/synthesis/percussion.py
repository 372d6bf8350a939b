"""Idiophones and membranophones: modal bars, membranes and bells, and shaped noise."""

from __future__ import annotations

import numpy as np

from tonnetz.synthesis.player import Note, Player
from tonnetz.synthesis.signal import Array, Signal, band_noise, hertz, modes, ramp, seconds_axis


def struck(
    note: Note,
    player: Player,
    rng: np.random.Generator,
    rate: int,
    *,
    ratios: tuple[float, ...],
    gains: tuple[float, ...],
    decay: float,
    fall: float = 1.0,
    mallet: float = 0.1,
    motor: tuple[float, float] = (0.0, 0.0),
    tail: float = 1.0,
) -> Signal:
    """Struck bar or membrane: modes at fixed ratios. decay: seconds (60 dB) of the first at middle C; fall:
    how much faster the higher ones die; mallet: click of the blow; motor: (Hz, depth) of a rotating fan;
    tail: seconds it rings on.
    """
    samples = int((note.seconds + tail) * rate)
    frequency = hertz(note.pitch + 0.05 * player.detune)
    partial = frequency * np.array(ratios)
    partial[1:] *= 2.0 ** (0.02 * player.body + rng.normal(0, 0.003, len(ratios) - 1))
    ring = decay * (261.6 / frequency) ** 0.4 * 2.0 ** (0.4 * player.decay)
    seconds = ring / np.array(ratios) ** fall
    hard = np.array(gains) * (0.35 + 0.65 * note.velocity + 0.25 * player.bright) ** np.arange(len(gains))
    out = modes(partial, seconds, hard, rng.uniform(0, 2 * np.pi, len(ratios)), samples, rate)
    if motor[1]:
        turn = 2 * np.pi * motor[0] * 2 ** (0.2 * player.vibrato_rate) * seconds_axis(samples, rate)
        out *= 1 - motor[1] * (0.5 + 0.5 * np.sin(turn + rng.uniform(0, 6)))
    click = int(0.012 * rate)
    knock = band_noise(rng, click, 400, 3000, rate) * np.linspace(1, 0, click, dtype=np.float32) ** 2
    out[:click] += mallet * (1 + 0.5 * player.noise) * knock[: len(out)]
    return (
        note.velocity
        * out
        * ramp(samples, rate, [(0, 0), (0.001, 1), (note.seconds + 0.6 * tail, 1), (note.seconds + tail, 0)])
    )


def kick_drum(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """A membrane whose pitch falls quickly, and the click of the beater."""
    samples = int(0.45 * rate)
    time = seconds_axis(samples, rate)
    base = 52.0 * 2.0 ** (0.3 * player.body)
    sweep = base * (1 + (2.2 + player.bright) * np.exp(-time / (0.035 * 2 ** (0.4 * player.attack))))
    tone = np.sin(2 * np.pi * np.cumsum(sweep) / rate) * np.exp(-time / (0.11 * 2 ** (0.4 * player.decay)))
    click = band_noise(rng, samples, 1500, 5000, rate) * np.exp(-time / 0.004) * 0.25 * 2**player.noise
    return (note.velocity * (tone + click) * ramp(samples, rate, [(0.35, 1), (0.45, 0)])).astype(np.float32)


def snare_drum(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Two membrane modes and the rattle of the wires."""
    samples = int(0.4 * rate)
    time = seconds_axis(samples, rate)
    head = np.array([185.0, 330.0, 455.0]) * 2.0 ** (0.25 * player.body)
    tone = modes(head, np.array([0.28, 0.2, 0.15]), np.array([1.0, 0.6, 0.3]), np.zeros(3), samples, rate)
    wires = band_noise(rng, samples, 1200, 7000, rate, 6.0) * np.exp(-time / (0.06 * 2 ** (0.5 * player.decay)))
    wires *= 1 - 0.5 * np.exp(-time / 0.006)
    return (
        note.velocity * (tone + 0.5 * 2 ** (0.5 * player.noise) * wires) * ramp(samples, rate, [(0.3, 1), (0.4, 0)])
    ).astype(np.float32)


def metal(player: Player, count: int, low: float, high: float) -> Array:
    """Mode frequencies (Hz) of a plate: dense, unrelated, the same for every blow, (count,)."""
    own = np.random.default_rng([int((player.body + 2) * 1e6), count])
    return np.exp(own.uniform(np.log(low), np.log(high), count))


def cymbal(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Many dense modes that die from the top, with a wash that builds up a moment after the blow."""
    samples = int((note.seconds + 1.2) * rate)
    time = seconds_axis(samples, rate)
    partial = metal(player, 60, 280.0, 7200.0)
    decay = 3.2 * 2 ** (0.5 * player.decay) * (1000.0 / partial) ** 0.45
    tone = modes(partial, decay, rng.uniform(0.3, 1, 60) * 0.16, rng.uniform(0, 6, 60), samples, rate)
    wash = band_noise(rng, samples, 2500, 7500, rate) * np.exp(-time / (0.45 * 2 ** (0.4 * player.decay)))
    wash *= 1 - 0.7 * np.exp(-time / 0.03)
    fade = ramp(samples, rate, [(note.seconds + 0.8, 1), (note.seconds + 1.2, 0)])
    return (note.velocity * (tone + 0.45 * wash) * fade).astype(np.float32)


def tambourine(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """A slap, then pairs of jingles that clash a few more times: a burst of short, high metal pings."""
    samples = int(0.5 * rate)
    out = np.zeros(samples, dtype=np.float32)
    partial = metal(player, 14, 2400.0, 7200.0)
    times = np.concatenate([[0.0, 0.004], rng.exponential(0.05, 7)])
    for start in times[times < 0.25]:
        at = int(start * rate)
        gain = rng.uniform(0.4, 1.0) * np.exp(-start / 0.09)
        ping = modes(
            partial,
            rng.uniform(0.08, 0.3, 14),
            rng.uniform(0.2, 1, 14),
            rng.uniform(0, 6, 14),
            samples - at,
            rate,
        )
        out[at:] += np.float32(0.2 * gain) * ping
    skin = modes(
        np.array([240.0, 410.0]) * 2 ** (0.2 * player.body),
        np.array([0.1, 0.07]),
        np.array([0.5, 0.3]),
        np.zeros(2),
        samples,
        rate,
    )
    return note.velocity * (out + skin) * ramp(samples, rate, [(0.4, 1), (0.5, 0)])


def shaker(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Beads: noise that swells and stops, forth and a weaker back stroke."""
    length = 0.09 * 2.0 ** (0.3 * player.attack)
    samples = int(3.2 * length * rate)
    beads = band_noise(rng, samples, 2600 * 2 ** (0.3 * player.body), 6500, rate, 18.0)
    strokes = [
        (0.0, 0.0),
        (0.8 * length, 1.0),
        (1.1 * length, 0.05),
        (1.5 * length, 0.03),
        (2.2 * length, 0.45),
        (2.5 * length, 0.0),
    ]
    # beads hit one by one: a grainy, not a smooth, noise
    grain = np.repeat(rng.exponential(1.0, samples // 24 + 1), 24)[:samples].astype(np.float32)
    return (0.6 * note.velocity * beads * ramp(samples, rate, strokes) ** 1.5 * grain).astype(np.float32)
