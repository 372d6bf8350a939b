"""The summary of a sweep: seeds together, best epoch, slope, divergence, bootstrap interval; the CSI sweeps."""

import json

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ROOT
from tests.losses.test_metric_losses import METRIC
from tonnetz.sweep import _overview, read_jobs, settings, write_jobs, write_markdown

SWEEPS = sorted(path.stem for path in (ROOT / "config/sweep").glob("csi_*.yaml"))


@pytest.fixture
def jobs(tmp_path):
    """Two rates with three seeds each; one run diverged, one failed."""
    number = 0
    for rate, scores in (("0.1", [0.5, 0.7, 0.9]), ("1.0", [0.3, None, None])):
        for seed, score in enumerate(scores):
            folder = tmp_path / str(number)
            (folder / ".hydra").mkdir(parents=True)
            (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([f"optimizer.lr={rate}", f"seed={seed}"]))
            status = "completed" if score else ["diverged", "failed"][seed - 1]
            manifest = {"status": status, "seconds": 1.0}
            if score:
                manifest |= {"score": score, "monitor": "valid/map", "best_epoch": seed + 3}
                lines = ["step,valid/map", *(f"{t},{score + 0.1 * t * (seed + 1)}" for t in range(8))]
                (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
            (folder / "manifest.json").write_text(json.dumps(manifest))
            number += 1
    return read_jobs(tmp_path)


def test_settings_gather_seeds(jobs):
    good, bad = settings(jobs)
    assert (good.name, good.scores, good.diverged, good.failed) == ("optimizer.lr=0.1", [0.5, 0.7, 0.9], 0, 0)
    assert good.epoch == 4.0
    assert good.slope == pytest.approx(np.mean([0.1, 0.2, 0.3]))
    assert (bad.scores, bad.diverged, bad.failed) == ([0.3], 1, 1)
    assert bad.interval is None


def test_interval_is_that_of_a_bootstrap_over_seeds(jobs):
    low, high = settings(jobs)[0].interval
    random = np.random.default_rng(1)
    means = random.choice([0.5, 0.7, 0.9], (20_000, 3)).mean(1)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)
    assert settings(jobs)[0].interval == (low, high)  # the same every time


def test_tables_hold_it(jobs, tmp_path):
    write_markdown(tmp_path / "sweep.md", jobs)
    text = (tmp_path / "sweep.md").read_text()
    assert "| optimizer.lr=1.0 | 1 | 0.3000 |  |  | 3.0 | 0.1000 | 1 | 1 |" in text
    assert "| diverged |" in text
    write_jobs(tmp_path / "sweep.csv", jobs)
    head = (tmp_path / "sweep.csv").read_text().splitlines()[0].split(",")
    assert {"best_epoch", "slope", "status", "score"} <= set(head)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_csi_sweep_composes(name):
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        config = compose("main", overrides=[f"sweep={name}"], return_hydra_config=True)
        assert config.task._target_ == "tonnetz.tasks.csi.CSI"
        words = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
        for choice in OverridesParser.create().parse_overrides(words):
            if choice.is_sweep_override() and choice.is_discrete_sweep():
                for value in choice.sweep_string_iterator():
                    compose("main", overrides=[f"sweep={name}", f"{choice.key_or_group}={value}"])
            else:
                compose("main", overrides=[f"sweep={name}", f"{choice.key_or_group}={0.1}"])
    assert "seed" in config.hydra.sweeper.params or config.job._target_ == "tonnetz.jobs.test.run"


def test_all_ideas_of_the_issue_are_there():
    names = ("augment", "chunks", "losses", "models", "optuna", "reductions", "schedule")
    assert set(SWEEPS) >= {f"csi_{name}" for name in names}


def test_the_sweep_of_losses_has_all_that_compare_vectors():
    sweep = yaml.safe_load((ROOT / "config/sweep/csi_losses.yaml").read_text())
    assert sorted(sweep["hydra"]["sweeper"]["params"]["loss"].split(",")) == sorted(METRIC)


def test_the_overview_fits_a_terminal():
    from rich.console import Console

    name = "task.plan.stretch=[0.8,1.2] optimizer.lr=0.001"
    full = [name, "3", "0.1560", "0.0151", "0.1234 to 0.1876", "4.3", "0.0120", "1", "0"]
    console = Console(width=80, record=True)
    console.print(_overview([full, ["b", *full[1:]]]))
    text = console.export_text()
    assert all(word in text for word in ("setting", "runs", "mean", "deviation", "95 %", "epoch", "slope", "diverged"))
    assert "failed" not in text
    assert (
        "".join(line[:12].strip() for line in text.splitlines()[3:]).replace(" ", "").startswith(name.replace(" ", ""))
    )
