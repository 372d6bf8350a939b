"""A corpus of nine instruments that differ in their overtones: enough classes to hold some back."""

import numpy as np
import pytest
import soundfile

RATE = 16000
INSTRUMENTS = ("violin", "cello", "banjo", "oboe", "flute", "trumpet", "clarinet", "marimba", "piano")


@pytest.fixture(scope="session")
def instruments(tmp_path_factory):
    """Nine classes of eight notes of 0.4 to 0.75 s each."""
    root = tmp_path_factory.mktemp("instruments")
    for number, name in enumerate(INSTRUMENTS):
        (root / name).mkdir()
        timbre = np.random.default_rng(number).uniform(0, 1, 12) ** 2
        for i in range(8):
            random = np.random.default_rng([number, i])
            t = np.arange(int((0.4 + 0.05 * i) * RATE)) / RATE
            pitch = 220 * 2 ** random.uniform(0, 1)
            sound = sum(a * np.sin(2 * np.pi * pitch * (k + 1) * t) for k, a in enumerate(timbre))
            sound = sound / np.abs(sound).max() * random.uniform(0.3, 0.9) + 0.003 * random.standard_normal(len(t))
            soundfile.write(root / name / f"{i}.wav", sound, RATE)
    return root
