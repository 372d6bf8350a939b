"""A run that is killed in the middle of an epoch goes on as if nothing had happened; Ctrl-C stops it politely."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT, SMALL

STEPS = [
    "trainer.max_epochs=4",
    "task.plan.steps=20",
    "trainer.log_every_n_steps=1",
    "augment=basic",
    "task.dropout=0.3",
]


def command(corpus, tmp_path, name, *words):
    paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", f"run={name}"]
    return [
        sys.executable,
        str(ROOT / "src/main.py"),
        "data=folder",
        f"data.root={corpus}",
        *SMALL,
        *STEPS,
        *paths,
        *words,
    ]


def start(words, **keywords):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **keywords)


def losses(folder):
    """Training loss of every step; of a step that was done twice, the later value."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in sorted(events.Scalars("train/loss"), key=lambda e: e.wall_time)}


def wait_for(condition, process, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.time() < end, "it takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize("save_every", ["null", "7"])
def test_killed_and_resumed_equals_unbroken(corpus, tmp_path, save_every):
    option = f"job.save_every={save_every}"
    whole = start(command(corpus, tmp_path, "whole", option))
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    words = command(corpus, tmp_path, "killed", option)
    process = start(words)
    last = tmp_path / "outputs/killed/checkpoints/last.ckpt"
    wait_for(last.exists, process)
    stamp = last.stat().st_mtime_ns
    wait_for(lambda: last.stat().st_mtime_ns != stamp, process)  # the second save: within the first epochs
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = len(losses(tmp_path / "outputs/killed"))
    again = start(words)
    _out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    expected, found = (losses(tmp_path / "outputs" / name) for name in ("whole", "killed"))
    assert reached < len(expected) == 80
    missing = set(expected) - set(found)  # steps between the last flush to disk and the kill have no event
    assert {step: found[step] for step in found} == pytest.approx({step: expected[step] for step in found}, abs=1e-6)
    assert max(missing, default=-1) < min(60, max(found))
    results = [
        json.loads((tmp_path / "outputs" / name / "metrics.json").read_text())["test"] for name in ("whole", "killed")
    ]
    assert results[0] == pytest.approx(results[1])


def test_ctrl_c_stops_saves_and_tests(corpus, tmp_path):
    process = start(command(corpus, tmp_path, "polite", "trainer.max_epochs=500"))
    wait_for((tmp_path / "outputs/polite/checkpoints/best.ckpt").exists, process)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    manifest = json.loads((tmp_path / "outputs/polite/manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert "test" in json.loads((tmp_path / "outputs/polite/metrics.json").read_text())
    assert "press Ctrl-C again" in err


def test_two_ctrl_c_stop_now(corpus, tmp_path):
    process = start(command(corpus, tmp_path, "hasty", "trainer.max_epochs=500", "data.workers=1"))
    wait_for((tmp_path / "outputs/hasty/checkpoints/best.ckpt").exists, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)  # two signals at once would be delivered as one
    process.send_signal(signal.SIGINT)
    begin = time.time()
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.time() - begin < 10
    assert json.loads((tmp_path / "outputs/hasty/manifest.json").read_text())["status"] == "interrupted"
