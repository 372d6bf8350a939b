"""Cover-song identification from end to end on a few short works."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

WORDS = [
    "task=csi",
    "data.corpus.works=8",
    "data.corpus.versions=3",
    "data.corpus.seconds=8",
    "data.corpus.workers=1",
    "data.batch_size=4",
    "data.workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "task.plan.items=2",
    "task.plan.seconds=6",
    "task.plan.window=8",
    "task.plan.steps=2",
    "task.rounds=20",
    "job.baseline=false",
    "job.figures=false",
]
SMALL = ["model.width=8", "model.depth=1", "task.segment_hop=0.96"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One folder of generated works and stored features for all tests."""
    return tmp_path_factory.mktemp("works")


@pytest.fixture
def csi(cli, store):
    def call(*words, run="run"):
        return cli(*WORDS, f"data.root={store / 'audio'}", *words, run=run)

    return call


def test_fit_resume_test_and_embed(csi, cli, tmp_path):
    done = csi(*SMALL, run="first")
    assert done.status == 0, done.err
    scores = done.json("metrics.json")
    assert 0 < scores["test"]["map"] <= 1
    print(scores)
