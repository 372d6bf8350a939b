"""job=fit end to end: what it leaves, resuming, checkpoints that describe themselves."""

import csv
import json
from types import SimpleNamespace

import pytest
import soundfile
import torch

from tests.conftest import RATE, tone
from tonnetz.checkpoint import load_checkpoint
from tonnetz.data import Plan
from tonnetz.errors import UserError
from tonnetz.jobs.fit import _check_classes
from tonnetz.tracks import DataSpec


def history(folder, column):
    with (folder / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


def test_fit_leaves_everything_behind(fit):
    done = fit("job.figures=true", "job.baseline=true")
    assert done.status == 0, done.err
    folder = done.folder
    for name in ("best.ckpt", "last.ckpt"):
        assert load_checkpoint(folder / "checkpoints" / name)["tonnetz"]["spec"]["classes"] == [
            "buzz",
            "noise",
            "sine",
        ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) >= {"test", "baseline", "classes", "valid/macro_f1"}
    assert 0 <= metrics["test"]["macro_f1"] <= 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "completed"
    assert manifest["config"]["task"]["plan"]["seconds"] == 0.5
    assert manifest["data"]["fingerprint"]
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in manifest["versions"]["torch"]
    assert [step for step, _ in history(folder, "valid/macro_f1")] == [3, 6]
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert pictures >= {
        "curves",
        "input_augmentation",
        "test_classes",
        "test_confusion",
        "test_roc",
        "valid_classes",
    }
    assert list(folder.glob("events.out.tfevents.*"))
    assert "MFCC + logistic regression" in done.out


def refused(done, *words):
    assert done.status == 2, done.err
    assert len(done.err.strip().splitlines()) == 1
    for word in words:
        assert word in done.err
    assert not (done.folder / "checkpoints").exists()  # before training


@pytest.mark.parametrize("word", ["job.patience=2", "schedule=plateau"])
@pytest.mark.parametrize("how", ["data.valid=0", "trainer.limit_val_batches=0"])
def test_waiting_for_a_validation_that_never_comes_is_refused(fit, word, how):
    refused(fit(word, how), word, "nothing validates")


def test_a_run_of_other_works_is_not_gone_on_with(tmp_path):
    def experiment(*works):
        spec = DataSpec(classes=("a", "b"), groups=works)
        return SimpleNamespace(task=SimpleNamespace(spec=spec), data=SimpleNamespace(plan=Plan(group="work")))

    last = tmp_path / "named/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    spec = experiment("w1", "w2").task.spec.to_dict()
    torch.save({"state_dict": {}, "tonnetz": {"format": 1, "spec": spec}}, last)
    _check_classes(experiment("w1", "w2"), last)
    with pytest.raises(UserError, match=r"run=named: .* groups \(work\): 'w2' is not in the data; choose another run"):
        _check_classes(experiment("w1", "w3"), last)


def test_mistakes_in_lists_are_told_before_training(fit, tmp_path):
    (tmp_path / "queries.txt").write_text("no/such\n")
    refused(fit(f"data.lists.queries={tmp_path / 'queries.txt'}", "job.test=false"), "names 'no/such'")
    (tmp_path / "more/sine").mkdir(parents=True)
    soundfile.write(tmp_path / "more/sine/a.wav", tone("sine", 999), RATE)
    entry = f"+data.sets.more={{source: 'folder:{tmp_path / 'more'}', lists: {{requests: x}}}}"
    refused(fit(entry, run="set"), "data.lists.requests")


def test_a_named_run_resumes_where_it_stopped(fit):
    unbroken = fit("trainer.max_epochs=4", "task.dropout=0.3", run="unbroken")
    fit("trainer.max_epochs=2", "task.dropout=0.3", "schedule=constant", run="broken")
    first = history(
        fit("trainer.max_epochs=4", "task.dropout=0.3", "schedule=constant", run="straight").folder,
        "valid/loss",
    )
    resumed = fit("trainer.max_epochs=4", "task.dropout=0.3", "schedule=constant", run="broken")
    assert history(resumed.folder, "valid/loss") == first
    assert unbroken.status == 0


def test_resuming_with_another_model_is_refused(fit):
    fit(run="same")
    again = fit("model.dim=24", run="same")
    assert again.status == 2
    assert "model: dim" in again.err
    assert again.err.count("\n") == 1


def test_results_do_not_depend_on_workers(fit):
    alone = fit("augment=basic", run="alone")
    helped = fit("augment=basic", "data.workers=2", run="helped")
    assert history(alone.folder, "valid/loss") == history(helped.folder, "valid/loss")


def test_stored_features_train_too(fit):
    done = fit("task.plan.source=features")
    assert done.status == 0, done.err
    assert done.json("manifest.json")["metrics"]["test/macro_f1"] >= 0


def test_without_validation_the_last_weights_are_the_best(fit):
    done = fit("data.valid=0", "job.save_every=2")
    assert done.status == 0, done.err
    best, last = (load_checkpoint(done.folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 6


def test_prepared_features_serve_every_split(fit, cli, corpus, tmp_path):
    cli("job=prepare", "data=folder", f"data.root={corpus}", "job.features=true")
    files = sorted((tmp_path / "data" / "features").rglob("*.npy"))
    done = fit("task.plan.source=features", "data.split_seed=3", "data.fraction=0.5", "augment=specaugment")
    assert done.status == 0, done.err
    assert sorted((tmp_path / "data" / "features").rglob("*.npy")) == files


def test_batches_of_one_step_are_augmented_differently(fit, monkeypatch):
    from tonnetz.tasks.classification import Classification

    seeds = []
    step = Classification.training_step
    monkeypatch.setattr(
        Classification, "training_step", lambda s, b, i: (seeds.append(torch.initial_seed()), step(s, b, i))[1]
    )
    assert fit("trainer.accumulate_grad_batches=3").status == 0
    assert len(set(seeds)) == len(seeds) == 6


@pytest.mark.parametrize("loss", ["bce", "bce_pos_weight", "ce", "focal", "asymmetric_focal"])
def test_every_loss_fits(fit, loss):
    assert fit(f"loss={loss}", "trainer.max_epochs=1").status == 0


def test_fewer_steps_than_an_epoch_are_an_epoch(fit):
    done = fit("trainer.max_steps=2", run="short")
    assert done.status == 0, done.err
    kept = torch.load(done.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert "valid/loss" in done.json("metrics.json") or (done.folder / "metrics.csv").exists()
    longer = fit("trainer.max_epochs=2", run="short")  # goes on from there
    assert longer.status == 0, longer.err
    assert torch.load(longer.folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 2


def test_checkpoints_of_every_so_many_epochs_stay(fit):
    words = ["trainer.max_epochs=5", "job.keep_every=2", "job.test=false"]
    done = fit(*words)
    assert done.status == 0, done.err
    names = sorted(path.name for path in (done.folder / "checkpoints").iterdir())
    assert names == ["best.ckpt", "epoch-2.ckpt", "epoch-4.ckpt", "last.ckpt"]
    weights = [torch.load(done.folder / "checkpoints" / f"epoch-{n}.ckpt", weights_only=True) for n in (2, 4)]
    assert [one["epoch"] for one in weights] == [1, 3]
    assert any(not torch.equal(weights[1]["state_dict"][k], v) for k, v in weights[0]["state_dict"].items())
    wrong = fit("job.keep_every=0.5", run="wrong")
    assert wrong.status == 2
    assert "job.keep_every=0.5: must be a whole number" in wrong.err
    for word, needed in (("job.patience=abc", "a number, or null"), ("job.smoothing=null", "a number (default: 1.0)")):
        wrong = fit(word, run="wrong")
        assert (wrong.status, wrong.err) == (2, f"error: {word}: must be {needed}\n")
