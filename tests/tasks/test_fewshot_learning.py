"""Few-shot recognition of instruments that training never heard is better than chance, and than plain MFCC."""

import os
from pathlib import Path

import pytest

LEAN = ["job.figures=false", "task.evaluation.rounds=20", "task.evaluation.episodes=200"]
LEAN += [f"task.heads.{name}=null" for name in ("logistic", "baselinepp", "tim", "bdcspn", "knn", "random")]


@pytest.mark.slow
def test_new_synthetic_instruments_are_told_apart(cli):
    done = cli("task=fewshot", "trainer=cpu", "trainer.max_steps=200", "trainer.max_epochs=2", *LEAN)
    assert done.status == 0, done.err
    metrics = done.json("metrics.json")
    assert metrics["chance"]["accuracy"] == pytest.approx(0.2)
    assert metrics["test"]["accuracy_5shot"] > 0.6


@pytest.mark.real
def test_new_instruments_of_the_orchestra_are_told_apart(cli):
    """Whitened MFCC statistics beat the same without whitening by .05, on classes that whitening never saw."""
    root = Path(os.environ["TONNETZ_REAL_DATA"]) / "philharmonia"
    done = cli("experiment=fewshot_philharmonia", f"data.root={root}", *LEAN)
    assert done.status == 0, done.err
    metrics = done.json("metrics.json")
    assert metrics["test"]["accuracy"] > metrics["mfcc_simpleshot"]["accuracy"] + 0.05
    assert metrics["test"]["accuracy"] > 0.78
