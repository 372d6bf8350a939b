"""Slices: where recordings are cut, and that a slice is the mean of the windows within it, as a loop finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hydra import compose, initialize_config_dir

from tonnetz.audio import read_prepared
from tonnetz.build import Experiment, build_data, build_task, connect
from tonnetz.embedding import plan_of
from tonnetz.errors import UserError
from tonnetz.paths import config_folder
from tonnetz.probing.features import extract, handcrafted, plan_within
from tonnetz.probing.slices import Slices

DEVICE = torch.device("cpu")


def loop(samples, size, keep):
    """(start, length) of the slices of a recording."""
    found = [(start, min(size, samples - start)) for start in range(0, samples, size)]
    return [one for one in found if one[1] >= keep * size] or found[:1]


@pytest.mark.parametrize("keep", [0.8, 1.0, 0.01])
def test_cuts_equal_a_loop(keep):
    lengths = [1, 79, 80, 99, 100, 101, 179, 180, 200, 250, 1000, 999]
    frame = pl.DataFrame({"id": list(map(str, lengths)), "first": [7] * len(lengths), "samples": lengths})
    pieces, row = Slices(0.1, keep).cut(frame, 1000)
    expected = [(i, 7 + start, count) for i, n in enumerate(lengths) for start, count in loop(n, 100, keep)]
    assert list(zip(row.tolist(), pieces["first"], pieces["samples"], strict=True)) == expected
    assert pieces["id"].to_list() == [str(lengths[i]) for i in row]


@pytest.mark.parametrize("values", [(0.0, 0.8), (-1.0, 0.8), (30.0, 0.0), (30.0, 1.1)])
def test_wrong_slices(values):
    with pytest.raises(UserError, match=r"job\.slice="):
        Slices(*values)


@pytest.fixture
def experiment(corpus, tmp_path):
    """An untrained classifier, and the split that its windows come from."""

    def make(source):
        words = ["data=folder", f"data.root={corpus}", "model=tiny", "pooling=mean", "augment=none", "data.workers=0"]
        words += ["task.plan.seconds=0.25", f"task.plan.source={source}", "data.batch_size=7"]
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            cfg = compose("main", [*words, f"paths.data={tmp_path / 'data'}"])
        data = build_data(cfg, connect(cfg.frontend))
        data.given = data.spec  # as a checkpoint brings it
        return Experiment(cfg, data, build_task(cfg, data.frontend, data.spec).eval())

    return make


def window(data, row, start, size, source):
    """One window of a row of the table, from its prepared audio or from its stored features."""
    if source == "audio":
        place = (row["audio"], row["header"], row["first"] + start, min(size, row["samples"] - start), row["peak"])
        signal = read_prepared(*place)
        audio = torch.from_numpy(np.pad(signal, (0, size - len(signal))))[None, None]
        return {"audio": audio, "lengths": torch.tensor([len(signal)])}
    count = int(data.frontend.frames(torch.tensor(size)))
    values, lengths = data.features().read(
        np.array([row["number"]]), np.array([start // data.frontend.hop]), count, np.ones(1)
    )
    return {"features": torch.from_numpy(values), "lengths": torch.from_numpy(lengths)}


@pytest.mark.parametrize("source", ["audio", "features"])
@pytest.mark.parametrize("tail", ["overlap", "drop"])
def test_a_slice_is_the_mean_of_its_windows(experiment, source, tail):
    experiment = experiment(source)
    data, task = experiment.data, experiment.task
    frames = {"test": data.split("train")}
    slices, rate = Slices(0.6, 0.5), data.frontend.sample_rate
    plan = plan_of(experiment)
    found = extract(experiment, frames, ["embedding"], plan, tail, DEVICE, slices=slices)["embedding"]
    size, hop, expected, rows = round(0.25 * rate), round((plan.hop or 0.25) * rate), [], []
    for i, row in enumerate(frames["test"].iter_rows(named=True)):
        for begin, length in loop(row["samples"], round(0.6 * rate), 0.5):
            starts = list(range(0, max(length - size, 0) + 1, hop))
            if tail == "overlap" and starts[-1] < length - size:
                starts.append(length - size)
            with torch.inference_mode():
                parts = [task.embed(window(data, row, begin + start, size, source)) for start in starts]
            expected.append(torch.cat(parts).mean(0))
            rows.append(i)
    assert found.row["test"].tolist() == rows
    assert len(rows) > frames["test"].height
    torch.testing.assert_close(found.x["test"], torch.stack(expected), atol=1e-4, rtol=1e-4)
    whole = extract(experiment, frames, ["embedding"], plan, tail, DEVICE)["embedding"]
    assert whole.mark != found.mark
    assert len(whole.x["test"]) > len(rows)


def test_windows_stay_within_slices(experiment):
    experiment = experiment("audio")
    plan = plan_of(experiment, window=0.9, hop=0.3)
    assert [plan_within(experiment, 0.9, 0.3, slices) for slices in (None, Slices(2.0))] == [plan, plan]
    short = plan_within(experiment, 0.9, 0.3, Slices(0.2))
    assert (short.span, short.hop) == (0.2, 0.2)
    frames = {"test": experiment.data.split("test")}
    found = extract(experiment, frames, ["embedding"], short, "overlap", DEVICE, slices=Slices(0.2))["embedding"]
    assert len(found.x["test"]) == len(Slices(0.2).cut(frames["test"], experiment.data.frontend.sample_rate)[1])
    with pytest.raises(UserError, match=r"job\.tail=pad: a window must not reach out of a slice"):
        extract(experiment, frames, ["embedding"], short, "pad", DEVICE, slices=Slices(0.2))


def test_baselines_have_the_same_slices(experiment, tmp_path):
    data = experiment("audio").data
    frames, rate = {"test": data.split("test")}, data.frontend.sample_rate
    found = handcrafted("mfcc", frames, rate, Path(tmp_path), Slices(0.6, 0.5))
    pieces, row = Slices(0.6, 0.5).cut(frames["test"], rate)
    assert found.row["test"].tolist() == row.tolist()
    alone = handcrafted("mfcc", {"test": pieces[-1:]}, rate, Path(tmp_path))
    torch.testing.assert_close(found.x["test"][-1:], alone.x["test"])
    whole = handcrafted("mfcc", frames, rate, Path(tmp_path))
    assert whole.x["test"].shape == (frames["test"].height, 120)
    assert whole.mark != found.mark
