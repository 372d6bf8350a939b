"""Training and test get the same episodes whatever runs them: workers, processes, a resume, another run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.jobs.recording import read, record
from tests.tasks.test_fewshot import SMALL
from tonnetz.tasks.fewshot import FewShot

WORDS = [
    *SMALL,
    "task.plan.steps=4",
    "task.evaluation.episodes=100",
    *(f"task.heads.{name}=null" for name in ("logistic", "baselinepp", "bdcspn", "tim", "knn")),
]


@pytest.fixture
def recorded(cli, instruments, tmp_path, monkeypatch):
    """Fit and test in this process; clips of every step, and the list of the test's episodes."""

    def call(*words, run):
        with monkeypatch.context() as patch:
            record(tmp_path / f"{run}-episodes", patch.setattr)
            done = cli(*WORDS, f"data.root={instruments}", *words, run=run)
        assert done.status == 0, done.err
        return read(tmp_path / f"{run}-episodes")

    return call


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_workers_runs_and_resumes_have_the_same_episodes(recorded, cli, instruments, tmp_path, monkeypatch):
    steps, test = recorded("data.workers=0", run="one")
    assert sorted(steps) == list(range(8))
    assert test.count(b"\n") == 100
    made = files(tmp_path / "data")
    data = [word for word in WORDS if word.startswith(("task", "data"))]
    listed = cli("job=episodes", *data, f"data.root={instruments}", run="listed")
    assert (listed.folder / "episodes.jsonl").read_bytes() == test
    assert recorded("data.workers=4", run="workers") == (steps, test)
    assert recorded("data.workers=0", run="again") == (steps, test)

    compare = FewShot.compare

    def stopped(self, z, batch):
        if self.trainer.global_step == 6:
            raise RuntimeError("killed")
        return compare(self, z, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FewShot, "compare", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            recorded("job.save_every=1", run="resumed")
    assert not (tmp_path / "resumed-episodes" / "test-0.jsonl").exists()
    before = (tmp_path / "resumed-episodes" / "train-0.jsonl").read_text().count("\n")
    assert recorded("job.save_every=1", run="resumed") == (steps, test)
    lines = (tmp_path / "resumed-episodes" / "train-0.jsonl").read_text().count("\n")
    assert lines - before < 8  # it went on, and did not begin again

    others, other = recorded("seed=2", run="seed")
    assert other == test
    assert all(others[step] != steps[step] for step in steps)
    assert files(tmp_path / "data") == made  # no list of episodes is kept
    kept = {Path(name).name for name in files(tmp_path / "outputs") if not name.startswith("listed")}
    assert {name for name in kept if "episodes" in name} == {"episodes.csv"}


def test_two_processes_share_the_episodes_of_one(recorded, instruments, tmp_path):
    steps, test = recorded(run="one")
    folder = tmp_path / "two-episodes"
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=2", "task.plan.steps=2"]
    paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", "run=two"]
    script = str(ROOT / "tests/jobs/recording.py")
    words = [sys.executable, script, *WORDS, f"data.root={instruments}", *ddp, *paths]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TONNETZ_RECORDING": str(folder), "PYTHONPATH": path}
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [read(folder, rank) for rank in range(2)]
    assert [mine[1] for mine in ranks] == [test, test]
    assert all(sorted(mine[0]) == list(range(4)) for mine in ranks)
    union = {2 * step + rank: clips for rank, (mine, _) in enumerate(ranks) for step, clips in mine.items()}
    assert union == steps
    one, two = (json.loads((tmp_path / "outputs" / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["protocol"] == two["protocol"]
