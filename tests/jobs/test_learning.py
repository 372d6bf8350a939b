"""Learning checks: a short run beats chance by far on files that it never saw (run with --slow)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_main_job_learns(cli):
    done = cli("job.figures=false")
    assert done.status == 0, done.err
    scores = done.json("metrics.json")
    assert scores["test"]["macro_f1"] >= 0.9
    assert 0.5 <= scores["baseline"]["macro_f1"] <= 0.8


@pytest.mark.slow
def test_mixtures_learn(cli):
    done = cli("data=synthetic_mixtures", "trainer.max_epochs=5", "job.figures=false")
    assert done.status == 0, done.err
    scores = done.json("metrics.json")
    assert scores["test"]["map"] > scores["baseline"]["map"]


@pytest.mark.slow
def test_versions_of_unseen_works_are_found(cli):
    words = ["task=csi", "data.corpus.works=40", "data.corpus.versions=4", "trainer.max_epochs=3"]
    done = cli(*words, "task.plan.seconds=20", "job.figures=false")
    assert done.status == 0, done.err
    scores = done.json("metrics.json")
    assert scores["test"]["map"] > 0.65  # 24 recordings of 6 unseen works, 20 s each, with parts left out and moved
    assert scores["test"]["map"] > scores["qmax"]["map"] > scores["chance"]["map"]


@pytest.mark.slow
def test_segments_serve_short_queries_better_than_one_vector(cli):
    """The same network for queries of 30 s: segments and loss of CLEWS beside vector and losses of CoverHunter."""
    words = ["task=csi", "task.query_seconds=30", "trainer.max_epochs=2", "task.transpositions=3", "seed=1"]
    clews = cli(*words, "loss=clews", "task.reduction=bpwr-10", "job.figures=false", run="clews")
    assert clews.status == 0, clews.err
    whole = ["loss=coverhunter", "task.segment=null", "task.segment_hop=null", "task.reduction=min"]
    whole += ["task.plan.seconds=30", "task.plan.window=30", "task.plan.hop=10"]
    coverhunter = cli(*words, *whole, "job.figures=false", run="coverhunter")
    assert coverhunter.status == 0, coverhunter.err
    segments, vector = (done.json("metrics.json")["test"]["map"] for done in (clews, coverhunter))
    assert segments > vector + 0.01  # .153 and .113; three seeds of another day: at least .162, at most .145


@pytest.mark.real
def test_real_sounds_train_and_predict(cli):
    root = Path(os.environ["TONNETZ_REAL_DATA"]) / "philharmonia"
    words = [
        "data=philharmonia",
        f"data.root={root}",
        "trainer.max_epochs=1",
        "task.plan.steps=60",
        "job.baseline=false",
    ]
    done = cli(*words, "augment=none", "job.figures=false", run="real")
    assert done.status == 0, done.err
    assert done.json("metrics.json")["test"]["macro_f1"] > 0.25  # chance is 0.06
    predicted = cli(
        "job=predict", f"ckpt={done.folder}/checkpoints/best.ckpt", f"job.inputs=[{root / 'oboe'}]", run="use"
    )
    assert predicted.status == 0, predicted.err
    assert "60 of 60 files labelled" in predicted.out


def test_smoke_trainer_runs_the_main_job_small(cli):
    words = [
        "trainer=smoke",
        "data.corpus.files=8",
        "data.corpus.instruments=[flute,violin,kick_drum]",
        "data.corpus.workers=1",
    ]
    done = cli(*words, "data.corpus.seconds=1.0", "job.baseline=false")
    assert done.status == 0, done.err
    assert (done.folder / "figures" / "test_roc.png").exists()


def test_installed_script_is_the_same_program(tmp_path):
    code = "import sys; from tonnetz.cli import main; sys.argv = ['tonnetz', '--cfg', 'job']; main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    env.pop("TONNETZ_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tonnetz.tasks.classification.Classification" in done.stdout
