"""Windows as rows, against a loop that cuts and measures every window by itself."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
import soundfile

from tonnetz.audio import pcm_header, read_prepared
from tonnetz.data import segmentation
from tonnetz.data.segmentation import covered, window_rows
from tonnetz.errors import UserError
from tonnetz.tracks import table

RATE = 8000


def bursts(random, seconds):
    """Noise whose level changes every quarter of a second between silence, -70 dB and full."""
    levels = random.choice([0.0, 3e-4, 0.01, 0.3], round(4 * seconds) + 1)
    return random.standard_normal(round(seconds * RATE)) * np.repeat(levels, RATE // 4)[: round(seconds * RATE)]


@pytest.fixture
def prepared(tmp_path):
    """Build a prepared table: dicts with seconds, and any columns."""

    def build(*rows, seed=0):
        random = np.random.default_rng(seed)
        found = []
        for number, row in enumerate(rows):
            path = str(tmp_path / f"{number}.wav")
            signal = row.get("signal")
            signal = bursts(random, row["seconds"]) if signal is None else signal
            soundfile.write(path, np.clip(signal, -1, 1), RATE, subtype="PCM_16")
            first = row.get("first", 0)
            facts = {"first": first, "samples": row.get("samples", len(signal) - first), "peak": row.get("peak", 0.5)}
            extra = {k: v for k, v in row.items() if k not in ("seconds", "signal", *facts)}
            place = {"id": f"r{number}", "path": path, "audio": path, "header": pcm_header(path, RATE), "labels": ["a"]}
            offset, duration = facts["first"] / RATE, facts["samples"] / RATE
            found.append({**place, **facts, "offset": offset, "duration": duration, **extra})
        return table(found)

    return build


def naive(frame, seconds, hop, gate=-50.0, short="keep", activation=True):
    """(id, first, samples) of every window that is kept."""
    kept = []
    window = round(seconds * RATE)
    for row in frame.iter_rows(named=True):
        windows = []
        k = 0
        while round(k * hop * RATE) + window <= row["samples"]:
            start = round(k * hop * RATE)
            audio = read_prepared(row["audio"], row["header"], row["first"] + start, window, row["peak"])
            level = 20 * np.log10(np.sqrt(np.mean(audio.astype(np.float64) ** 2)) + 1e-30)
            sounding = np.zeros(row["first"] + row["samples"] + RATE, bool)
            for begin, end in row.get("active") or []:
                sounding[round(begin * RATE) : round(end * RATE)] = True
            windows.append((start, level, sounding[row["first"] + start :][:window].sum()))
            k += 1
        if not windows:
            kept += [(f"{row['id']}@0", row["first"], row["samples"])] if short == "keep" else []
            continue
        loudest = max(windows, key=lambda w: w[1])
        if activation and row.get("active") is not None:
            chosen = [w for w in windows if w[2] >= window / 2] or [loudest]
        elif gate is None:
            chosen = windows
        else:
            chosen = [w for w in windows if w[1] >= loudest[1] + gate and w[1] > -500] or [loudest]
        kept += [(f"{row['id']}@{round(w[0] / RATE, 6):.10g}", row["first"] + w[0], window) for w in chosen]
    return kept


def rows_of(frame):
    return list(frame.select("id", "first", "samples").iter_rows())


@pytest.mark.parametrize("gate", [-50.0, -20.0, 0.0, None])
@pytest.mark.parametrize(("seconds", "hop"), [(1.0, 0.5), (0.5, 0.125), (0.25, 1.0), (0.3, 0.0333), (2.0, 2.0)])
def test_equals_a_loop(prepared, monkeypatch, gate, seconds, hop):
    monkeypatch.setattr(segmentation, "BLOCK", 3001)  # windows lie across blocks
    active = [[0.2, 0.9], [0.8, 1.4], [3.0, 3.1]]
    frame = prepared(
        {"seconds": 3.3},
        {"seconds": 5, "first": 1234, "samples": 30000},
        {"seconds": 0.6},
        {"seconds": 4, "active": active},
        {"seconds": 4, "first": 7000, "active": active},
        {"seconds": 2, "active": []},
    )
    for options in ({}, {"short": "drop"}, {"activation": False}):
        found = window_rows(frame, RATE, seconds, hop, gate, **options)
        expected = naive(frame, seconds, hop, gate, **options)
        assert rows_of(found) == expected
        assert len(expected) > 0
        assert found["id"].is_unique().all()


def test_gate_leaves_something_out_and_something_in(prepared):
    frame = prepared({"seconds": 20})
    assert 0 < window_rows(frame, RATE, 0.25, 0.25).height < window_rows(frame, RATE, 0.25, 0.25, None).height == 80


def test_columns(prepared):
    frame = prepared({"seconds": 3, "first": 800, "track": None, "active": [[0.0, 9.0]], "color": "red"})
    frame = frame.with_columns(notes=pl.lit([[[0.0, 1.0, 60.0, 1.0]]]).first())
    found = window_rows(frame, RATE, 1.0, 0.5)
    assert found["id"].to_list() == ["r0@0", "r0@0.5", "r0@1", "r0@1.5"]
    assert found["offset"].to_list() == [0.1, 0.6, 1.1, 1.6]
    assert found["first"].to_list() == [800, 4800, 8800, 12800]
    assert found["duration"].to_list() == [1.0] * 4
    assert set(found["track"]) == {"r0"}
    assert set(found["color"]) == {"red"}
    assert found["notes"].null_count() == 4
    assert "active" not in found.columns
    assert set(frame.columns) - {"active"} == set(found.columns)


def test_track_column_wins(prepared):
    frame = prepared({"seconds": 1, "track": "song"}, {"seconds": 1, "track": None})
    assert window_rows(frame, RATE, 1.0, 1.0)["track"].to_list() == ["song", "r1"]


def test_short_recording(prepared):
    frame = prepared({"seconds": 0.5}, {"seconds": 2})
    found = window_rows(frame, RATE, 1.0, 1.0, None)
    assert found["samples"].to_list() == [4000, 8000, 8000]
    assert found["duration"].to_list() == [0.5, 1.0, 1.0]
    assert window_rows(frame, RATE, 1.0, 1.0, None, short="drop")["track"].to_list() == ["r1", "r1"]
    assert window_rows(frame.head(1), RATE, 1.0, 1.0, short="drop").is_empty()


def test_silence_keeps_its_first_window(prepared):
    frame = prepared({"signal": np.zeros(3 * RATE)}, {"signal": np.zeros(3 * RATE), "active": []})
    assert window_rows(frame, RATE, 1.0, 0.5)["id"].to_list() == ["r0@0", "r1@0"]


def test_same_in_same_out_for_any_number_of_threads(prepared, monkeypatch):
    frame = prepared(*[{"seconds": 2 + k / 10} for k in range(12)])
    first = window_rows(frame, RATE, 0.5, 0.1)
    monkeypatch.setattr(segmentation.os, "cpu_count", lambda: 7)
    assert first.equals(window_rows(frame, RATE, 0.5, 0.1))
    # a recording's windows do not depend on the others
    alone = window_rows(frame.filter(pl.col("id") == "r5"), RATE, 0.5, 0.1)
    assert alone.equals(first.filter(pl.col("track") == "r5"))


def test_covered_counts_overlapping_regions_once():
    random = np.random.default_rng(1)
    for _ in range(50):
        begins = random.integers(0, 90, 6)
        regions = np.stack([begins, begins + random.integers(0, 20, 6)], 1)
        mask = np.zeros(200, bool)
        for begin, end in regions:
            mask[begin:end] = True
        starts = np.arange(0, 120, 3)
        expected = [mask[s : s + 17].sum() for s in starts]
        np.testing.assert_allclose(covered(starts, 17, regions.astype(float)), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "both must be a sample at least"),
        ({"hop": -1}, "both must be a sample at least"),
        ({"gate": 3}, "must be 0 dB at most"),
        ({"gate": float("nan")}, "must be 0 dB at most"),
        ({"short": "pad"}, "known are keep, drop"),
    ],
)
def test_mistakes(prepared, options, message):
    with pytest.raises(UserError, match=message):
        window_rows(prepared({"seconds": 1}), RATE, **{"seconds": 1.0, "hop": 0.5, **options})


def test_thousandfold_real_time(prepared):
    random = np.random.default_rng(0)
    frame = prepared(*[{"signal": 0.1 * random.standard_normal(120 * RATE)} for _ in range(8)])
    begin = time.process_time()
    found = window_rows(frame, RATE, 1.0, 0.125)
    assert found.height == 8 * (119 * 8 + 1)
    assert 8 * 120 / (time.process_time() - begin) > 1000
