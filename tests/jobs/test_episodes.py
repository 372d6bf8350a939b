"""job=episodes: the list is what a test draws, the same on every machine and whatever reads it."""

import json

import numpy as np
import pytest

from tests.tasks.test_fewshot import SMALL
from tonnetz.fewshot.episodes import Pool, draw_many
from tonnetz.jobs.episodes import summary

DATA = [word for word in SMALL if word.startswith(("task", "data"))]


@pytest.fixture
def listed(cli, instruments):
    """Write a list of episodes of the small corpus, with overrides."""

    def call(*words, run="list"):
        return cli("job=episodes", *DATA, f"data.root={instruments}", *words, run=run)

    return call


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dump_is_the_same_byte_by_byte(listed):
    """That fits and tests draw it too, whatever runs them: test_same_episodes.py."""
    first = listed("job.count=100")
    assert first.status == 0, first.err
    text = (first.folder / "episodes.jsonl").read_bytes()
    assert text.count(b"\n") == 100
    for name, words in (("again", []), ("training", ["seed=5", "task.plan.ways=2"])):  # of training, not of the test
        again = listed("job.count=100", *words, run=name)
        assert (again.folder / "episodes.jsonl").read_bytes() == text
    other = listed("job.count=100", "task.evaluation.seed=1", run="other")
    assert (other.folder / "episodes.jsonl").read_bytes() != text
    fewer = listed("job.count=7", run="fewer")
    assert (fewer.folder / "episodes.jsonl").read_bytes() == b"".join(text.splitlines(keepends=True)[:7])
    written = {path.name for path in first.folder.rglob("*") if path.is_file() and ".hydra" not in path.parts}
    assert written == {"episodes.jsonl", "manifest.json", "tonnetz.log"}  # no cache of episodes


def test_episodes_of_a_validation_have_its_classes(listed, tmp_path):
    out = tmp_path / "new" / "list.jsonl"
    done = listed("job.stage=valid", f"job.out={out}")
    assert done.status == 0, done.err
    found = lines(out)
    assert len(found) == 10  # task.evaluation.valid_episodes
    assert {name for line in found for name in line["classes"]} == {"oboe", "flute", "banjo"}
    assert str(out) in done.out
    assert done.json("manifest.json")["episodes"]["classes"]["oboe"]["episodes"] == 10


def test_a_test_with_the_list_equals_one_without(cli, listed, instruments, tmp_path):
    fewer = [f"task.heads.{name}=null" for name in ("logistic", "baselinepp", "bdcspn", "tim")]
    fitted = cli(*SMALL, *fewer, f"data.root={instruments}", "trainer.max_epochs=1", "job.test=false", run="fit")
    assert fitted.status == 0, fitted.err
    out = tmp_path / "list.jsonl"
    assert listed(f"job.out={out}").status == 0
    words = ["job=test", f"ckpt={fitted.folder / 'checkpoints/best.ckpt'}", "data.workers=0", "trainer=cpu"]
    drawn = cli(*words, run="drawn")
    read = cli(*words, "task=fewshot", f"task.evaluation.file={out}", run="read")
    assert read.status == 0, read.err
    for name in ("answers.csv", "episodes.csv", "heads.csv"):
        assert (read.folder / name).read_text() == (drawn.folder / name).read_text()
    assert read.json("metrics.json")["test"] == drawn.json("metrics.json")["test"]
    short = tmp_path / "short.jsonl"
    short.write_text("".join(out.read_text().splitlines(keepends=True)[5:9]))
    few = cli(*words, "task=fewshot", f"task.evaluation.file={short}", run="few")
    assert few.status == 0, few.err
    part = drawn.folder / "answers.csv"
    wanted = [line.split(",")[1:] for line in part.read_text().splitlines()[1:] if 5 <= int(line.split(",")[0]) < 9]
    assert [line.split(",")[1:] for line in (few.folder / "answers.csv").read_text().splitlines()[1:]] == wanted


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["job.stage=train"], "job.stage=train"),
        (["job.count=0"], "job.count=0"),
        (["task.evaluation.ways=4"], "task.evaluation.ways=4: the test split has 3 classes"),
    ],
)
def test_mistakes_are_one_line(listed, words, match):
    done = listed(*words)
    assert done.status == 2
    assert match in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_split_without_classes_and_tasks_without_episodes(cli, instruments):
    words = ["job=episodes", "data=folder", f"data.root={instruments}", "data.valid=0", "data.test=0"]
    for more, match in ((["task=fewshot"], "no tracks in this split"), ([], "add task=fewshot")):
        done = cli(*words, *more)
        assert done.status == 2
        assert match in done.err


def test_the_summary_counts_as_a_loop_does():
    pool = Pool(np.repeat(np.arange(6), 8), None, list("abcdef"))
    episodes = draw_many(pool, 20, 3, 2, 4, seed=0, unknown=1)
    found = summary(episodes, pool)
    for code, name in enumerate("abcdef"):
        there, strange, clips = 0, 0, set()
        for e in range(20):
            there += code in episodes.classes[e]
            strange += pool.groups[episodes.unknown[e, 0, 0]] == code
            for part in (episodes.support[e], episodes.query[e], episodes.unknown[e]):
                clips |= {row for row in part.ravel().tolist() if pool.groups[row] == code}
        assert found["classes"][name] == {"episodes": there, "unknown": strange, "used": len(clips), "clips": 8}
    assert (found["ways"], found["shots"], found["queries"], found["episodes"]) == ("3", "2", "4", 20)
