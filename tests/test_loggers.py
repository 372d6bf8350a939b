"""Loggers of a run: what each leaves, and that nothing is sent anywhere unasked."""

import csv
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tonnetz.errors import UserError
from tonnetz.loggers import logger_names


def test_names() -> None:
    assert logger_names("csv") == ["csv"]
    assert logger_names(["tensorboard", "csv", "csv"]) == ["tensorboard", "csv"]
    assert logger_names("none") == logger_names(None) == logger_names([]) == []
    with pytest.raises(UserError, match=r"trainer\.logger=tensorbord: unknown; did you mean 'tensorboard'\?"):
        logger_names(["csv", "tensorbord"])


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_alone_and_beside_tensorboard(fit):
    """The numbers of a CSV are those of TensorBoard, and the figures are in the run's folder without it."""
    done = fit("trainer.logger=csv", "job.figures=true", "trainer.log_every_n_steps=1", run="one")
    assert done.status == 0, done.err
    assert not list(done.folder.rglob("events.out.tfevents.*"))
    assert {"curves", "input_augmentation", "test_roc"} <= {path.stem for path in (done.folder / "figures").glob("*")}
    rows = rows_of(done.folder / "csv" / "version_0")
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 6
    (final,) = [row["final/valid/macro_f1"] for row in rows if row["final/valid/macro_f1"]]
    assert float(final) == pytest.approx(done.json("metrics.json")["valid/macro_f1"])
    assert "model: " in (done.folder / "csv" / "version_0" / "hparams.yaml").read_text()
    assert rows_of(done.folder)[0]["step"] == "3"  # the history of validations is where it always is

    both = fit("trainer.logger=[tensorboard,csv]", "trainer.log_every_n_steps=1", run="both")
    assert both.status == 0, both.err
    events = EventAccumulator(str(both.folder)).Reload()
    told = [event.value for event in events.Scalars("train/loss")]
    found = [float(row["train/loss"]) for row in rows_of(both.folder / "csv" / "version_0") if row["train/loss"]]
    assert found == pytest.approx(told)
    assert found == pytest.approx(losses)


def test_a_run_that_goes_on_keeps_its_rows(fit):
    first = fit("trainer.logger=csv", "trainer.max_epochs=1", "job.test=false")
    assert first.status == 0, first.err
    second = fit("trainer.logger=csv", "trainer.max_epochs=2", "job.test=false")
    assert second.status == 0, second.err
    steps = [
        [int(row["step"]) for row in rows_of(second.folder / "csv" / f"version_{n}") if row["valid/macro_f1"]]
        for n in (0, 1)
    ]
    assert steps == [[2], [5]]


def test_no_logger_at_all(fit):
    done = fit("trainer.logger=none", "job.figures=true")
    assert done.status == 0, done.err
    assert not list(done.folder.rglob("events.out.tfevents.*"))
    assert not (done.folder / "csv").exists()
    assert (done.folder / "figures" / "curves.png").exists()
    assert rows_of(done.folder)


def test_a_missing_package_is_told_at_once(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = fit("trainer.logger=[csv,wandb]")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "trainer.logger=wandb: is not installed; pip install 'tonnetz[wandb]'" in done.err
    assert not (done.folder.parents[1] / "data").exists()


class Run:
    """What Lightning uses of a run of W&B, and a record of it."""

    def __init__(self, **settings):
        self.settings, self.logged, self.finished, self.id, self.config = settings, [], 0, "x1", self
        self.chosen = {}

    def define_metric(self, *args, **keywords):
        pass

    def update(self, values, **keywords):
        self.chosen |= values

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package, which is not among the dependencies; gives the runs that were begun."""
    runs = []

    def init(**settings):
        runs.append(Run(**settings))
        return runs[-1]

    package, kinds = ModuleType("wandb"), SimpleNamespace(Run=Run, RunDisabled=Run)
    package.run, package.init, package.Image = None, init, lambda path: ("image", path)
    for name, module in {
        "wandb": package,
        "wandb.sdk.lib": kinds,
        "wandb.wandb_run": kinds,
        "wandb.sdk": kinds,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return runs


def test_weights_and_biases_stays_offline(fit, wandb, monkeypatch):
    done = fit("trainer.logger=[wandb,csv]", "trainer.log_every_n_steps=1", "job.figures=true", run="own")
    assert done.status == 0, done.err
    (run,) = wandb
    assert (run.settings["mode"], run.settings["project"], run.settings["name"]) == ("offline", "tonnetz", "own")
    assert run.settings["dir"] == str(done.folder)
    assert run.finished == 1
    told = [item["train/loss"] for item in run.logged if "train/loss" in item]
    found = [float(row["train/loss"]) for row in rows_of(done.folder / "csv" / "version_0") if row["train/loss"]]
    assert told == pytest.approx(found)
    pictures = [value[0] for item in run.logged for value in item.values() if isinstance(value, list)]
    assert ("image", str(done.folder / "figures" / "test_roc.png")) in pictures
    assert run.chosen["model"] == "Tiny"
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    done = fit("trainer.logger=wandb", "trainer.max_epochs=1", "job.test=false", run="sent")
    assert done.status == 0, done.err
    assert (wandb[1].settings["mode"], wandb[1].settings["project"]) == ("online", "mine")


def test_a_run_of_weights_and_biases_ends_where_training_fails(fit, wandb):
    done = fit("trainer.logger=wandb", "optimizer.lr=1e30", "trainer.max_epochs=20", "trainer.log_every_n_steps=1")
    assert done.status != 0
    assert [run.finished for run in wandb] == [1]
