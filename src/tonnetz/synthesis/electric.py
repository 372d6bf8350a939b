"""Electrophones: tine piano by frequency modulation, tone-wheel organ behind a rotating loudspeaker."""

from __future__ import annotations

import numpy as np

from tonnetz.synthesis.player import Note, Player
from tonnetz.synthesis.signal import Signal, adsr, band_noise, hertz, ramp, seconds_axis, wavetable


def electric_piano(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Two FM pairs (Chowning 1973): 1:1 for the body, 1:14 for the tine's bell, and a slow tremolo."""
    release = 0.15
    samples = int((note.seconds + release) * rate)
    time = seconds_axis(samples, rate)
    turn = 2 * np.pi * hertz(note.pitch + 0.03 * player.detune) * np.arange(samples) / rate
    index = (0.5 + 1.6 * note.velocity + 0.5 * player.bright) * np.exp(-time / (0.5 * 2 ** (0.4 * player.decay)))
    body = np.sin(turn + index * np.sin(turn)) * np.exp(-time / (1.3 * 2 ** (0.4 * player.decay)))
    ratio = min(14.0, np.floor(0.4 * rate / hertz(note.pitch)))
    bell = np.sin(ratio * turn) * np.exp(-time / 0.16) * 0.4 * 2 ** (0.6 * player.noise)
    shake = 1 - 0.1 * (0.5 + 0.5 * np.sin(2 * np.pi * (4.2 + player.vibrato_rate) * time + rng.uniform(0, 6)))
    fade = ramp(samples, rate, [(0, 0), (0.002, 1), (note.seconds, 1), (note.seconds + release, 0)])
    return (note.velocity * (body + bell) * shake * fade).astype(np.float32)


def electronic_organ(note: Note, player: Player, rng: np.random.Generator, rate: int) -> Signal:
    """Nine drawbars, a key click, and a rotor that moves pitch and loudness together some seven times a
    second.
    """
    samples = int((note.seconds + 0.04) * rate)
    time = seconds_axis(samples, rate)
    drawbars = np.zeros((1, 16))
    # orders count from the sub-octave: 16', 8', 5 1/3', 4', 2 2/3', 2', 1 3/5', 1'
    drawbars[0, np.array([1, 2, 3, 4, 6, 8, 10, 16]) - 1] = [0.8, 1.0, 0.7, 0.6, 0.35, 0.4, 0.15, 0.25]
    drawbars *= 2.0 ** (0.6 * np.random.default_rng(int((player.bright + 2) * 1e6)).uniform(-1, 1, 16))
    below = hertz(note.pitch - 12)
    drawbars[0, np.arange(1, 17) * below > 0.45 * rate] = 0.0
    rotor = np.sin(2 * np.pi * (6.8 + 0.6 * player.vibrato_rate) * time + rng.uniform(0, 6))
    wave = below * 2.0 ** (22.0 * rotor / 1200)
    tone = wavetable(drawbars / np.sqrt(np.sum(drawbars**2)), wave.astype(np.float32), time, rate)
    click = band_noise(rng, samples, 1000, 5000, rate) * np.exp(-time / 0.004) * 0.5 * 2 ** (0.5 * player.noise)
    gate = adsr(samples, rate, note.seconds, 0.004, 0.01, 1.0, 0.02)
    return (0.7 * gate * (tone * (1 + 0.3 * rotor) + click)).astype(np.float32)
