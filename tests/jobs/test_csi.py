"""Cover-song identification from end to end on a few short works."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.conftest import RATE, ROOT
from tonnetz.checkpoint import load_checkpoint
from tonnetz.errors import UserError
from tonnetz.jobs.test import check_distances
from tonnetz.tasks.csi import CSI

WORDS = [
    "data.corpus.works=14",
    "data.corpus.versions=3",
    "data.corpus.seconds=6",
    "data.corpus.workers=1",
    "data.batch_size=4",
    "data.workers=0",
    "trainer.max_epochs=2",
    "task.plan.items=2",
    "task.plan.seconds=5",
    "task.plan.window=6",
    "task.plan.steps=2",
    "task.rounds=20",
    "job.baseline=false",
    "job.figures=false",
]
SMALL = ["task=csi", "model.width=8", "model.depth=1", "task.segment_hop=0.96", "trainer=cpu"]
CONFORMER = [
    "task=csi",
    "model=conformer",
    "model.dim=16",
    "model.depth=1",
    "model.ffn=16",
    "model.heads=2",
    "pooling=attentive_stats",
    "loss=coverhunter",
    "task.segment=null",
    "task.segment_hop=null",
    "task.transpositions=1",
    "task.reduction=min",
    "trainer=cpu",
]


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """The folder of generated works, shared by the tests."""
    return tmp_path_factory.mktemp("works")


@pytest.fixture
def csi(cli, audio):
    def call(*words, run="run"):
        return cli(*WORDS, f"data.root={audio}", *words, run=run)

    return call


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Two folders of further works x two versions: what a benchmark may be."""
    roots = []
    for number in range(2):
        root = tmp_path_factory.mktemp("others")
        random = np.random.default_rng(number)
        for work, version in ((w, v) for w in "xyz" for v in "12"):
            pitch = 220 * 2 ** random.uniform(0, 2, 4)
            t = np.arange(5 * RATE) / RATE
            sound = sum(np.sin(2 * np.pi * f * t) * (np.sin(t * f / 99) > 0) for f in pitch) / 5
            (root / work).mkdir(exist_ok=True)
            soundfile.write(root / work / f"{version}.wav", sound + 0.01 * random.standard_normal(len(t)), RATE)
        roots.append(root)
    return roots


def weights(folder, name="best"):
    return load_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_fit_resume_test_and_embed(csi, cli, tmp_path):
    small = [*SMALL, "schedule=constant"]  # the same whatever the number of epochs
    done = csi(*small, run="first")
    assert done.status == 0, done.err
    test = done.json("metrics.json")["test"]
    assert 0 < test["map_low"] <= test["map"] <= test["map_high"] <= 1
    assert (test["queries"], test["without_positive"]) == (6, 0)
    whole = csi(*small, "trainer.max_epochs=3", run="whole")
    resumed = csi(*small, "trainer.max_epochs=3", run="first")
    assert resumed.status == 0, resumed.err
    assert same(weights(resumed.folder, "last"), weights(whole.folder, "last"))
    with (resumed.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(0 < float(row["valid/map"]) <= 1 for row in rows)
    best = f"ckpt={resumed.folder / 'checkpoints' / 'best.ckpt'}"
    again = cli("job=test", best, "trainer=cpu", run="again")
    assert again.status == 0, again.err
    assert again.json("metrics.json")["test"] == pytest.approx(resumed.json("metrics.json")["test"], abs=1e-6)
    vectors = cli("job=embed", best, "trainer=cpu", run="vectors")
    assert vectors.status == 0, vectors.err
    found = load_file(vectors.folder / "embeddings.safetensors")["vectors"]
    assert found.shape == (14 * 3, 8 * 12)
    assert torch.isfinite(found).all()


def test_broken_off_within_an_epoch_and_resumed_equals_unbroken(csi, monkeypatch):
    words = [*SMALL, "task.plan.steps=3", "job.save_every=1", "job.test=false", "task.plan.stretch=[0.8,1.2]"]
    whole = csi(*words, run="whole")
    assert whole.status == 0, whole.err
    honest, calls = CSI.loss, iter(range(100))

    def loss(self, batch):
        if next(calls) == 4:  # the second step of the second epoch
            raise MemoryError
        return honest(self, batch)

    monkeypatch.setattr(CSI, "loss", loss)
    with pytest.raises(MemoryError):
        csi(*words, run="broken")
    resumed = csi(*words, run="broken")
    assert resumed.status == 0, resumed.err
    assert next(calls) == 5 + 2  # nothing was done twice
    assert same(weights(resumed.folder, "last"), weights(whole.folder, "last"))
    columns = ("step", "epoch", "lr", "valid/map", "valid/mr1")
    tables = [list(csv.DictReader((done.folder / "metrics.csv").open())) for done in (whole, resumed)]
    assert [[row[c] for c in columns] for row in tables[0]] == [[row[c] for c in columns] for row in tables[1]]


@pytest.mark.parametrize("words", [CONFORMER, [*SMALL, "task.cut=input", "task.segment=2", "task.plan.tempi=[0.9,1]"]])
def test_other_recipes(csi, cli, words):
    done = csi(*words, "trainer.max_epochs=1")
    assert done.status == 0, done.err
    again = cli("job=test", f"ckpt={done.folder / 'checkpoints' / 'best.ckpt'}", "trainer=cpu", run="again")
    assert again.status == 0, again.err
    assert again.json("metrics.json")["test"] == pytest.approx(done.json("metrics.json")["test"], abs=1e-6)


def test_a_benchmark_influences_nothing(csi, others):
    patient = ["job.patience=3", "trainer.max_epochs=4"]
    runs = [csi(*SMALL, *patient, run="none")]
    for number, root in enumerate(others):
        entry = f"+data.sets.show={{source: 'folder_works:{root}', every: {number + 1}}}"
        runs.append(csi(*SMALL, *patient, entry, run=f"set{number}"))
    assert [done.status for done in runs] == [0, 0, 0], [done.err for done in runs]
    assert same(weights(runs[0].folder), weights(runs[1].folder))
    assert same(weights(runs[0].folder), weights(runs[2].folder))
    tables = [list(csv.DictReader((done.folder / "metrics.csv").open())) for done in runs]
    assert len({tuple(row["valid/map"] for row in table) for table in tables}) == 1
    assert all(row["sets/show/map"] for row in tables[1])
    assert [bool(row["sets/show/map"]) for row in tables[2]] == [True, False, True, True]  # the last one is due, too
    assert [done.json("metrics.json")["test"] for done in runs[1:]] == [runs[0].json("metrics.json")["test"]] * 2


def test_a_stopping_set_chooses_and_a_shared_recording_is_refused(csi, cli, others):
    entry = f"+data.sets.judge={{source: 'folder_works:{others[0]}', role: stop}}"
    done = csi(*SMALL, entry)
    assert done.status == 0, done.err
    with (done.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 < float(row["valid/map"]) <= 1 for row in rows)
    words = [word for word in WORDS if not word.startswith("data.corpus")]
    shared = f"+data.sets.judge={{source: 'folder_works:{others[1]}'}}"
    splits = ["data=folder_works", f"data.root={others[1]}", "data.valid_unseen=0", "data.test_unseen=0"]
    refused = cli(*SMALL, *words, *splits, shared, run="shared")
    assert refused.status == 2
    assert "train" in refused.err
    assert "judge" in refused.err


def two_processes(tmp_path, *words):
    """The run folder of a command that two processes do together, and what they said."""
    paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", "run=two"]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    command = [sys.executable, str(ROOT / "src/main.py"), *words, *ddp, *paths]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180, check=False)
    assert two.returncode == 0, two.stderr
    return tmp_path / "outputs/two", two.stdout + two.stderr


def test_two_processes_score_as_one(csi, tmp_path):
    done = csi(*SMALL, "trainer.max_epochs=1")
    assert done.status == 0, done.err
    ckpt = f"ckpt={done.folder / 'checkpoints' / 'best.ckpt'}"
    folder, said = two_processes(tmp_path, "job=test", ckpt, "data.batch_size=5")
    found = json.loads((folder / "metrics.json").read_text())["test"]
    assert found == pytest.approx(done.json("metrics.json")["test"], abs=1e-5)
    assert "sync_dist" not in said


PLAIN = ["model=tiny", "model.norm=false", "loss=supcon", "pooling=mean", "task.reduction=min"]
NORMALISED = ["model.width=8", "model.depth=1", "model.dropout=0"]


@pytest.mark.parametrize("network", [PLAIN, NORMALISED], ids=["plain", "default"])
def test_two_processes_learn_as_one(csi, audio, tmp_path, network):
    """Half a batch each, and loss and batch statistics are those of all of it."""
    words = ["task=csi", *network, "task.segment_hop=0.96", "schedule=constant", "optimizer=sgd", "optimizer.lr=0.1"]
    done = csi(*words, "trainer=cpu")
    assert done.status == 0, done.err
    folder, _ = two_processes(tmp_path, *WORDS, f"data.root={audio}", *words, "data.batch_size=2")
    pairs = zip(weights(done.folder, "last").values(), weights(folder, "last").values(), strict=True)
    assert max((one.double() - two.double()).abs().max() for one, two in pairs) < 1e-5
    one, two = (json.loads((place / "metrics.json").read_text())["test"] for place in (done.folder, folder))
    assert two == pytest.approx(one, abs=1e-4)


def test_a_run_whose_embeddings_burst_has_diverged(csi):
    words = ["optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=null", "schedule=constant"]
    done = csi(*SMALL, *words, "trainer.max_epochs=1", "task.plan.steps=1")
    assert (done.status, done.json("manifest.json")["status"]) == (1, "diverged")
    assert done.err.splitlines()[-1].startswith("diverged: the embeddings became NaN or infinite")


def test_works_are_counted_and_a_single_one_to_test_on_is_no_test(cli, others):
    done = cli("job=prepare", "task=csi", "data=folder_works", f"data.root={others[0]}", "data.valid_unseen=0")
    assert done.status == 0, done.err
    assert "4 of 2" in done.out  # training tracks and their works
    assert "class" not in done.out
    assert "the test split has one work alone" in " ".join(done.out.split())
    assert "the valid split" not in " ".join(done.out.split())


def test_a_network_is_tested_as_it_is(csi):
    """trainer.max_epochs=0, and networks without parameters, write a checkpoint without training."""
    done = csi(*SMALL, "trainer.max_epochs=0", "model.residual=0", run="raw")
    assert done.status == 0, done.err
    assert "nothing is trained" in done.out
    assert 0 < done.json("metrics.json")["test"]["map"] <= 1
    words = ["model=ftm2d", "pooling=mean", "task.segment=null", "task.reduction=min", "trainer.max_epochs=1"]
    fixed = csi("task=csi", "trainer=cpu", *words, run="fixed")
    assert fixed.status == 0, fixed.err


def test_distances_are_written(csi, cli, monkeypatch):
    done = csi(*SMALL, "trainer.max_epochs=0", run="raw")
    ckpt = done.folder / "checkpoints" / "best.ckpt"
    tested = cli("job=test", f"ckpt={ckpt}", "job.distances=true", run="tested")
    assert tested.status == 0, tested.err
    matrix = load_file(tested.folder / "distances.safetensors")["distances"]
    with (tested.folder / "distances.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(matrix.shape)
    assert {row["side"] for row in rows} == {"query", "reference"}
    with monkeypatch.context() as patch:
        patch.setattr("tonnetz.jobs.test.KEPT", matrix.numel() - 1)
        patch.setattr(CSI, "test_step", lambda *_: pytest.fail("something was embedded"))
        many = cli("job=test", f"ckpt={ckpt}", "job.distances=true", run="many")
    assert many.status == 2
    assert f"{len(matrix)} queries and {matrix.shape[1]} references have more than" in many.err
    assert "data.lists.queries" in many.err
    short = cli("job=test", "task=csi", f"ckpt={ckpt}", "task.query_seconds=4", run="short")
    assert short.status == 0, short.err


def test_only_what_ranks_has_distances():
    with pytest.raises(UserError, match=r"job\.distances=true: this task ranks nothing"):
        check_distances(object(), None, "test")


@pytest.mark.parametrize("words", ["task.segment=0", "task.dim=-1", "task.query_seconds=-1", "task.rounds=-1"])
def test_bad_numbers_are_one_line(csi, words):
    done = csi(*SMALL, words)
    assert done.status == 2
    assert words.split("=")[0].split(".")[1] in done.err
    assert "Traceback" not in done.err


def test_a_batch_that_its_items_do_not_divide_is_refused_before_anything_is_prepared(cli, tmp_path):
    done = cli(*SMALL, *WORDS, f"data.root={tmp_path / 'works'}", "data.batch_size=5")
    assert done.status == 2
    assert "data.batch_size=5: is no multiple of task.plan.items=2" in done.err
    assert not (tmp_path / "works").exists()
    assert not (tmp_path / "data").exists()


def test_a_validation_where_nothing_can_be_found_is_refused_before_training(csi, cli, others, tmp_path):
    words = [word for word in WORDS if not word.startswith("data.corpus")]
    folder = ["data=folder_works", f"data.root={others[0]}", "data.valid_unseen=0", "data.test_unseen=0"]
    table = tmp_path / "lonely.csv"
    files = sorted(others[0].glob("*/*.wav"))
    split = ["valid" if file.stem == "1" else "train" for file in files]
    rows = [f"{file.relative_to(others[0])},{file.parent.name},{part}" for file, part in zip(files, split, strict=True)]
    table.write_text("\n".join(["file,work,split", *rows]))
    done = cli(*SMALL, *words, *folder, f"data.corpus.metadata={table}", run="lonely")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "the validation split: no work has two recordings there" in done.err
    assert not (done.folder / "checkpoints").exists()
