"""A few-shot checkpoint on another corpus, and what is said of how it was chosen."""

import shutil

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from tests.tasks.test_fewshot import SMALL

HERE = ["trainer=cpu", "data.workers=0"]
NEW = {"viola": "cello", "harp": "banjo", "tuba": "flute"}  # class of the other corpus -> whose sounds it has


@pytest.fixture(scope="module")
def trained(tmp_path_factory, instruments):
    """Checkpoints of a run that chose by the validation classes, and of one that chose by the test."""
    found = {}
    for select in ("valid", "test"):
        folder = tmp_path_factory.mktemp(select)
        words = [*SMALL, f"data.root={instruments}", f"data.select={select}", "data.allow_test_selection=true"]
        found[select] = fitted(folder, *words, "trainer.max_epochs=1", "job.test=false")
    return found


def fitted(folder, *words):
    from tests.test_config import composed
    from tonnetz.build import build, build_trainer

    config = composed(*words, f"paths.data={folder / 'data'}", f"paths.outputs={folder}", "run=x")
    experiment = build(config)
    experiment.task.check(experiment.data)
    trainer = build_trainer(config, logger=False, callbacks=[], default_root_dir=folder)
    trainer.fit(experiment.task, experiment.data)
    trainer.save_checkpoint(folder / "best.ckpt")
    return folder / "best.ckpt"


@pytest.fixture
def other(tmp_path, instruments):
    """Three classes that training never saw, one that it did."""
    root = tmp_path / "other"
    for name, source in {**NEW, "marimba": "marimba"}.items():
        shutil.copytree(instruments / source, root / name)
    return root


@pytest.fixture
def works(tmp_path, instruments):
    """Recordings without any class: two versions of three works."""
    root = tmp_path / "works"
    for work, source in enumerate(("cello", "flute", "piano")):
        (root / f"work {work}").mkdir(parents=True)
        for i in (0, 5):
            shutil.copy(instruments / source / f"{i}.wav", root / f"work {work}" / f"{i}.wav")
    return root


def test_recordings_without_classes_are_indexed_and_found(cli, trained, works, tmp_path):
    words = [*HERE, f"ckpt={trained['valid']}", f"job.index={tmp_path / 'an.index'}"]
    done = cli("job=index", *words, "data=folder_works", f"data.root={works}", run="index")
    assert done.status == 0, done.err
    assert "6 recordings of 3 works" in done.out
    found = cli("job=identify", *words, f"job.inputs=[{works / 'work 1' / '0.wav'}]", "job.threshold=9", run="found")
    assert found.status == 0, found.err
    (result,) = found.json("matches.json")
    assert (result["work"], result["matches"][0]["distance"]) == ("work 1", pytest.approx(0, abs=1e-4))


def test_vectors_of_a_corpus_without_classes_are_those_of_its_files(cli, trained, works):
    words = ["job=embed", *HERE, f"ckpt={trained['valid']}"]
    corpus = cli(*words, "data=folder_works", f"data.root={works}", run="corpus")
    files = cli(*words, f"job.inputs=[{works}]", run="files")
    assert corpus.status == files.status == 0, corpus.err + files.err
    vectors = []
    for done in (corpus, files):
        order = pl.read_csv(done.folder / "embeddings.csv").with_row_index("n").sort("path")["n"].to_torch().long()
        vectors.append(load_file(done.folder / "embeddings.safetensors")["vectors"][order])
    assert vectors[0].shape == (6, 16)
    torch.testing.assert_close(vectors[0], vectors[1], atol=1e-4, rtol=1e-3)


def test_another_corpus_is_judged_by_the_classes_that_training_never_saw(cli, trained, other):
    words = [f"ckpt={trained['valid']}", "data=folder", f"data.root={other}", "data.taxonomy=hornbostel_sachs", *HERE]
    done = cli("job=test", *words, "job.baseline=true")
    assert done.status == 0, done.err
    assert set(pl.read_csv(done.folder / "answers.csv")["true"]) == set(NEW)
    assert done.json("metrics.json")["mfcc_simpleshot"]["accuracy"] > 0
    shutil.rmtree(other / "marimba")  # then there are no training clips at all
    done = cli("job=test", *words, "job.baseline=true", run="again")
    assert done.status == 0, done.err
    assert {"test", "chance"} <= set(done.json("metrics.json"))
    assert "mfcc_simpleshot" not in done.json("metrics.json")


@pytest.mark.parametrize("select", ["valid", "test"])
def test_a_checkpoint_tells_by_what_it_was_chosen_whatever_a_test_says(cli, trained, other, select):
    words = ["job=test", f"ckpt={trained[select]}", *HERE]
    opposite = {"valid": "test", "test": "valid"}[select]
    for run, more in (
        ("same", []),
        ("asked", [f"data.select={opposite}", "data.allow_test_selection=true"]),
        ("other", ["data=folder", f"data.root={other}", "data.taxonomy=hornbostel_sachs"]),
    ):
        done = cli(*words, *more, run=run)
        assert done.status == 0, done.err
        assert done.json("metrics.json")["protocol"]["selected_on"] == select


def test_an_old_checkpoint_tells_what_its_config_says(cli, trained, tmp_path):
    checkpoint = torch.load(trained["test"], weights_only=True)
    assert checkpoint["tonnetz"].pop("selected_on") == "test"
    torch.save(checkpoint, tmp_path / "old.ckpt")
    done = cli("job=test", f"ckpt={tmp_path / 'old.ckpt'}", "data.select=valid", *HERE)
    assert done.status == 0, done.err
    assert done.json("metrics.json")["protocol"]["selected_on"] == "test"


def test_a_validation_that_chose_nothing_is_not_said_to_have_chosen(cli, instruments, tmp_path):
    root = tmp_path / "fewer"
    shutil.copytree(instruments, root)
    for name in ("oboe", "flute"):
        for path in sorted((root / name).iterdir())[3:]:
            path.unlink()
    words = [*SMALL, f"data.root={root}", "task.plan.insufficient=drop", "trainer.max_epochs=1", "job.test=false"]
    done = cli(*words)
    assert done.status == 0, done.err
    assert "it chooses nothing" in done.out
    again = cli("job=test", f"ckpt={done.folder / 'checkpoints' / 'best.ckpt'}", *HERE, run="again")
    assert again.status == 0, again.err
    assert again.json("metrics.json")["protocol"]["selected_on"] is None


def test_episodes_need_classes(cli, instruments):
    done = cli(*SMALL, f"data.root={instruments}", "data.split=labels")
    assert done.status == 2
    assert "task.plan.group=class: the tracks have no such column; data.split=classes makes it" in done.err
