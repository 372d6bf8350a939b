"""Two processes on the CPU see what one sees and score what one scores."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, SMALL


def run(corpus, tmp_path, name, *words):
    paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", f"run={name}"]
    command = [
        sys.executable,
        str(ROOT / "src/main.py"),
        "data=folder",
        f"data.root={corpus}",
        *SMALL,
        *paths,
        *words,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return tmp_path / "outputs" / name


DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def test_two_processes_equal_one(corpus, tmp_path):
    """Same batches, so the same losses and metrics; dropout off, and no BatchNorm statistics of half a batch."""
    common = [
        "task.dropout=0",
        "model.dropout=0",
        "model.norm=false",
        "schedule=constant",
        "trainer.max_epochs=3",
    ]
    single = run(corpus, tmp_path, "single", *common)
    double = run(corpus, tmp_path, "double", *common, *DDP, "trainer.max_epochs=3", "data.batch_size=4")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (single, double))
    assert two["test"] == pytest.approx(one["test"], abs=1e-5)
    assert two["valid/macro_f1"] == pytest.approx(one["valid/macro_f1"], abs=1e-5)


def test_fewer_windows_than_a_batch(corpus, tmp_path):
    words = ["data.valid=0.1", "data.batch_size=64", "task.plan.seconds=2", "trainer.max_epochs=1"]
    folder = run(corpus, tmp_path, "few", *DDP, *words, "trainer.max_epochs=1", "task.plan.steps=1")
    assert json.loads((folder / "manifest.json").read_text())["status"] == "completed"


def test_two_processes_score_a_checkpoint_as_one(corpus, tmp_path):
    checkpoint = run(corpus, tmp_path, "fit") / "checkpoints" / "best.ckpt"
    words = ["job=test", f"ckpt={checkpoint}"]
    keep = [word for word in SMALL if word.startswith("trainer")]
    paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}"]
    results = []
    for name, extra in (("one", keep), ("two", DDP)):
        command = [sys.executable, str(ROOT / "src/main.py"), *words, *extra, *paths, f"run={name}"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / "outputs" / name / "metrics.json").read_text())["test"])
    assert results[1] == pytest.approx(results[0], abs=1e-6)
