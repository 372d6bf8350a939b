"""Steps without a finite loss: one is left out, three in a row end the run."""

import csv

import pytest
import torch

from tonnetz.checkpoint import load_checkpoint
from tonnetz.tasks.classification import Classification

STEPS = ["trainer.max_epochs=1", "task.plan.steps=6", "schedule=constant", "job.test=false", "job.figures=false"]


@pytest.fixture
def poison(monkeypatch):
    """Make the loss of chosen steps (counted over all runs of a test) broken."""
    honest, seen = Classification.loss, []

    def choose(steps, value=torch.nan):
        def loss(self, batch):
            seen.append(len(seen))
            return honest(self, batch) * (value if seen[-1] in steps else 1.0)

        seen.clear()
        monkeypatch.setattr(Classification, "loss", loss)

    return choose


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_step_is_left_out(fit, poison, value):
    poison({2}, value)
    done = fit(*STEPS)
    assert done.status == 0, done.err
    assert done.json("manifest.json")["status"] == "completed"
    weights = load_checkpoint(done.folder / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_a_broken_step_moves_no_weight(fit, poison):
    poison({0})
    folders = [fit(*STEPS, "task.plan.steps=1", f"optimizer.lr={lr}", run=f"run{lr}").folder for lr in (1, 0)]
    weights = [load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_two_broken_steps_again_and_again_do_not_end_a_run(fit, poison):
    poison({0, 1, 3, 4})
    assert fit(*STEPS).json("manifest.json")["status"] == "completed"


def test_three_in_a_row_diverge(fit, poison):
    poison({2, 3, 4})
    done = fit(*STEPS)
    assert (done.status, done.json("manifest.json")["status"]) == (1, "diverged")
    assert done.err.splitlines()[-1] == "diverged: the training loss became nan at step 4; lower optimizer.lr"
    assert "Traceback" not in done.err


def test_a_sweep_goes_on_after_a_diverged_run(cli, corpus, poison):
    from tests.conftest import SMALL

    poison({1, 2, 3})
    done = cli("-m", "data=folder", f"data.root={corpus}", *SMALL, *STEPS, "seed=1,2", run="sweep")
    assert done.status == 1
    with (done.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["diverged", "completed"]
    assert "optimizer.lr" in rows[0]["reason"]
