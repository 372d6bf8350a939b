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
    facts = {"measure": measure, "tree": None}
    row, *_ = trial(Trials(accept=1.0), facts, found, labels, None, ["distance"], random)
    assert row["accuracy"] == row["file_auroc"] == row["window_auroc"] == 1
    assert row["file_unknown_rejected"] == row["window_unknown_rejected"] == 1
    assert {c["class"]: c["accuracy"] for c in row["classes"]}[row["unknown"]] is None


def test_what_does_not_listen_is_at_chance():
    labels = np.repeat([*"abcd"], 12)
    found = {"vectors": torch.randn(48, 4, generator=torch.Generator().manual_seed(0)), "row": torch.arange(48)}
    facts = {"measure": {"distance": "squared", "scale": 1.0, "normalize": "none"}, "tree": None}
    random, rows = np.random.default_rng(2), []
    for _ in range(300):
        rows.append(trial(Trials(accept=0.7), facts, found, labels, None, ["distance"], random))
    _, constant, dice = zip(*rows, strict=True)
    assert {row["novelty"] for row in constant} == {"constant"}
    for row in constant:  # always the same class, 7 of 21 files; nothing is new
        assert row["accuracy"] == pytest.approx(1 / 3)
        assert sorted(c["accuracy"] for c in row["classes"] if c["taught"]) == [0, 0, 1]
        assert row["file_auroc"] == row["window_auroc"] == 0.5
        assert row["file_known_rejected"] == row["window_unknown_rejected"] == 0
    assert {row["novelty"] for row in dice} == {"random"}
    expected = {"accuracy": 1 / 3, "file_auroc": 0.5, "window_auroc": 0.5}
    expected |= {f"{kind}_{who}_rejected": 0.3 for kind in ("file", "window") for who in ("known", "unknown")}
    for name, value in expected.items():
        assert np.mean([row[name] for row in dice]) == pytest.approx(value, abs=0.03)
        assert np.std([row[name] for row in dice]) > 0.05


def test_dice_leave_the_draws_as_they_were():
    labels, random = np.repeat([*"abcd"], 12), np.random.default_rng(3)
    plain = np.random.default_rng(3)
    found = {"vectors": torch.randn(48, 4), "row": torch.arange(48)}
    facts = {"measure": {"distance": "squared", "scale": 1.0, "normalize": "none"}, "tree": None}
    for _ in range(3):
        rows = trial(Trials(), facts, found, labels, None, ["distance"], random)
        assert rows[0]["taught"] == ";".join(Trials().draw(labels, plain)[0])


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
    assert [row["draw"] for row in rows if row["novelty"] == "distance"] == [*"0123"]
    assert {row["novelty"] for row in rows} == {"distance", "constant", "random"}
    found, mine = done.json("manifest.json")["trials"]["distance"]["accuracy"], rows[::3]
    assert found["mean"] == pytest.approx(np.mean([float(row["accuracy"]) for row in mine]))
    assert done.json("manifest.json")["trials"]["constant"]["accuracy"]["mean"] == pytest.approx(1 / 3)
    said = " ".join(done.out.split())
    assert all(word in said for word in ("rejected when not", "constant", "random"))
    done = cli(*words, "job.names=[cello,banjoo]", run="wrong")
    assert done.status == 2
    assert "did you mean 'banjo'" in done.err
