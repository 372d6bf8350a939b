"""Deterministic synthesiser of the embedded corpus: instruments, works and their versions, rooms and
microphones.
"""

from __future__ import annotations

from tonnetz.synthesis.generate import Job, generate
from tonnetz.synthesis.instruments import INSTRUMENTS, Instrument
from tonnetz.synthesis.player import Note, Player, player
from tonnetz.synthesis.render import Part, Score, clip, mixture, perform, phrase, render
from tonnetz.synthesis.room import Channel, record
from tonnetz.synthesis.works import Version, Work, melody, version, version_score, work

VERSION = 2  # raise it whenever the sound or the notes of any file change

__all__ = [
    "INSTRUMENTS",
    "VERSION",
    "Channel",
    "Instrument",
    "Job",
    "Note",
    "Part",
    "Player",
    "Score",
    "Version",
    "Work",
    "clip",
    "generate",
    "melody",
    "mixture",
    "perform",
    "phrase",
    "player",
    "record",
    "render",
    "version",
    "version_score",
    "work",
]
