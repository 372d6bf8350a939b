"""What few-shot results do not depend on: order and chunks of queries, batches, processes, an interruption."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import ROOT
from tests.jobs.test_ddp import DDP
from tests.jobs.test_kill import losses, start, wait_for
from tests.tasks.test_fewshot import SMALL
from tests.test_config import composed
from tonnetz.build import build_trainer, restore
from tonnetz.fewshot.episodes import Episodes, Pool, draw_many
from tonnetz.fewshot.protocol import answer
from tonnetz.heads import KNN, BaselinePP, Constant, LogisticRegression, SimpleShot
from tonnetz.losses import Prototypes

FEW = [f"task.heads.{name}=null" for name in ("logistic", "baselinepp", "bdcspn", "tim", "constant", "random")]
HEADS = {
    "prototypes": lambda support, mask, query, center, valid: Prototypes().leaf_logits(support, mask, query),
    "simpleshot": SimpleShot(normalize="cl2"),
    "logistic": LogisticRegression(),
    "baselinepp": BaselinePP(),
    "knn": KNN(),
    "constant": Constant(),
}


@pytest.mark.parametrize("name", HEADS)
def test_answers_do_not_depend_on_order_or_chunks_of_queries(name):
    z = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
    pool = Pool(np.repeat(np.arange(4), 12), None, list("abcd"))
    episodes = draw_many(pool, 3, 3, 2, 6, seed=0)
    center = z.mean(0)
    whole = answer(z, episodes, HEADS[name], center).logits.unflatten(1, (3, 6))  # (E, C, Q, C)
    order = np.random.default_rng(0).permutation(6)

    def asked(places):
        part = Episodes(episodes.classes, episodes.support, episodes.query[:, :, places], episodes.unknown)
        return answer(z, part, HEADS[name], center).logits.unflatten(1, (3, len(places)))

    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(asked(order), whole[:, :, order.tolist()], **near)
    for size in (1, 4):
        chunks = [asked(np.arange(i, min(i + size, 6))) for i in range(0, 6, size)]
        torch.testing.assert_close(torch.cat(chunks, 2), whole, **near)


def state(task):
    """Every weight and buffer, but for the vectors that an evaluation gathers."""
    named = {**dict(task.named_parameters()), **dict(task.named_buffers())}
    return {name: value.detach().clone() for name, value in named.items() if not name.startswith("vectors.")}


def test_a_test_changes_nothing_and_takes_any_batches(cli, instruments, tmp_path):
    done = cli(*SMALL, *FEW, f"data.root={instruments}", "trainer.max_epochs=1", "job.test=false")
    assert done.status == 0, done.err
    path = done.folder / "checkpoints/best.ckpt"
    stored = path.read_bytes()
    found = {}
    for size in (64, 1):  # all clips at once, and one at a time
        words = [f"ckpt={path}", "trainer=cpu", "data.workers=0", f"data.batch_size={size}", "task=fewshot"]
        config = composed("job=test", *words, f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path}", "run=x")
        experiment, _ = restore(config, words)
        assert experiment.data.batch_size == size
        task, before = experiment.task, state(experiment.task)
        trainer = build_trainer(config, logger=False, callbacks=[], default_root_dir=tmp_path)
        experiment.data.trainer = trainer
        trainer.test(task, experiment.data.windows("test"), verbose=False)
        after = state(task)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert any(name.endswith("running_mean") for name in before)
        found[size] = task.outcome["test"]
    torch.testing.assert_close(found[1]["z"], found[64]["z"], rtol=1e-4, atol=1e-5)
    for shots, heads in found[1]["answers"].items():
        for name, mine in heads.items():
            other = found[64]["answers"][shots][name]
            assert (mine.row == other.row).all()
            best = other.logits.topk(2).values
            clear = best[..., 0] - best[..., 1] > 1e-3
            assert clear.any()
            assert (mine.answer == other.answer)[clear].all(), (shots, name)
    assert path.read_bytes() == stored


def words(instruments, tmp_path, name, *more):
    paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", f"run={name}"]
    return [sys.executable, str(ROOT / "src/main.py"), *SMALL, *FEW, f"data.root={instruments}", *paths, *more]


def test_two_processes_equal_one(instruments, tmp_path):
    """The two episodes of a step on one process are one on each of two: same losses, test episodes and scores."""
    common = ["model.norm=false", "schedule=constant", "trainer.max_epochs=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, more in (("one", []), ("two", [*DDP, "trainer.max_epochs=2", "task.plan.episodes=1"])):
        command = words(instruments, tmp_path, name, *common, *more)
        command = [word for word in command if word != "trainer=cpu" or name == "one"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / "outputs" / name for name in ("one", "two"))
    expected, found = (json.loads((folder / "metrics.json").read_text()) for folder in (one, two))
    assert found["test"] == pytest.approx(expected["test"], abs=1e-4, nan_ok=True)
    assert found["valid/accuracy"] == pytest.approx(expected["valid/accuracy"], abs=1e-4)
    answers = [pl.read_csv(folder / "answers.csv") for folder in (one, two)]
    asked = ["episode", "clip", "true"]
    assert answers[0].select(asked).equals(answers[1].select(asked))
    assert answers[1]["probability"].to_numpy() == pytest.approx(answers[0]["probability"].to_numpy(), abs=1e-4)


def test_killed_in_the_middle_of_an_epoch_and_resumed_equals_unbroken(instruments, tmp_path):
    more = ["job.save_every=4", "trainer.log_every_n_steps=1", "trainer.max_epochs=2", "task.plan.steps=15"]
    more += ["augment=basic", "task.plan.episodes=1", "task.evaluation.episodes=5"]
    whole = start(words(instruments, tmp_path, "whole", *more))
    _, err = whole.communicate(timeout=200)
    assert whole.returncode == 0, err
    killed = words(instruments, tmp_path, "killed", *more)
    process = start(killed)
    last = tmp_path / "outputs/killed/checkpoints/last.ckpt"
    wait_for(last.exists, process, 120)  # after step 4 of 15
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = torch.load(last, weights_only=True)["global_step"]
    assert reached % 15, "the kill should fall into an epoch"
    again = start(killed)
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    expected, found = (losses(tmp_path / "outputs" / name) for name in ("whole", "killed"))
    assert set(range(reached, 30)) <= set(found) <= set(expected)
    assert found == pytest.approx({step: expected[step] for step in found}, abs=1e-6)
    paths = [tmp_path / "outputs" / name / "checkpoints/last.ckpt" for name in ("whole", "killed")]
    states = [torch.load(path, weights_only=True) for path in paths]
    assert all(torch.equal(a, states[1]["state_dict"][name]) for name, a in states[0]["state_dict"].items())
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
    scores = [
        json.loads((tmp_path / "outputs" / name / "metrics.json").read_text())["test"] for name in ("whole", "killed")
    ]
    assert scores[1] == pytest.approx(scores[0], nan_ok=True)
