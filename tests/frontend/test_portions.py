"""Examples in portions: the same features as all at once, and as each alone."""

from __future__ import annotations

import pytest
import torch

from tonnetz.frontend import MFCC, LogMel, MelMagnitude, MultiSpec


@pytest.mark.parametrize("kind", [LogMel, MFCC, MelMagnitude, MultiSpec])
@pytest.mark.parametrize("size", [300, 9000, 200_000])  # all in one portion, several in each, one in each
def test_portions_change_nothing(kind, size, monkeypatch):
    frontend = kind()
    audio = 0.1 * torch.randn(21, 1, size, generator=torch.Generator().manual_seed(0))
    portions = frontend(audio)
    calls = []
    compute = frontend.compute
    monkeypatch.setattr(frontend, "compute", lambda part: calls.append(len(part)) or compute(part))
    frontend(audio)
    assert sum(calls) == 21
    assert max(calls) == min(21, max(1, 2**17 // size))
    monkeypatch.setattr(frontend, "cached", None)
    torch.testing.assert_close(portions, frontend(audio), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(portions[20:], frontend(audio[20:]), rtol=1e-4, atol=1e-4)
