"""job=crossval from the command line: broken off everywhere it ends as if unbroken; ensembles; everything at once."""

import json
import signal
import sys

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import ROOT, SMALL
from tests.jobs.test_kill import start, wait_for
from tonnetz.callbacks import History
from tonnetz.crossval import State
from tonnetz.jobs import crossval, fit
from tonnetz.tasks.base import Task

RELAY = ["job=crossval", "job.folds=2", "schedule=decay", "schedule.every=2", "task.plan.steps=2"]
WORKS = [
    "task=csi",
    "data.corpus.works=6",
    "data.corpus.versions=3",
    "data.corpus.seconds=3",
    "data.corpus.workers=1",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "task.plan.steps=2",
    "task.plan.seconds=2",
    "task.plan.window=3",
    "task.segment=1",
    "task.segment_hop=0.5",
    "task.plan.items=2",
    "task.rounds=10",
    "data.batch_size=4",
    "data.workers=0",
    "data.test_unseen=0.3",
    "job.figures=false",
    "job.baseline=false",
    "model.width=8",
    "model.depth=2",
    "loss.matches=2",
]


class Killed(BaseException):
    """What stands for the end of the process."""


class Breaker:
    """Raises at the n-th moment that passes; every call of the command line counts from the beginning."""

    def __init__(self, monkeypatch):
        self.moment, self.at = 0, None
        for owner, name in [
            (State, "write"),
            (Task, "on_train_batch_start"),
            (History, "on_validation_end"),
            (fit, "_finish"),
            (crossval, "finish_final"),
        ]:
            self.wrap(monkeypatch, owner, name)

    def wrap(self, monkeypatch, owner, name):
        real = getattr(owner, name)

        def broken(*args, **keywords):
            self.moment += 1
            if self.moment == self.at:
                raise Killed
            result = real(*args, **keywords)
            self.moment += 1
            if self.moment == self.at:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, broken)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def same(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_relay_broken_off_again_and_again_ends_as_if_unbroken(fit, monkeypatch):
    breaker = Breaker(monkeypatch)
    whole = fit(*RELAY, run="whole")
    assert whole.status == 0, whole.err
    assert breaker.moment > 40
    calls = 0
    for moment in [2, 9, 21, 7, 13]:  # each counted from where the one before had ended
        breaker.moment, breaker.at = 0, moment
        try:
            broken = fit(*RELAY, run="broken")
            break
        except Killed:
            calls += 1
    else:
        breaker.at = None
        broken = fit(*RELAY, run="broken")
    assert broken.status == 0, broken.err
    assert calls > 3
    states = [json.loads((done.folder / "state.json").read_text()) for done in (whole, broken)]
    assert states[0] == states[1]
    same(*(weights(done.folder / "checkpoints/best.ckpt") for done in (whole, broken)))
    tables = [pl.read_csv(done.folder / "epochs.csv").drop("seconds", "elapsed") for done in (whole, broken)]
    assert tables[0].equals(tables[1])
    assert tables[0]["run"].unique(maintain_order=True).to_list()[:2] == ["fold_1", "fold_2"]
    assert whole.json("metrics.json")["test"] == broken.json("metrics.json")["test"]
    facts = [done.json("manifest.json") for done in (whole, broken)]
    assert facts[0]["score"] == facts[1]["score"] == states[0]["finished"][0]["score"]
    assert {fact["status"] for fact in facts} == {"completed"}
    again = fit(*RELAY, run="whole")  # nothing is left to do
    assert again.status == 0
    assert json.loads((again.folder / "state.json").read_text()) == states[0]


def test_a_fold_goes_on_from_the_best_weights_and_moments(fit, monkeypatch):
    seen = []
    monkeypatch.setattr(Task, "on_train_start", recorder(Task.on_train_start, seen))
    done = fit(*RELAY, "trainer.max_epochs=1")
    assert done.status == 0, done.err
    state = json.loads((done.folder / "state.json").read_text())["finished"]
    assert not seen[0][1]
    before = torch.load(done.folder / "fold_1/checkpoints/best.ckpt", weights_only=True)
    same(before["state_dict"], seen[1][0])
    moments = before["optimizer_states"][0]["state"]
    assert all(torch.equal(moments[key]["exp_avg"], seen[1][1][key]["exp_avg"]) for key in moments)
    assert seen[1][2] == pytest.approx(state[0]["rate"])
    held = [pl.read_csv(done.folder / f"fold_{k}/metrics.csv").height for k in (1, 2)]
    assert held == [1, 1]
    cold = fit(*RELAY, "trainer.max_epochs=1", "job.warm=false", run="cold")
    assert cold.status == 0, cold.err
    same(weights(cold.folder / "fold_1/checkpoints/best.ckpt"), seen[4][0])
    assert not seen[4][1]


def recorder(real, seen):
    """Also keep the weights, moments and rate that training starts with."""

    def call(task):
        real(task)
        optimizer = task.trainer.optimizers[0]
        moments = {k: {n: v.clone() for n, v in s.items()} for k, s in optimizer.state_dict()["state"].items()}
        state = {name: value.clone() for name, value in task.state_dict().items()}
        seen.append((state, moments, optimizer.param_groups[0]["lr"]))

    return call


def test_killed_by_the_system(corpus, tmp_path):
    def words(name):
        paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", f"run={name}"]
        main = [sys.executable, str(ROOT / "src/main.py"), "data=folder", f"data.root={corpus}"]
        return [*main, *SMALL, *RELAY, *paths]

    whole = start(words("whole"))
    assert whole.wait(timeout=120) == 0, whole.communicate()[1]
    process = start(words("killed"))
    wait_for((tmp_path / "outputs/killed/fold_2/checkpoints/last.ckpt").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(words("killed"))
    assert again.wait(timeout=120) == 0, again.communicate()[1]
    same(*(weights(tmp_path / "outputs" / name / "checkpoints/best.ckpt") for name in ("whole", "killed")))


def test_one_fold_is_refused(fit):
    done = fit("job=crossval", "job.folds=1")
    assert done.status == 2
    assert "job.folds=1" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_wrong_average_and_schedule_are_refused(fit):
    assert "weights" in fit("job=crossval", "job.average=weigths").err
    done = fit("job=crossval", "job.folds=2", "job.gamma=0.9", "schedule=cosine", "trainer.max_epochs=1")
    assert done.status == 2
    assert "schedule=decay" in done.err


def test_everything_trains_on_both_splits(fit):
    done = fit("job=crossval", "job.mode=all", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    tracks = done.json("final/manifest.json")["data"]["tracks"]
    assert tracks["valid"] == 0
    assert tracks["train"] + tracks["test"] == 30
    assert (done.folder / "checkpoints/best.ckpt").exists()
    assert "test" in done.json("metrics.json")


def test_an_ensemble_averages_distances_or_weights(cli):
    words = [*WORKS, "job=crossval", "job.mode=ensemble", "job.folds=2"]
    done = cli(*words, run="ensemble")
    assert done.status == 0, done.err
    scores = done.json("metrics.json")
    assert list(scores) == ["fold_1", "fold_2", "ensemble"]
    assert 0 < scores["ensemble"]["map"] <= 1
    assert scores["ensemble"]["queries"] == scores["fold_1"]["queries"] > 0
    facts = done.json("manifest.json")
    assert facts["score"] == pytest.approx(np.mean([run["score"] for run in facts["runs"].values()]))
    again = cli(*words, "job.average=weights", run="ensemble")  # only what comes after the folds is done
    assert again.status == 0, again.err
    members = [weights(again.folder / f"fold_{k}/checkpoints/best.ckpt") for k in (1, 2)]
    mean = weights(again.folder / "checkpoints/best.ckpt")
    norms = {name.rpartition(".")[0] for name in mean if name.endswith("running_mean")}
    for name, value in mean.items():
        if value.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(value, (members[0][name] + members[1][name]) / 2)
    assert norms
    paths = ",".join(str(again.folder / f"fold_{k}/checkpoints/best.ckpt") for k in (1, 2))
    plain = [word for word in WORKS if not word.startswith("job.")]
    third = cli(*plain, "job=average", f"job.ckpts=[{paths}]", run="mean")
    assert third.status == 0, third.err
    same(weights(third.folder / "checkpoints/best.ckpt"), mean)
    assert len(third.json("metrics.json")) == 3


def test_sets_with_a_role_judge_the_final_run(cli, tmp_path):
    words = [*WORKS, "job=crossval", "job.folds=2", "trainer.max_epochs=2", "job.final_patience=1"]
    entry = "{source: {name: synthetic_works, root: '" + str(tmp_path / "more") + "', works: 4, versions: 3, "
    entry += "seconds: 3, seed: 5, workers: 1}, role: stop}"
    done = cli(*words, f"+data.sets.more={entry}", run="judged")
    assert done.status == 0, done.err
    facts, state = done.json("manifest.json"), done.json("state.json")
    assert facts["score"] == state["finished"][-1]["score"] is not None
    found = done.json("epochs.json")
    assert {"valid/map", "sets/more/map", "mean"} == set(found)
    best = found["sets/more/map"]
    assert best[0]["sets/more/map"] == max(row["sets/more/map"] for row in best)
    assert "final" in pl.read_csv(done.folder / "epochs.csv")["run"].to_list()
