"""Excerpts of stored features: lengths, tempi and starts are those of the plan."""

import itertools
import math
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from tonnetz.data import AudioData, Plan
from tonnetz.datasets.folder import Folder
from tonnetz.frontend import LogMel

RATE, HOP = 16000, 400
SECONDS = {"a/0": 4.0, "a/1": 2.5, "b/0": 1.0, "b/1": 3.2}


class Clock(LogMel):
    """A front-end whose two bins hold the number of each frame: what was read tells where it lies."""

    def __init__(self):
        super().__init__(sample_rate=RATE, hop=HOP, bins=2)

    def forward(self, x):
        frames = torch.arange(x.shape[-1] // HOP + 1, dtype=torch.float32)
        return frames.expand(len(x), 1, 2, -1).clone()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("works")
    random = np.random.default_rng(0)
    for name, seconds in SECONDS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", 0.1 * random.standard_normal(int(seconds * RATE)), RATE)
    return folder


def data(root, tmp_path, **plan):
    plan = Plan(**{"source": "features", "group": "work", "items": 2, "steps": 40, **plan})
    splits = {"valid": 0.0, "test": 0.0, "valid_unseen": 0.0, "test_unseen": 0.0, "split": "works"}
    return AudioData([Folder(root, level="work")], Clock(), plan, tmp_path, batch_size=4, workers=0, **splits)


def test_every_batch_has_a_length_of_the_plan(root, tmp_path):
    module = data(root, tmp_path, seconds=[0.5, 1.0, 2.0])
    frames = [batch["features"].shape[-1] for batch in module.train_dataloader()]
    size = {0.5: 21, 1.0: 41, 2.0: 81}
    assert frames == [size[module.plan.length(0, index)] for index in range(40)]
    assert sorted(frames[:3]) == [21, 41, 81]
    assert all(np.diff(sorted(frames[i : i + 3])).all() for i in range(0, 39, 3))


def test_ranks_read_excerpts_of_one_length(root, tmp_path):
    lengths, starts = [], []
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        module = data(root, tmp_path, seconds=[0.5, 1.0, 2.0])
        module.trainer = SimpleNamespace(global_rank=rank, world_size=world)
        module.batch_size = 4 // world
        batches = list(itertools.islice(module.train_dataloader(), 6))
        lengths.append([batch["features"].shape[-1] for batch in batches])
        starts.append([batch["start"].tolist() for batch in batches])
    assert lengths[0] == lengths[1] == lengths[2]
    assert [a + b for a, b in zip(*starts[1:], strict=True)] == starts[0]


def test_an_excerpt_begins_where_it_says(root, tmp_path):
    for batch in data(root, tmp_path, seconds=0.5).train_dataloader():
        first = (batch["start"] * RATE).round().long() // HOP
        torch.testing.assert_close(batch["features"][:, 0, 0], (first[:, None] + torch.arange(21)).float())
        assert (batch["lengths"] == 21).all()


@pytest.mark.parametrize("source", ["audio", "features"])
def test_any_file_name_is_read(root, tmp_path, source):
    names = {"a/0": "Änglar, och/v 1 'q'.wav", "b/1": 'O"Neill $HOME/`x` [2];.wav'}
    for given, name in names.items():
        for folder, there in (("plain", f"{given}.wav"), ("Müller", name)):
            (tmp_path / folder / there).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / f"{given}.wav", tmp_path / folder / there)
    plain, odd = (
        next(iter(data(tmp_path / folder, tmp_path / f"ö {folder}", source=source, seconds=4.0).windows("train")))
        for folder in ("plain", "Müller")
    )
    assert len(plain[source]) == len(odd[source]) == 2
    torch.testing.assert_close(odd[source][odd["lengths"].argsort()], plain[source][plain["lengths"].argsort()])


def test_defined_excerpts_begin_with_their_track(root, tmp_path):
    for batch in data(root, tmp_path, seconds=0.5, start="defined").train_dataloader():
        assert not batch["start"].any()


def test_stretched_excerpts_keep_their_size_and_read_at_a_drawn_tempo(root, tmp_path):
    module = data(root, tmp_path, seconds=0.5, stretch=[0.6, 1.6], steps=200)
    rates = []
    for batch in module.train_dataloader():
        line = batch["features"][:, 0, 0]
        assert line.shape[1] == 21
        assert (batch["lengths"] == 21).all()  # the recordings are long enough at any tempo
        rates += ((line[:, -2] - line[:, 1]) / 18).tolist()
        ends = torch.tensor([SECONDS[module.split("train")["id"][row]] for row in batch["row"].tolist()]) * RATE / HOP
        assert (line[:, -1] <= ends + 1).all()
    low, high = math.log(0.6), math.log(1.6)
    logs = np.log(rates)
    assert low - 0.06 < logs.min() < low + 0.1  # 21 x tempo is rounded to whole frames
    assert high - 0.1 < logs.max() < high + 0.06
    assert logs.mean() == pytest.approx((low + high) / 2, abs=0.05)
    assert logs.std() == pytest.approx((high - low) / 12**0.5, abs=0.03)


def test_a_short_recording_is_not_stretched_beyond_its_end(root, tmp_path):
    module = data(root, tmp_path, seconds=2.5, stretch=[0.5, 2.0], steps=60)
    for batch in module.train_dataloader():
        for row, length in zip(batch["row"].tolist(), batch["lengths"].tolist(), strict=True):
            name = module.split("train")["id"][row]
            if SECONDS[name] >= 2.5:
                assert length >= 100
            else:  # b/0 needs a tempo of .4, below the lowest: it is read at .5 and padded
                assert length == pytest.approx(82, abs=2)


@pytest.mark.parametrize("hop", [None, 0.25])
def test_windows_cover_every_recording_at_every_tempo(root, tmp_path, hop):
    module = data(root, tmp_path, seconds=0.5, window=1.0, hop=hop, tempi=[0.8, 1.0, 1.25])
    covered = {}
    for batch in module.windows("train"):
        assert batch["features"].shape[-1] == 41
        parts = zip(batch["row"].tolist(), batch["tempo"].tolist(), batch["features"][:, 0, 0], strict=True)
        for (row, tempo, line), length, start in zip(parts, batch["lengths"], batch["start"], strict=True):
            wide = 41 * tempo
            first = int(round(float(start) * RATE) // HOP)
            valid = line[: int(length)]
            assert float(valid[0]) == pytest.approx(first, abs=0.5)
            if length == 41:
                assert float(valid[-1] - valid[0]) == pytest.approx(wide - 1, abs=2)
            covered.setdefault((row, round(tempo, 2)), []).append((float(valid[0]), float(valid[-1])))
    assert len(covered) == 12
    for (row, _), spans in covered.items():
        frames = SECONDS[module.split("train")["id"][row]] * RATE / HOP
        spans.sort()
        assert spans[0][0] <= 0.5
        assert max(end for _, end in spans) >= frames - 2
        assert all(after[0] <= before[1] + 2 for before, after in itertools.pairwise(spans))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
@pytest.mark.parametrize("source", ["audio", "features"])
def test_reading_starts_no_threads(root, tmp_path, source):
    """With OpenMP threads of the reader beside its own, those of the network would sleep between operations."""
    plan = Plan(source=source, seconds=0.05)
    module = AudioData([Folder(root)], Clock(), plan, tmp_path, batch_size=4, workers=0, valid=0.0, test=0.0)
    dataset = module.dataset("train", True)
    assert dataset.tracks.labels.shape == (4, 2)
    rows = np.arange(20_000) % len(SECONDS)
    pairs = list(zip(range(20_000), rows.tolist(), strict=True))
    torch.randn(1000, 1000).exp()  # the threads of this one exist
    seen = []

    def read():
        before = len(list(Path("/proc/self/task").iterdir()))
        batch = dataset.__getitems__(pairs)
        seen.extend((len(list(Path("/proc/self/task").iterdir())) - before, len(batch["row"])))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert seen == [0, 20_000]
