"""From scores to sound: phrases for one instrument, mixtures of several, and how a score is performed and
recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tonnetz.synthesis.instruments import INSTRUMENTS, Instrument
from tonnetz.synthesis.player import Note, Player, key, player
from tonnetz.synthesis.room import Channel, record
from tonnetz.synthesis.signal import Signal

Event = tuple[float, float, float, float]  # onset s, offset s, MIDI pitch, velocity 0..1


@dataclass(frozen=True)
class Part:
    """What one player does: events in seconds, slurred or not, at a gain in decibels."""

    instrument: str
    player: int
    events: tuple[Event, ...]
    slurred: bool = False
    gain: float = 0.0


@dataclass(frozen=True)
class Score:
    """All that decides how a file sounds: its parts and the key of its random generator."""

    parts: tuple[Part, ...]
    key: tuple[int, ...]

    @property
    def labels(self) -> list[str]:
        """Names of the sounding instruments, sorted."""
        return sorted({part.instrument for part in self.parts})

    @property
    def notes(self) -> list[list[float]]:
        """All pitched notes of all parts: [onset s, offset s, MIDI pitch, MIDI velocity], by onset, then
        pitch.
        """
        return written([event for part in self.parts if INSTRUMENTS[part.instrument].pitched for event in part.events])


def render(score: Score, *, seconds: float, rate: int, seed: int, channel: Channel | None = None) -> Signal:
    """Perform a score and record it; returns (N,) float32 with peak <= 1. Depends on its arguments alone."""
    rng = np.random.default_rng(score.key)
    total = np.zeros(round(seconds * rate), dtype=np.float32)
    for part in score.parts:
        who = player(part.instrument, part.player, seed)
        sound = perform(INSTRUMENTS[part.instrument], part.events, who, rng, seconds, rate, slurred=part.slurred)
        total += np.float32(10.0 ** (part.gain / 20.0)) * sound
    return record(total, rng, rate, channel or Channel())


def perform(
    instrument: Instrument,
    events: Sequence[Event],
    who: Player,
    rng: np.random.Generator,
    seconds: float,
    rate: int,
    *,
    slurred: bool = False,
) -> Signal:
    """Play events on an instrument; returns the dry sound (N,) cut at `seconds`, RMS of its sounding half
    about 0.1.
    """
    out = np.zeros(round(seconds * rate), dtype=np.float32)
    last: Event | None = None
    for onset, offset, pitch, velocity in events:
        # a slur needs the note before to end where this one starts
        joined = slurred and last is not None and abs(last[1] - onset) < 0.02 and 0 < abs(last[2] - pitch) < 8
        previous = last[2] if joined and last is not None else None
        sound = instrument.voice(Note(pitch, max(0.03, offset - onset), velocity, previous), who, rng, rate)
        at = round(onset * rate)
        length = min(len(sound), len(out) - at)
        if length > 0:
            out[at : at + length] += sound[:length]
        last = (onset, offset, pitch, velocity)
    loud = np.sort(np.abs(out))[int(0.7 * len(out)) :]
    return (out * np.float32(0.1 / (np.sqrt(np.mean(loud**2)) + 1e-6))).astype(np.float32)


# style: seconds between onsets (from, to), largest step in semitones, share of that time that a note is held
RUNS = {
    "repeat": ((0.07, 0.16), 0, (0.9, 0.9)),
    "beat": ((0.16, 0.45), 0, (1.0, 1.0)),
    "staccato": ((0.14, 0.4), 3, (0.35, 0.6)),
    "arpeggio": ((0.09, 0.3), 5, (1.0, 3.0)),
    "phrase": ((0.2, 0.7), 4, (1.0, 1.0)),
    "legato": ((0.2, 0.7), 4, (1.0, 1.0)),
}


def phrase(instrument: Instrument, rng: np.random.Generator, seconds: float) -> tuple[list[Event], bool]:
    """A few notes in one of the instrument's styles, within `seconds`; also says whether they are slurred."""
    names = list(instrument.styles)
    weights = np.array([instrument.styles[name] for name in names])
    style = str(rng.choice(names, p=weights / weights.sum()))
    start, end = rng.uniform(0.0, 0.22) * seconds, rng.uniform(0.75, 1.0) * seconds
    velocity = rng.uniform(0.35, 1.0)
    pitch = float(rng.integers(instrument.low, instrument.high + 1))
    if style == "long":
        return [(start, start + (end - start) * rng.uniform(0.4, 1.0), pitch, velocity)], False
    if style == "chord":
        return _chords(instrument, rng, start, end, pitch, velocity), False
    return _run(instrument, rng, style, start, end, pitch, velocity), style == "legato"


def _run(
    instrument: Instrument,
    rng: np.random.Generator,
    style: str,
    start: float,
    end: float,
    pitch: float,
    velocity: float,
) -> list[Event]:
    """A row of notes: one pitch again and again, broken chords in one direction, or a walk up and down."""
    gaps, step, shares = RUNS[style]
    gap, share = rng.uniform(*gaps), rng.uniform(*shares)
    direction = int(rng.choice([-1, 1]))
    events: list[Event] = []
    while start < end - 0.08:
        length = gap * (rng.choice([0.5, 1.0, 1.0, 2.0]) if style in ("phrase", "legato", "beat") else 1.0)
        length = min(length, end - start) if start + 1.5 * length < end else end - start
        loud = float(np.clip(velocity * rng.uniform(0.75, 1.2), 0.2, 1.0))
        events.append((start, min(end, start + length * share), pitch, loud))
        start += length
        if not step:
            continue
        if rng.random() < (0.2 if style == "arpeggio" else 0.5):
            direction = -direction
        pitch += direction * int(rng.integers(3 if style == "arpeggio" else 1, step + 1))
        if not instrument.low <= pitch <= instrument.high:  # turn back at the end of the range
            direction = -direction
            pitch = 2 * float(np.clip(pitch, instrument.low, instrument.high)) - pitch
    return events


def _chords(
    instrument: Instrument, rng: np.random.Generator, start: float, end: float, pitch: float, velocity: float
) -> list[Event]:
    """One to three chords of three or four notes."""
    count = int(rng.integers(1, 4))
    edges = np.linspace(start, end, count + 1)
    root = float(np.clip(pitch, instrument.low, instrument.high - 12))
    events: list[Event] = []
    for onset, offset in pairwise(edges):
        shape = [(0, 4, 7), (0, 3, 7), (0, 4, 7, 12), (0, 3, 7, 10), (0, 5, 9)][rng.integers(5)]
        strum = rng.uniform(0.0, 0.025)
        for number, interval in enumerate(shape):
            events.append((float(onset) + number * strum, float(offset) - 0.02, root + interval, 0.8 * velocity))
        root = float(np.clip(root + rng.choice([-5, -3, -2, 2, 3, 5]), instrument.low, instrument.high - 12))
    return events


def written(events: Sequence[Event]) -> list[list[float]]:
    """Events as rows for a note list: [onset s, offset s, MIDI pitch, MIDI velocity], in order of onset then
    pitch.
    """
    rows = [[round(a, 4), round(b, 4), float(p), float(round(127 * v))] for a, b, p, v in events]
    return sorted(rows, key=lambda row: (row[0], row[2]))


def clip(name: str, index: int, who: int, *, seconds: float, seed: int) -> Score:
    """Score of clip `index` of one instrument: a note or a short phrase by player `who`."""
    rng = np.random.default_rng([seed, key("clip"), key(name), index])
    events, slurred = phrase(INSTRUMENTS[name], rng, seconds)
    return Score((Part(name, who, tuple(events), slurred),), (seed, key("clip sound"), key(name), index))


def mixture(names: Sequence[str], players: Sequence[int], index: int, *, seconds: float, seed: int) -> Score:
    """Score of mixture `index`: a phrase for each instrument, at loudnesses up to 8 dB apart."""
    rng = np.random.default_rng([seed, key("mixture"), index])
    parts = []
    for name, who in zip(names, players, strict=True):
        events, slurred = phrase(INSTRUMENTS[name], rng, seconds)
        parts.append(Part(name, who, tuple(events), slurred, float(rng.uniform(-8, 0))))
    return Score(tuple(parts), (seed, key("mixture sound"), index))
