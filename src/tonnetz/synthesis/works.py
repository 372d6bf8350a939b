"""Works and their versions: melodies made from a number, and the many ways in which they can be played again.

A work is a tune in relative pitches: motifs make phrases, phrases make sections, sections make a form. A
version keeps the tune and changes the key, tempo, instrument, ornaments, structure, the place where it
starts, and who accompanies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tonnetz.synthesis.instruments import INSTRUMENTS
from tonnetz.synthesis.player import key
from tonnetz.synthesis.render import Event, Part, Score

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
FORMS = ("ABAC", "AABA", "ABCB", "ABAB", "AABC", "ABCA")
RHYTHMS: dict[int, tuple[tuple[float, ...], ...]] = {  # beats of one bar
    3: ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (1, 0.5, 0.5, 1), (0.5, 0.5, 0.5, 0.5, 1), (1, 2), (0.5, 0.5, 2)),
    4: (
        (1, 1, 1, 1),
        (2, 1, 1),
        (1.5, 0.5, 2),
        (1, 0.5, 0.5, 2),
        (0.5, 0.5, 1, 1, 1),
        (1, 1, 2),
        (1.5, 0.5, 1, 1),
    ),
}
LEADS = (
    "violin",
    "flute",
    "clarinet",
    "oboe",
    "trumpet",
    "alto_saxophone",
    "piano",
    "acoustic_guitar",
    "harpsichord",
    "accordion",
    "electric_piano",
    "electronic_organ",
    "vibraphone",
    "marimba",
    "female_singer",
    "recorder",
    "mandolin",
)
CHORD_PLAYERS = (
    "acoustic_guitar",
    "piano",
    "electric_piano",
    "electronic_organ",
    "accordion",
    "harp",
    "pipe_organ",
)
DRUMS = ("kick_drum", "snare_drum", "shaker", "tambourine", "cymbal")

Tune = list[tuple[float, float, int]]  # onset beat, beats, semitones above the tonic


@dataclass(frozen=True)
class Work:
    """A tune without key and tempo: `sections` by letter, their order `form`, a chord (its root, semitones)
    for every bar.
    """

    meter: int
    tempo: float
    form: str
    scale: tuple[int, ...]
    sections: dict[str, Tune]
    chords: dict[str, list[tuple[int, int, int]]]
    bars: int = 4

    def tune(self, form: str | None = None) -> Tune:
        """The melody over all sections of `form` (default: its own), beats from 0."""
        length = self.bars * self.meter
        return [
            (start + number * length, beats, pitch)
            for number, letter in enumerate(form or self.form)
            for start, beats, pitch in self.sections[letter]
        ]


def work(number: int, seed: int = 0) -> Work:
    """Work `number`; it depends on nothing but the two numbers."""
    rng = np.random.default_rng([seed, key("work"), number])
    meter = int(rng.choice([3, 4, 4]))
    scale = SCALES[str(rng.choice(sorted(SCALES), p=[0.2, 0.4, 0.25, 0.15]))]
    form = str(rng.choice(FORMS))
    sections, chords = {}, {}
    rhythms = [RHYTHMS[meter][i] for i in rng.choice(len(RHYTHMS[meter]), 3, replace=False)]
    for letter in "ABC":
        sections[letter], chords[letter] = _section(rng, meter, scale, rhythms)
    return Work(meter, float(rng.uniform(95, 150)), form, scale, sections, chords)


def _degree(scale: tuple[int, ...], degree: int) -> int:
    """Semitones of a scale degree, which may lie outside one octave."""
    return scale[degree % 7] + 12 * (degree // 7)


def _section(
    rng: np.random.Generator, meter: int, scale: tuple[int, ...], rhythms: list[tuple[float, ...]]
) -> tuple[Tune, list[tuple[int, int, int]]]:
    """Four bars: a motif, its answer, the motif moved, a close; with one triad per bar under them."""
    roots = [0, int(rng.choice([3, 4, 5])), int(rng.choice([1, 3, 5])), int(rng.choice([0, 4]))]
    order = rng.permutation(len(rhythms))
    pattern = [rhythms[order[0]], rhythms[order[1]], rhythms[order[0]], rhythms[order[2]]]
    steps = rng.choice([-3, -2, -1, -1, 1, 1, 2, 3, 4], size=max(map(len, rhythms)))
    tune: Tune = []
    degree = int(rng.integers(0, 6))
    for bar, (rhythm, root) in enumerate(zip(pattern, roots, strict=True)):
        # the strong beat falls on a note of the bar's chord
        degree = min(
            (root + third + 7 * octave for third in (0, 2, 4) for octave in (-1, 0, 1)),
            key=lambda d: abs(d - degree),
        )
        start = float(bar * meter)
        for number, beats in enumerate(rhythm):
            if number:
                move = int(steps[number]) if bar % 2 == 0 else int(rng.choice([-2, -1, -1, 1, 1, 2]))
                degree += move if -3 <= degree + move <= 10 else -move
            tune.append((start, float(beats), _degree(scale, degree)))
            start += beats
    chords = [tuple(_degree(scale, root + third) for third in (0, 2, 4)) for root in roots]
    return tune, [(a, b, c) for a, b, c in chords]


@dataclass(frozen=True)
class Version:
    """How one version differs from its work. start: beats left out at the beginning."""

    key_shift: int
    tempo: float
    instrument: str
    form: str
    start: float
    ornament: float
    chords: str | None
    drums: tuple[str, ...]
    who: int


def version(number: int, index: int, seed: int = 0) -> Version:
    """Version `index` of work `number`. Version 0 is the plain one: original key and tempo, complete,
    unadorned.
    """
    song = work(number, seed)
    rng = np.random.default_rng([seed, key("version"), number, index])
    instrument = str(rng.choice(LEADS))
    chords = str(rng.choice([name for name in CHORD_PLAYERS if name != instrument])) if rng.random() < 0.7 else None
    drums = tuple(str(name) for name in rng.choice(DRUMS, 2, replace=False)) if rng.random() < 0.4 else ()
    who = int(rng.integers(20))
    if index == 0:
        return Version(0, song.tempo, instrument, song.form, 0.0, 0.0, chords, drums, who)
    form = song.form
    change = rng.choice(["same", "repeat", "omit"], p=[0.5, 0.25, 0.25])
    if change == "repeat":
        form = form[0] + form
    elif change == "omit":
        gone = int(rng.integers(1, len(form)))
        form = form[:gone] + form[gone + 1 :]
    start = float(rng.choice([0, 0, 1, 2])) * song.meter
    tempo = song.tempo * float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    ornament = float(rng.choice([0.0, 0.15, 0.3]))
    return Version(int(rng.integers(-6, 7)), tempo, instrument, form, start, ornament, chords, drums, who)


def melody(song: Work, how: Version, seconds: float) -> list[Event]:
    """The tune as a version plays it, unadorned, within `seconds`: events in seconds and MIDI pitches."""
    beat = 60.0 / how.tempo
    tonic = _tonic(song, how)
    events = []
    for start, beats, pitch in song.tune(how.form):
        onset = (start - how.start) * beat + 0.1
        offset = min(onset + 0.95 * beats * beat, seconds)
        if onset > 0.05 and onset < seconds - 0.1:
            events.append((onset, offset, float(tonic + pitch), 0.8))
    return events


def _tonic(song: Work, how: Version) -> int:
    """Tonic (MIDI) in the version's key, in the octave where the tune lies best on the instrument."""
    pitches = [pitch for _, _, pitch in song.tune()]
    instrument = INSTRUMENTS[how.instrument]
    middle = 0.5 * (instrument.low + instrument.high) - 0.5 * (min(pitches) + max(pitches))
    tonic = 60 + how.key_shift
    return tonic + 12 * round((min(max(middle, 52), 72) - tonic) / 12)


def adorned(
    events: list[Event], scale: tuple[int, ...], tonic: int, amount: float, rng: np.random.Generator
) -> list[Event]:
    """The melody with ornaments on a share `amount` of its longer notes, and with a player's dynamics."""
    out: list[Event] = []
    for onset, offset, pitch, velocity in events:
        velocity = float(np.clip(velocity * rng.uniform(0.8, 1.2), 0.2, 1.0))
        # the ornament's auxiliary is the next note of the scale
        upper = pitch + (1.0 if (round(pitch) + 1 - tonic) % 12 in scale else 2.0)
        length = offset - onset
        kind = rng.choice(["grace", "mordent"])
        if rng.random() >= amount or length < 0.3:
            out.append((onset, offset, pitch, velocity))
        elif kind == "grace":
            out += [(onset, onset + 0.07, upper, 0.8 * velocity), (onset + 0.07, offset, pitch, velocity)]
        else:
            edges = [onset, onset + 0.08, onset + 0.16, offset]
            out += [(a, b, p, velocity) for a, b, p in zip(edges[:-1], edges[1:], (pitch, upper, pitch), strict=True)]
    return out


def accompaniment(song: Work, how: Version, seconds: float, rng: np.random.Generator) -> list[Event]:
    """One triad per bar, held or broken, below the tune."""
    beat = 60.0 / how.tempo
    tonic = 48 + how.key_shift
    broken = rng.random() < 0.5
    events: list[Event] = []
    bars = [chord for letter in how.form for chord in song.chords[letter]]
    for bar, chord in enumerate(bars):
        for number in range(song.meter):
            onset = (bar * song.meter + number - how.start) * beat + 0.1
            if onset < 0.05 or onset > seconds - 0.1:
                continue
            if broken:
                pitch = tonic + chord[number % 3]
                events.append((onset, min(onset + 0.9 * beat, seconds), float(pitch), 0.6))
            elif number == 0:
                held = min(onset + 0.9 * song.meter * beat, seconds)
                events += [(onset, held, float(tonic + tone), 0.5) for tone in chord]
    return events


def beats(song: Work, how: Version, seconds: float, place: int) -> list[Event]:
    """A drum's pattern: the first drum on the strong beats, the second on every beat."""
    beat = 60.0 / how.tempo * (song.meter / 2 if place == 0 else 1.0)
    onsets = np.arange(0.1, seconds - 0.1, beat)
    return [(float(onset), float(onset) + 0.1, 38.0, 0.7) for onset in onsets]


def version_score(number: int, index: int, *, seconds: float, seed: int = 0) -> tuple[Score, list[Event]]:
    """Score of version `index` of work `number`, and its plain melody, which all versions share up to key and
    tempo.
    """
    song, how = work(number, seed), version(number, index, seed)
    rng = np.random.default_rng([seed, key("score"), number, index])
    plain = melody(song, how, seconds)
    parts = [Part(how.instrument, how.who, tuple(adorned(plain, song.scale, _tonic(song, how), how.ornament, rng)))]
    if how.chords is not None:
        chords = accompaniment(song, how, seconds, rng)
        parts.append(Part(how.chords, how.who, tuple(chords), gain=float(rng.uniform(-14, -5))))
    for place, name in enumerate(how.drums):
        events = tuple(beats(song, how, seconds, place))
        parts.append(Part(name, how.who, events, gain=float(rng.uniform(-18, -8))))
    return Score(tuple(parts), (seed, key("performance"), number, index)), plain
