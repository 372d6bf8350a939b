"""From prepared corpora to batches: one LightningDataModule, excerpts, sampling plans."""

from tonnetz.data.episodes import EpisodePlan
from tonnetz.data.module import AudioData
from tonnetz.data.plan import Plan

__all__ = ["AudioData", "EpisodePlan", "Plan"]
