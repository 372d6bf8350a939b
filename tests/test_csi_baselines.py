"""Rows that need no training: chance is what a random order gives, the others find transposed repetitions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tonnetz.csi_baselines import baselines, chance


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
        self.frontend = SimpleNamespace(channels=1, bins=96, sample_rate=16000, hop=1920)
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


def test_chance_is_the_mean_of_random_orders():
    work = np.repeat(np.arange(10), 2)
    expected = np.mean([1 / rank for rank in range(1, 20)])  # the one version is anywhere among 19
    assert chance(Data(torch.zeros(1), work), "test")["map"] == pytest.approx(expected, abs=0.03)


def test_audio_leaves_chance_alone():
    assert set(baselines(Data(*melodies(2, 2), source="audio"))) == {"chance"}
