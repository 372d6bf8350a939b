"""Multirun: every job has its folder, a failed one is listed, a table and a picture are left."""

import csv

import pytest

from tests.conftest import SMALL


@pytest.fixture
def sweep(cli, corpus):
    def call(*words):
        return cli("-m", "data=folder", f"data.root={corpus}", *SMALL, "trainer.max_epochs=1", *words, run="sweep")

    return call


def test_sweep_collects_all_jobs(sweep):
    done = sweep("seed=1,2", "loss=ce,bce")
    assert done.status == 0, done.err
    with (done.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["loss"]) for row in rows] == [
        ("1", "ce"),
        ("1", "bce"),
        ("2", "ce"),
        ("2", "bce"),
    ]
    assert {row["status"] for row in rows} == {"completed"}
    assert all(0 <= float(row["test/macro_f1"]) <= 1 for row in rows)
    text = (done.folder / "sweep.md").read_text()
    assert "| loss=ce | 2 |" in text
    assert (done.folder / "sweep.png").stat().st_size > 1000


def test_a_failed_job_is_listed_and_the_sweep_goes_on(sweep):
    done = sweep("task.aggregate=mean,no_such_way")
    assert done.status == 1
    with (done.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed", "failed"]
    assert "no_such_way" in rows[1]["reason"]


def test_a_diverged_job_is_marked(sweep):
    done = sweep("optimizer=sgd", "trainer.gradient_clip_val=null", "optimizer.lr=0.01,1e30", "task.plan.steps=8")
    with (done.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed", "diverged"]


def test_named_sweep(sweep):
    assert sweep("sweep=seeds").status == 0


def test_optuna_selects_on_validation(sweep):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = sweep("sweep=optuna", "hydra.sweeper.n_trials=2")
    assert done.status == 0, done.err
    assert (done.folder / "optimization_results.yaml").exists()
    assert (done.folder / "sweep.csv").exists()


def test_a_failed_trial_does_not_end_the_tuning(sweep):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.direction=maximize"]
    done = sweep(*words, "task.aggregate=choice(mean,no_such_way)", "hydra.sweeper.sampler.seed=1")
    with (done.folder / "sweep.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3


def test_a_sweep_over_devices_needs_a_name():
    from tonnetz.cli import _compose, check_sweep
    from tonnetz.errors import UserError

    config = _compose(["trainer=ddp", "trainer.devices=2"])
    with pytest.raises(UserError, match="needs a name"):
        check_sweep(config, ["trainer=ddp", "seed=1"])
    check_sweep(config, ["trainer=ddp", "run=named"])
