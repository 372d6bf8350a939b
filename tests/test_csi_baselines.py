"""Rows that need no training: chance is what a random order gives, the others find transposed repetitions."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tonnetz.audio import read
from tonnetz.csi_baselines import baselines, chance
from tonnetz.frontend import CoverHunterCQT
from tonnetz.tracks import read_table


def melodies(works, versions, frames=160):
    """Decibels (tracks, 1, 96, T) of random melodies; each version in another key."""
    random = np.random.default_rng(0)
    tracks, work = [], []
    for number in range(works):
        notes = np.repeat(random.integers(36, 60, frames // 8 + 1), 8)[:frames]
        for version in range(versions):
            image = np.full((96, frames), -80.0, np.float32)
            image[notes + 2 * version, np.arange(frames)] = 0.0
            image[notes + 2 * version + 12, np.arange(frames)] = -12.0
            tracks.append(image[None])
            work.append(number)
    return torch.from_numpy(np.stack(tracks)), np.array(work)


class Data:
    """As much of a data module as the baselines ask for."""

    def __init__(self, features, work, source="features"):
        self.features, self.work = features, work
        self.frontend = SimpleNamespace(
            channels=1, bins=96, sample_rate=16000, hop=1920, bins_per_octave=12, decibels=True
        )
        self.plan = SimpleNamespace(source=source)

    def windows(self, split, alone):
        count = len(self.work)
        yield {
            "features": self.features,
            "lengths": torch.full((count,), self.features.shape[-1]),
            "row": torch.arange(count),
            "group": torch.from_numpy(self.work),
            "start": torch.zeros(count),
            "tempo": torch.ones(count),
        }

    def dataset(self, split):
        return SimpleNamespace(tracks=SimpleNamespace(groups=self.work))

    def roles(self, split):
        return {}


def test_other_keys_are_found_without_training():
    found = baselines(Data(*melodies(6, 3)))
    assert found["qmax"]["map"] == pytest.approx(1.0)
    assert found["ftm2d"]["map"] > found["chance"]["map"] + 0.3


@pytest.mark.parametrize("factor", [2, 6])
def test_other_frame_rates_find_as_much(factor):
    features, work = melodies(6, 3)
    usual = baselines(Data(features, work))
    fine = Data(features.repeat_interleave(factor, -1), work)
    fine.frontend.hop = 1920 // factor
    found = baselines(fine)
    assert found["qmax"]["map"] == pytest.approx(1.0)
    assert found["ftm2d"]["map"] == pytest.approx(usual["ftm2d"]["map"], abs=0.15)


def test_chance_is_the_mean_of_random_orders():
    work = np.repeat(np.arange(10), 2)
    expected = np.mean([1 / rank for rank in range(1, 20)])  # the one version is anywhere among 19
    assert chance(Data(torch.zeros(1), work), "test")["map"] == pytest.approx(expected, abs=0.03)


def test_audio_leaves_chance_alone():
    assert set(baselines(Data(*melodies(2, 2), source="audio"))) == {"chance"}


@pytest.mark.real
def test_performances_in_other_keys_tempi_and_instruments_are_found():
    """Six works of the ASAP covers, three performances each: chroma and the longest common stretch find them."""
    root = Path(os.environ["TONNETZ_REAL_DATA"]) / "asap_covers"
    table = read_table(root / "tracks.jsonl").filter(split="test")
    works = table["work"].unique(maintain_order=True).to_list()
    rows = [row for work in works for row in table.filter(work=work).head(3).iter_rows(named=True)]
    rows = [row for row in rows if len(table.filter(work=row["work"])) >= 3][:18]
    frontend, images = CoverHunterCQT().eval(), []
    for row in rows:
        signal, _ = read(root / row["path"], frontend.sample_rate)
        with torch.inference_mode():
            images.append(frontend(torch.from_numpy(signal)[None, None])[0])
    frames = min(image.shape[-1] for image in images)
    data = Data(torch.stack([image[..., :frames] for image in images]), np.repeat(np.arange(6), 3))
    found = baselines(data)
    assert found["qmax"]["map"] > 0.8
    assert found["qmax"]["map"] > found["ftm2d"]["map"] > found["chance"]["map"]
