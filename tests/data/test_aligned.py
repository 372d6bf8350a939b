"""The fine stage: excerpts of a group are cut at the same place of the work, by construction."""

import numpy as np
import polars as pl
import pytest
import torch

from tonnetz.alignment import Alignment, write
from tonnetz.data.excerpts import Tracks, TrainExcerpts
from tonnetz.data.plan import GroupStream, Plan
from tonnetz.errors import UserError

RATE = 100  # samples a second: a recording is a list of moments of its work
SHIFTS = [0.0, 12.5, -7.25, 31.0]  # recording r plays at t what the work has at t - SHIFTS[r]
SECONDS = 120.0


class Sounds:
    """What the reader asks of a front-end."""

    sample_rate = RATE
    hop = 1
    floor = 0.0

    def frames(self, lengths):
        return lengths


class Moments:
    """A feature store whose frames say which moment of the work they are: one feature, one frame a sample."""

    def __init__(self, shifts):
        self.shifts = np.array(shifts)

    def read(self, numbers, first, count, tempi, repeat=False):
        at = (first[:, None] + np.arange(count) * tempi[:, None]) / RATE - self.shifts[numbers][:, None]
        return at[:, None, None].astype(np.float32), np.full(len(numbers), count)


def table(groups, shifts):
    count = len(groups)
    return pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(count)],
            "audio": ["none"] * count,
            "header": [0] * count,
            "first": [0] * count,
            "samples": [int(SECONDS * RATE)] * count,
            "peak": [1.0] * count,
            "number": list(range(count)),
            "group": groups,
        }
    )


def excerpts(alignment, items=4, groups=(0, 0, 0, 0, 1, 1, 1, 1), shifts=(*SHIFTS, *SHIFTS), **plan):
    frame = table(groups, shifts)
    tracks = Tracks(frame, np.zeros((frame.height, 1), np.float32), groups=frame["group"].to_numpy())
    options = {"seconds": 10.0, "source": "features", "group": "work", "items": items, **plan}
    return TrainExcerpts(tracks, Plan(**options), Sounds(), 1, 2 * items, Moments(shifts), alignment)


def pairs(shifts=SHIFTS, groups=2, confidence=0.5):
    """All pairs of all groups as job=align would find them."""
    size = len(shifts)
    places = [(g * size + a, g * size + b) for g in range(groups) for a in range(size) for b in range(a)]
    a, b = np.array(places).T
    shift = np.array([shifts[j % size] - shifts[i % size] for i, j in places])
    sure = np.full(len(a), confidence) if np.isscalar(confidence) else np.array(confidence)
    return Alignment.of([f"r{i}" for i in a], [f"r{j}" for j in b], shift, np.ones(len(a)), sure)


def batches(dataset, items=4, steps=40):
    return [dataset.__getitems__(batch) for batch in GroupStream(dataset.tracks.groups, 2 * items, items, steps, 3)]


def moments(batch, items=4):
    """Middle of each excerpt in the time of the work (G, items), and its start in the recording (G, items)."""
    middle = batch["features"][:, 0, 0].mean(-1).double()
    return middle.unflatten(0, (-1, items)), batch["start"].unflatten(0, (-1, items))


def test_crops_of_a_group_show_the_same_place_unless_clamped():
    room = SECONDS - 10
    free = clamped = 0
    for batch in batches(excerpts(pairs())):
        middle, start = moments(batch)
        inside = (start > 0.02) & (start < room - 0.02)
        apart = (middle - middle[:, :1]).abs()
        assert (apart[inside] < 0.02).all()  # a sample of rounding on each side
        assert ((start >= 0) & (start <= room)).all()
        free += int(inside.sum())
        clamped += int((~inside).sum())
    assert free > 4 * clamped > 0


def test_the_first_of_a_group_keeps_its_random_start():
    plain, aligned = batches(excerpts(None)), batches(excerpts(pairs()))
    for one, two in zip(plain, aligned, strict=True):
        assert torch.equal(one["row"], two["row"])
        assert torch.equal(one["start"][::4], two["start"][::4])
    starts = torch.cat([batch["start"][::4] for batch in plain])
    assert starts.std() > 20


def test_stretched_crops_meet_in_their_middles():
    for batch in batches(excerpts(pairs(), stretch=[0.7, 1.4])):
        middle, start = moments(batch)
        inside = (start > 0.02) & (start < SECONDS - 14.1)
        assert ((middle - middle[:, :1]).abs()[inside] < 0.03).all()


def test_tempo_ratios_count():
    plays = Alignment.of(["r0"], ["r1"], np.array([4.0]), np.array([0.5]), np.array([1.0]))  # r1 at double speed
    dataset = excerpts(plays, items=2, groups=(0, 0, 1, 1), shifts=(0, 0, 0, 0))
    for batch in batches(dataset, items=2):
        middle, start = batch["start"] + 5, batch["start"]
        for a, b in ((0, 1), (2, 3)):
            rows = batch["row"][a], batch["row"][b]
            if set(map(int, rows)) != {0, 1}:
                continue
            expected = 0.5 * middle[a] + 4 if int(rows[0]) == 0 else 2 * (middle[a] - 4)
            assert abs(float(start[b]) - float((expected - 5).clamp(0, SECONDS - 10))) < 0.02


def test_jitter_moves_the_others_within_bounds():
    apart = []
    for batch in batches(excerpts(pairs(), jitter=2.0)):
        middle, start = moments(batch)
        inside = (start > 2.02) & (start < SECONDS - 12.02)
        apart.append((middle - middle[:, :1])[:, 1:][inside[:, 1:]])
    apart = torch.cat(apart)
    assert 1.9 < float(apart.abs().max()) < 2.03
    assert float(apart.abs().mean()) == pytest.approx(1, abs=0.2)


def test_unsure_pairs_unknown_ids_and_repeats_stay_random(tmp_path):
    count = len(pairs().key) // 2
    file = tmp_path / "alignment.jsonl"
    ids = [f"r{i}" for i in range(8)]
    a, b = np.array([(g * 4 + i, g * 4 + j) for g in range(2) for i in range(4) for j in range(i)]).T
    found = {"shift": np.zeros(count), "ratio": np.ones(count), "confidence": np.linspace(0, 1, count)}
    found["semitones"] = np.zeros(count, int)
    write(file, ids, np.stack([a, b], 1), found, {"window": 15.0, "hop": 5.0, "model": "abc"})
    loaded = Alignment.load(file, "abc", floor=0.5)
    assert len(loaded) == (found["confidence"] >= 0.5).sum()
    sure = {frozenset(pair) for pair, c in zip(zip(a, b, strict=True), found["confidence"], strict=True) if c >= 0.5}
    plain, aligned = batches(excerpts(None)), batches(excerpts(loaded))
    moved = 0
    for one, two in zip(plain, aligned, strict=True):
        for i in range(8):
            first = i - i % 4
            pair = frozenset((int(two["row"][first]), int(two["row"][i])))
            if pair in sure:
                assert abs(float(two["start"][i] - two["start"][first])) < 0.011
                moved += 1
            else:
                assert one["start"][i] == two["start"][i]
    assert moved > 20
    single = excerpts(loaded, groups=(0, 1, 2, 3, 4, 5, 6, 7))
    for batch in batches(single):  # groups of one recording: its repeats are not laid on top of each other
        assert len(set(batch["start"][:4].tolist())) == 4
    with pytest.raises(UserError, match="made by model abc, not by def"):
        Alignment.load(file, "def")


def test_wrong_plans_are_refused():
    with pytest.raises(UserError, match="jitter"):
        Plan(jitter=-1.0)
    with pytest.raises(UserError, match=r"task\.plan\.group"):
        Plan(alignment="alignment.jsonl")
