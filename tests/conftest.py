"""Fixtures for all tests: a tiny corpus made on the spot, and the command line run in process."""

import json
import os
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("TONNETZ_ROOT", str(ROOT))
RATE = 16000


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the learning checks that train for a while")


def pytest_collection_modifyitems(config, items):
    real = os.environ.get("TONNETZ_REAL_DATA")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="a learning check: run with --slow"))
        if "real" in item.keywords and not (real and Path(real).is_dir()):
            item.add_marker(pytest.mark.skip(reason="set TONNETZ_REAL_DATA to a folder of real audio"))


def tone(kind, seed, seconds=1.2):
    """One second or so of a class that is easy to tell: a low buzz, a high sine, or noise bursts."""
    random = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = 110 * 2 ** random.uniform(0, 1)
    sound = {
        "buzz": sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 12)),
        "sine": np.sin(2 * np.pi * 8 * pitch * t),
        "noise": random.standard_normal(len(t)) * (np.sin(2 * np.pi * 6 * t) > 0),
    }[kind]
    sound = sound / np.abs(sound).max() * random.uniform(0.2, 0.9)
    return (sound + 0.003 * random.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with three classes of ten wav files each; lengths differ, some are longer than a window."""
    root = tmp_path_factory.mktemp("corpus")
    for number, kind in enumerate(("buzz", "noise", "sine")):
        (root / kind).mkdir()
        for i in range(10):
            sound = tone(kind, 100 * number + i, seconds=0.6 + 0.25 * (i % 5))
            soundfile.write(root / kind / f"{i}.wav", sound, RATE)
    return root


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder; `server.asked` counts the requests."""

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def serving(handler, **state):
    """A web server on this machine with these attributes, at the address ``url``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    vars(server).update(state, url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A web server on this machine for the folder ``served.folder``, at the address ``served.url``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(partial(Quiet, directory=str(folder)), asked=[], folder=folder) as server:
        yield server


SMALL = [
    "model=tiny",
    "pooling=mean",
    "augment=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "task.plan.seconds=0.5",
    "task.plan.steps=3",
    "data.batch_size=8",
    "data.workers=0",
    "job.baseline=false",
    "job.figures=false",
]


class Result:
    """What a command left: exit status, printed text, run folder."""

    def __init__(self, status, out, err, folder):
        self.status, self.out, self.err, self.folder = status, out, err, folder

    def json(self, name):
        return json.loads((self.folder / name).read_text())


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """Run ``tonnetz ARGS`` in this process; data and outputs go to a temporary folder."""
    from tonnetz import cli as module
    from tonnetz import sweep

    def call(*words, run="run"):
        paths = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", f"run={run}"]
        monkeypatch.setattr(sys, "argv", ["tonnetz", *words, *paths])
        sweep.failures.clear()
        capfd.readouterr()
        status = 0
        try:
            module.main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capfd.readouterr()
        return Result(status, out, err, tmp_path / "outputs" / run)

    return call


@pytest.fixture
def fit(cli, corpus):
    """Fit the tiny classifier on the tiny corpus, with overrides."""

    def call(*words, run="run"):
        return cli("data=folder", f"data.root={corpus}", *SMALL, *words, run=run)

    return call
