"""The orchestra: every instrument's voice, range and ways of playing. Names are leaves of the taxonomy."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from tonnetz.synthesis import electric, percussion, strings, winds
from tonnetz.synthesis.player import Voice


@dataclass(frozen=True)
class Instrument:
    """An instrument: voice, comfortable range (MIDI), styles of playing with their weights, whether it has a
    pitch.
    """

    name: str
    voice: Voice
    low: int
    high: int
    styles: dict[str, float] = field(default_factory=dict)
    pitched: bool = True


BLOWN = {"long": 1.0, "legato": 2.0, "staccato": 1.0}
PLUCKED = {"long": 0.7, "staccato": 0.5, "phrase": 1.0, "arpeggio": 1.0}
CHORDAL = {"long": 0.7, "phrase": 1.0, "chord": 1.0, "arpeggio": 0.7, "staccato": 0.4}
STRUCK = {"long": 0.7, "phrase": 1.2, "repeat": 0.8, "arpeggio": 0.6}
BOWED = {"long": 1.2, "legato": 2.0, "repeat": 0.5}
BEATEN = {"beat": 2.0, "repeat": 1.0, "long": 0.5}

VIOLIN = [(290.0, 0.8, 80.0), (480.0, 1.0, 120.0), (1050.0, 0.6, 250.0), (2600.0, 1.0, 900.0)]
CELLO = [
    (105.0, 0.7, 30.0),
    (185.0, 1.0, 50.0),
    (240.0, 0.6, 60.0),
    (600.0, 0.5, 200.0),
    (1500.0, 0.3, 600.0),
]
BASS = [(62.0, 0.7, 25.0), (105.0, 1.0, 40.0), (220.0, 0.6, 80.0), (480.0, 0.4, 200.0)]
OBOE = [(1050.0, 1.0, 500.0), (2900.0, 0.5, 900.0)]
BASSOON = [(470.0, 1.0, 200.0), (1180.0, 0.25, 400.0)]


def _orchestra() -> list[Instrument]:
    horn = partial(winds.brass, soft=0.08, hard=0.42)
    trombone = partial(winds.brass, soft=0.2, hard=0.72)
    trumpet = partial(winds.brass, soft=0.35, hard=0.86)
    oboe = partial(winds.double_reed, peaks=OBOE)
    bassoon = partial(winds.double_reed, peaks=BASSOON)
    guitar = partial(strings.plucked, decay=2.2, damping=0.35, position=0.22, softness=0.72, release=0.12)
    harp = partial(strings.plucked, decay=5.0, damping=0.5, position=0.45, softness=0.45, release=1.2, scrape=0.0)
    bass = partial(strings.plucked, decay=2.6, damping=0.5, position=0.2, softness=0.45, release=0.06, scrape=0.08)
    sustained = winds.sustained
    return [
        Instrument("acoustic_guitar", guitar, 45, 79, CHORDAL),
        Instrument("banjo", strings.banjo, 50, 81, {"phrase": 1.0, "arpeggio": 2.0, "long": 0.4}),
        Instrument("mandolin", strings.mandolin, 55, 86, {"long": 1.0, "phrase": 2.0}),
        Instrument("harp", harp, 36, 91, {"arpeggio": 2.0, "long": 0.5, "chord": 0.7}),
        Instrument("electric_bass", bass, 28, 48, {"long": 0.5, "phrase": 2.0, "staccato": 0.7}),
        Instrument(
            "distorted_electric_guitar",
            strings.distorted_guitar,
            40,
            67,
            {"long": 1, "phrase": 1, "staccato": 1},
        ),
        Instrument("piano", strings.piano, 30, 96, CHORDAL),
        Instrument("harpsichord", strings.harpsichord, 41, 84, CHORDAL),
        Instrument(
            "violin",
            partial(strings.bowed, body=VIOLIN, depth=42.0, attack=0.09, noise=0.12, speed=6.2),
            57,
            93,
            BOWED,
        ),
        Instrument(
            "cello",
            partial(strings.bowed, body=CELLO, depth=36.0, attack=0.12, noise=0.14, speed=5.0),
            41,
            67,
            BOWED,
        ),
        Instrument(
            "double_bass",
            partial(strings.bowed, body=BASS, depth=10.0, attack=0.2, noise=0.3, speed=4.5, cut=1800.0),
            28,
            47,
            BOWED,
        ),
        Instrument("clarinet", partial(sustained, spectrum=winds.clarinet, attack=0.04, jitter=1.0), 50, 89, BLOWN),
        Instrument(
            "oboe",
            partial(sustained, spectrum=oboe, attack=0.03, vibrato=(6.3, 4.0, 0.05), tremolo=0.3, jitter=1.0),
            58,
            88,
            BLOWN,
        ),
        Instrument(
            "bassoon",
            partial(sustained, spectrum=bassoon, attack=0.02, scoop=(-20.0, 0.02), chiff=0.06, jitter=2.0),
            34,
            62,
            {"staccato": 2.0, "phrase": 1.0, "long": 0.5},
        ),
        Instrument(
            "alto_saxophone",
            partial(
                sustained,
                spectrum=winds.saxophone,
                attack=0.05,
                vibrato=(5.0, 32.0, 0.35),
                scoop=(-130.0, 0.06),
                breath=(0.09, 1500.0, 6000.0),
                jitter=4.0,
            ),
            49,
            80,
            BLOWN,
        ),
        Instrument(
            "trumpet",
            partial(
                sustained,
                spectrum=trumpet,
                attack=0.05,
                swell=0.65,
                sustain=0.7,
                scoop=(-35.0, 0.015),
                jitter=2.0,
            ),
            60,
            84,
            {"long": 1.0, "legato": 1.0, "staccato": 1.0, "repeat": 0.7},
        ),
        Instrument(
            "trombone",
            partial(
                sustained,
                spectrum=trombone,
                attack=0.06,
                swell=0.4,
                vibrato=(4.0, 14.0, 0.5),
                scoop=(-180.0, 0.07),
                glide=0.2,
            ),
            38,
            62,
            {"long": 1.0, "legato": 2.5, "staccato": 0.4},
        ),
        Instrument(
            "french_horn",
            partial(sustained, spectrum=horn, attack=0.15, swell=0.7, release=0.2, glide=0.04),
            41,
            74,
            BLOWN,
        ),
        Instrument(
            "flute",
            partial(
                sustained,
                spectrum=winds.flute,
                attack=0.07,
                vibrato=(5.2, 9.0, 0.1),
                tremolo=0.4,
                breath=(0.13, 700.0, 6000.0),
                jitter=2.5,
            ),
            60,
            93,
            BLOWN,
        ),
        Instrument(
            "recorder",
            partial(
                sustained,
                spectrum=winds.recorder,
                attack=0.02,
                sustain=1.0,
                chiff=0.35,
                breath=(0.015, 2000, 6000),
                jitter=1,
            ),
            65,
            94,
            {"long": 0.6, "phrase": 2.0, "staccato": 1.0},
        ),
        Instrument("pipe_organ", winds.organ_pipes, 36, 79, {"long": 0.5, "chord": 2.0, "phrase": 1.0}),
        Instrument("accordion", winds.accordion, 48, 84, {"long": 1.0, "chord": 1.0, "phrase": 1.5}),
        Instrument("electric_piano", electric.electric_piano, 36, 84, CHORDAL),
        Instrument("electronic_organ", electric.electronic_organ, 41, 84, {"long": 0.7, "chord": 1.5, "phrase": 1.5}),
        Instrument("male_singer", partial(winds.singer, tract=1.0), 40, 60, BLOWN),
        Instrument("female_singer", partial(winds.singer, tract=1.18), 62, 84, BLOWN),
        Instrument(
            "marimba",
            partial(
                percussion.struck,
                ratios=(1.0, 3.93, 9.6),
                gains=(1.0, 0.35, 0.12),
                decay=0.8,
                mallet=0.3,
                tail=0.4,
            ),
            45,
            89,
            STRUCK,
        ),
        Instrument(
            "vibraphone",
            partial(
                percussion.struck,
                ratios=(1.0, 4.0, 10.1),
                gains=(1.0, 0.25, 0.06),
                decay=6.0,
                motor=(5.0, 0.75),
                tail=1.2,
                mallet=0.08,
            ),
            53,
            89,
            {"long": 1.0, "phrase": 1.5, "chord": 0.7},
        ),
        Instrument(
            "glockenspiel",
            partial(
                percussion.struck,
                ratios=(1.0, 2.71, 5.15),
                gains=(1.0, 0.5, 0.25),
                decay=6.0,
                fall=0.7,
                tail=1.5,
            ),
            77,
            103,
            STRUCK,
        ),
        Instrument(
            "timpani",
            partial(
                percussion.struck,
                ratios=(1.0, 1.5, 1.98, 2.44, 2.9, 0.6),
                gains=(1.0, 0.75, 0.45, 0.3, 0.2, 0.25),
                decay=1.9,
                fall=0.6,
                mallet=0.4,
                tail=0.9,
            ),
            38,
            57,
            {"long": 0.7, "repeat": 2.0, "phrase": 0.7},
        ),
        Instrument("kick_drum", percussion.kick_drum, 36, 36, BEATEN, pitched=False),
        Instrument("snare_drum", percussion.snare_drum, 38, 38, BEATEN, pitched=False),
        Instrument("cymbal", percussion.cymbal, 49, 49, BEATEN, pitched=False),
        Instrument("tambourine", percussion.tambourine, 54, 54, BEATEN, pitched=False),
        Instrument("shaker", percussion.shaker, 82, 82, BEATEN, pitched=False),
    ]


INSTRUMENTS: dict[str, Instrument] = {instrument.name: instrument for instrument in _orchestra()}
