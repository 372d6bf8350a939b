"""The examples of docs/extending.md, written into a copy of the repository, do what the page says."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = re.findall(r"^`([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [block.splitlines() for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)]
FOLDER = "/sounds/birds"  # as the page calls it

RATE = 16000
BIRDS, PLACES = ("robin", "wren", "owl"), 8
FAST = ["trainer=cpu", "data.workers=0"]
SMALL = {
    "model": "tiny",
    "pooling": "mean",
    "augment": "none",
    "trainer.max_epochs": "1",
    "task.plan.seconds": "0.5",
    "task.plan.steps": "2",
    "data.batch_size": "8",
    "job.baseline": "false",
    "job.figures": "false",
}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """One noisy call of each bird at each place, 0.3 to 1 second long."""
    root, random = tmp_path_factory.mktemp("birds"), np.random.default_rng(0)
    for number in range(len(BIRDS) * PLACES):
        place, bird = divmod(number, len(BIRDS))
        t = np.arange(int(RATE * random.uniform(0.3, 1.0))) / RATE
        call = 0.5 * np.sin(2 * np.pi * 500 * 2**bird * t) + 0.01 * random.standard_normal(len(t))
        soundfile.write(root / f"{BIRDS[bird]}-place{place}-{number:03}.wav", call, RATE)
    return root


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository with the files of the page."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("src", "config", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "docs"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for name, text in FILES:
        assert not (root / name).exists(), f"{name} is a file of the framework: an example would overwrite it"
        (root / name).write_text(text)
    return root


def call(words, copy):
    """Run a command in the copy; fails with what it printed."""
    settings = {"TONNETZ_ROOT": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=copy, env=inherited | settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run(command, birds, copy, name):
    """Run a documented command at small size. Returns what it printed, and its run folder."""
    python, *words = shlex.split(command.replace(FOLDER, str(birds)))
    assert python == "python"
    chosen = dict(word.partition("=")[::2] for word in words[1:])
    if words[0] == "src/main.py":
        name = chosen.get("run", name)
        words += FAST + [f"run={name}"] * ("run" not in chosen)
        if "ckpt" not in chosen:
            words += ["data=birds", f"data.root={birds}"] * ("data" not in chosen)
        if "job" not in chosen:
            words += [f"{key}={value}" for key, value in SMALL.items() if key not in chosen]
    return call([sys.executable, *words], copy), copy / "outputs" / name


def load(path):
    return json.loads(path.read_text())


def check_table(folder, birds):
    """The prepared table has every file, with the bird and place of its name; no place is in two splits."""
    (table,) = folder.parents[1].glob("data/birds-*/tracks.jsonl")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    names = sorted(f"{row['labels'][0]}-{row['group']}-" for row in rows)
    assert names == sorted(path.stem[:-3] for path in birds.iterdir())
    tracks = load(folder / "manifest.json")["data"]["tracks"]
    assert sum(tracks.values()) == len(names)
    assert all(count % len(BIRDS) == 0 for count in tracks.values())


def check_duration(out, folder, birds):
    check_table(folder, birds)
    seconds = [soundfile.info(path).duration for path in birds.iterdir()]
    counts, edges = np.histogram(seconds, 5)
    found = load(folder / "durations.json")
    assert found["counts"] == counts.tolist()
    np.testing.assert_allclose(found["edges"], edges)
    assert max(line.count("#") for line in out.splitlines()) == 40


def check_embed(out, folder, birds):
    with np.load(folder / "embeddings.npz") as found:
        assert any(len(array) == len(list(birds.iterdir())) for array in found.values())


def check_fit(out, folder, birds):
    check_table(folder, birds)
    metrics, manifest = load(folder / "metrics.json"), load(folder / "manifest.json")
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    score, monitor = ("mae", "valid/mae") if folder.name == "loudness" else ("macro_f1", "valid/macro_f1")
    assert math.isfinite(metrics["test"][score])
    assert [int(row["step"]) for row in rows] == [2]
    assert math.isclose(float(rows[0][monitor]), metrics[monitor], abs_tol=1e-5)
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert manifest["status"] == "completed"


CHECKS = {"duration": check_duration, "embed": check_embed, "fit": check_fit}


@pytest.mark.parametrize("commands", COMMANDS, ids=lambda lines: lines[0].partition(".py ")[2].split()[0])
def test_the_commands_of_a_section(commands, birds, copy, request):
    for number, command in enumerate(commands):
        out, folder = run(command, birds, copy, f"{request.node.callspec.id}-{number}".replace("=", "-"))
        if "pytest" in command:
            assert int(re.search(r"(\d+) passed", out)[1]) > 10
            continue
        chosen = dict(word.partition("=")[::2] for word in command.split()[2:])
        config = load(folder / "manifest.json")["config"]
        for group in {"model", "loss", "frontend", "task"} & chosen.keys():
            text = (copy / "config" / group / f"{chosen[group]}.yaml").read_text()
            documented = yaml.safe_load(text)
            assert config[group]["_target_"] == documented.get(group, documented)["_target_"]
        CHECKS[chosen.get("job", "fit")](out, folder, birds)


def test_every_example_is_one_module_and_one_yaml():
    modules = {path for path, _ in FILES if path.endswith(".py")}
    targets = set()
    for path, text in FILES:
        if path.endswith(".yaml"):
            targets |= {name.rpartition(".")[0] for name in re.findall(r"_target_: (tonnetz\.\w+\.\w+\.\w+)", text)}
    assert {f"src/{name.replace('.', '/')}.py" for name in targets} == modules
    assert len(FILES) == 2 * len(modules) == 14


def test_the_loudness_of_a_sine_is_known():
    """A sine of amplitude A has a level of 20 log10(A) - 3.01 dB, however much padding follows it."""
    import torch

    scope = {"__name__": "loudness"}
    exec(dict(FILES)["src/tonnetz/tasks/loudness.py"], scope)
    audio = torch.zeros(3, 1, RATE)
    sine = torch.sin(2 * torch.pi * 100 * torch.arange(RATE) / RATE)
    audio[0, 0], audio[1, 0, : RATE // 2] = 0.1 * sine, sine[: RATE // 2]
    found = scope["level"](audio, torch.tensor([RATE, RATE // 2, RATE]))
    torch.testing.assert_close(found, torch.tensor([-23.0103, -3.0103, -100.0]), rtol=0, atol=1e-3)
