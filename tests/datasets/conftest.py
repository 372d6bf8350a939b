"""Miniature corpora: short tones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def tone(tmp_path) -> Callable[[str], Path]:
    """Write a short tone at a path below the test's folder; the extension chooses the format."""

    def write(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * np.sin(np.arange(800) / 5), 8000)
        return path

    return write
