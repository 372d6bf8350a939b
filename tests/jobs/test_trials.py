"""Teaching and asking over and over: draws are fair, and every number is that of job=enroll and job=classify."""

import csv

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import RATE, tone
from tonnetz.enrolment.trials import Trials, trial
from tonnetz.errors import UserError

KINDS = ("cello", "banjo", "oboe", "flute", "violin")


def test_files_that_teach_never_ask():
    labels = np.repeat(["a", "b", "c", "d"], [6, 9, 30, 7])
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        taught, shown, asked = Trials(classes=3, unknown=1, shots=4, queries=5).draw(labels, random)
        seen.add(tuple(sorted(taught)))
        assert not {*shown} & {*asked}
        assert len(shown) == len({*shown}) == 12
        assert {*labels[shown]} == {*taught}
        stranger = ({*"abcd"} - {*taught}).pop()
        counts = {name: int((labels[asked] == name).sum()) for name in "abcd"}
        assert counts[stranger] == 5
        assert all(counts[n] == min(5, int((labels == n).sum()) - 4) for n in taught)
    assert len(seen) == 4
    taught, _, asked = Trials(shots=2, queries=3, teach=("a", "b"), strangers=("d",)).draw(labels, random)
    assert taught == ["a", "b"]
    assert {*labels[asked]} == {"a", "b", "d"}


def test_classes_far_apart_are_right_and_strangers_rejected():
    random = np.random.default_rng(1)
    labels = np.repeat([*"abcd"], 12)
    place = dict(zip("abcd", 50 * np.eye(4), strict=True))
    vectors = torch.from_numpy(np.stack([place[n] for n in labels for _ in range(2)]) + random.normal(size=(96, 4)))
    found = {"vectors": vectors.float(), "row": torch.arange(48).repeat_interleave(2)}
    measure = {"distance": "squared", "scale": 1.0, "normalize": "none"}
    (row,) = trial(Trials(accept=1.0), {"measure": measure, "tree": None}, found, labels, None, ["distance"], random)
    assert row["accuracy"] == row["file_auroc"] == row["window_auroc"] == 1
    assert row["file_unknown_rejected"] == row["window_unknown_rejected"] == 1
    assert {c["class"]: c["accuracy"] for c in row["classes"]}[row["unknown"]] is None


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"classes": 4}, "have 4 classes"),
        ({"shots": 5}, "d: has 5 files"),
        ({"shots": 1}, "2 or more"),
        ({"teach": ("a", "b")}, "both or neither"),
        ({"teach": ("a", "b"), "strangers": ("x",)}, "no class 'x'"),
    ],
)
def test_mistakes_are_one_line(keys, match):
    with pytest.raises(UserError, match=match):
        Trials(**({"shots": 3} | keys)).check({"a": 9, "b": 9, "c": 9, "d": 5})


def test_a_folder_is_tried(fit, cli, tmp_path):
    for number, kind in enumerate(KINDS):
        (tmp_path / "in" / kind).mkdir(parents=True)
        for i in range(6):
            soundfile.write(
                tmp_path / "in" / kind / f"{i}.wav", tone(("buzz", "sine", "noise")[number % 3], 10 * number + i), RATE
            )
    done = fit("task.plan.steps=2", "job.test=false")
    assert done.status == 0, done.err
    ckpt = f"ckpt={done.folder / 'checkpoints' / 'best.ckpt'}"
    words = ["job=trials", ckpt, f"job.examples={tmp_path / 'in'}", "job.shots=3", "job.draws=4", "trainer=cpu"]
    done = cli(*words, "data.workers=0", run="tried")
    assert done.status == 0, done.err
    with (done.folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["draw"] for row in rows] == [*"0123"]
    found = done.json("manifest.json")["trials"]["distance"]["accuracy"]
    assert found["mean"] == pytest.approx(np.mean([float(row["accuracy"]) for row in rows]))
    assert "rejected when not" in " ".join(done.out.split())
    done = cli(*words, "job.names=[cello,banjoo]", run="wrong")
    assert done.status == 2
    assert "did you mean 'banjo'" in done.err
