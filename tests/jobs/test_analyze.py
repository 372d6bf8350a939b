"""job=analyze on runs as the few-shot task writes them: what it counts, refuses, lists, writes and prints."""

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Pool, draw_many
from tonnetz.fewshot.judging import Ladder
from tonnetz.fewshot.protocol import Protocol, answer
from tonnetz.fewshot.report import head_rows, write_tables
from tonnetz.fewshot.runs import check, gather, settings
from tonnetz.heads import Constant, Random, SimpleShot

NAMES = ["violin", "cello", "oboe", "flute", "marimba", "piano"]
NOISE = {"0": 1.6, "1": 1.1, "2": 1.0}  # of the embeddings, by loss.height: more levels are better here
PROTOCOL = Protocol(episodes=30, ways=4, shots=[1, 3], queries=4, rounds=20)


def write_run(folder, words, noise, seed, protocol=PROTOCOL, clips=10, blind=True):
    """A tested run: the real writers, on random embeddings around one point a class."""
    random = np.random.default_rng([seed, int(10 * noise)])
    groups = np.repeat(np.arange(len(NAMES)), clips)
    points = np.random.default_rng(9).standard_normal((len(NAMES), 6))
    z = torch.from_numpy(points[groups] + noise * random.standard_normal((len(groups), 6))).float()
    pool = Pool(groups, None, NAMES)
    episodes = draw_many(pool, protocol.episodes, protocol.ways, 3, protocol.queries, seed=protocol.seed)
    heads = {"prototypes": SimpleShot(normalize="none"), "simpleshot_l2": SimpleShot(normalize="l2")}
    heads |= {"constant": Constant(), "random": Random()} if blind else {}
    found = {n: {name: answer(z, episodes.fewer(n), head) for name, head in heads.items()} for n in protocol.settings}
    ladder = Ladder.of(NAMES, protocol.reference)
    rows = head_rows(found, ladder, "prototypes", protocol, heads)
    ids = [f"{NAMES[code]}/{i % clips}" for i, code in enumerate(groups)]
    folder.mkdir(parents=True)
    write_tables(folder, rows, found, ladder, ids, "prototypes")
    facts = {"selected_on": "valid", "replacement": False, "disjoint": "track", "insufficient": "fail"}
    (folder / "metrics.json").write_text(json.dumps({"protocol": facts | asdict(protocol)}))
    write_manifest(folder, words, seed)


def write_manifest(folder, words, seed, status="completed", **more):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
    config = {"seed": seed, "loss": {"height": 1}}
    (folder / "manifest.json").write_text(json.dumps({"status": status, "config": config, **more}))


def write_sweep(folder, heights=("0", "1", "2"), seeds=(1, 2), broken=()):
    """A sweep over heights and seeds; `broken` jobs failed, or never began."""
    number = 0
    for height in heights:
        for seed in seeds:
            words = ["task=fewshot", f"loss.height={height}", f"seed={seed}"]
            state = dict(broken).get(number)
            if state == "failed":
                write_manifest(folder / str(number), words, seed, "failed", reason="no more memory")
            elif state != "missing":
                write_run(folder / str(number), words, NOISE[height], seed)
            number += 1
    said = [f"loss.height={','.join(heights)}", f"seed={','.join(map(str, seeds))}"]
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}
    node = {"hydra": {"sweeper": sweeper, "overrides": {"task": ["task=fewshot", *said]}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(node))
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("runs") / "sweep")


@pytest.fixture
def analyze(cli):
    def call(runs, *words, run="analysis"):
        named = runs if isinstance(runs, str) else f"[{','.join(map(str, runs))}]"
        return cli("job=analyze", f"job.runs={named}", "job.rounds=50", *words, run=run)

    return call


def test_a_sweep_is_summed_up(analyze, sweep):
    done = analyze(str(sweep))
    assert done.status == 0, done.err
    table = pl.read_csv(done.folder / "tables" / "accuracy.csv")
    assert table.select("setting", "shots", "runs").rows() == [
        *((f"loss.height={height}", shots, 2) for height in range(3) for shots in (1, 3)),
        *((name, shots, 6) for name in ("constant", "random") for shots in (1, 3)),
    ]
    first = [pl.read_csv(sweep / str(i) / "heads.csv") for i in (0, 1)]
    mine = [rows.filter(pl.col("head") == "prototypes", pl.col("shots") == 3)["accuracy"][0] for rows in first]
    assert table["mean"][1] == pytest.approx(np.mean(mine), abs=1e-6)
    assert table["low"][1] < np.mean(mine) < table["high"][1]
    pairs = pl.read_csv(done.folder / "significance" / "accuracy.csv").filter(pl.col("shots") == 3)
    assert pairs["pairs"].to_list() == [60, 60, 60]
    best = pairs.filter(pl.col("first") == "loss.height=0", pl.col("second") == "loss.height=2")
    assert best["difference"][0] < 0
    assert best["p_holm"][0] < 0.05
    assert pl.read_csv(done.folder / "significance" / "recordings.csv")["recordings"].to_list() == [60, 60, 60]
    assert set(pl.read_csv(done.folder / "instruments.csv")["class"]) == set(NAMES)
    assert pl.read_csv(done.folder / "episodes.csv")["result"].unique().sort().to_list() == ["lost", "won"]
    for name in ("macro_f1", "ece", "crm_accuracy", "level3_accuracy", "severity"):
        assert (done.folder / "tables" / f"{name}.csv").exists()
        assert "loss.height=2" in (done.folder / "tables" / f"{name}.md").read_text()
    for name in ("accuracy_shots", "accuracy_settings", "severity_shots", "instruments"):
        assert (done.folder / "figures" / f"{name}.png").stat().st_size > 5000
    chance = {name: table.filter(pl.col("setting") == name)["mean"].to_list() for name in ("constant", "random")}
    assert chance["constant"] == [0.25, 0.25]  # four ways
    assert chance["random"] == pytest.approx([0.25, 0.25], abs=0.02)
    assert all(name in done.out for name in chance)
    text = (done.folder / "analysis.md").read_text()
    assert "| loss.height=1 | 2 | 2 |" in text
    assert "| constant | 6 | 6 | 0.250" in text
    assert "Left out" not in text
    assert len(done.out.splitlines()) < 20


def test_the_reference_is_a_setting_or_a_run(analyze, sweep):
    by_name = analyze(str(sweep), "job.reference='loss.height=2'", run="a")
    assert by_name.status == 0, by_name.err
    by_run = analyze(str(sweep), f"job.reference={sweep / '5'}", run="b")
    assert by_name.json("manifest.json")["analysis"]["rows"] == by_run.json("manifest.json")["analysis"]["rows"]
    rows = {row["setting"]: row for row in by_run.json("manifest.json")["analysis"]["rows"]}
    assert "difference" not in rows["loss.height=2"]
    assert rows["loss.height=0"]["difference"].startswith("-")
    wrong = analyze(str(sweep), "job.reference='loss.height=3'")
    assert wrong.status == 2
    assert "did you mean" in wrong.err


def test_failed_and_missing_jobs_are_listed(analyze, tmp_path):
    folder = write_sweep(
        tmp_path / "sweep", heights=("0", "1"), seeds=(1, 2, 3), broken=[(1, "failed"), (5, "missing")]
    )
    done = analyze(str(folder))
    assert done.status == 0, done.err
    for text in (done.out, (done.folder / "analysis.md").read_text()):
        joined = " ".join(text.split())
        assert f"{folder}/1 (loss.height=0, seed=2): failed: no more memory" in joined
        assert f"{folder}/5 (loss.height=1, seed=3): missing" in joined
    assert "2 of 3" in done.out
    pairs = pl.read_csv(done.folder / "significance" / "accuracy.csv")
    assert pairs["seeds"].to_list() == [1, 1]  # the only seed that both have
    assert pairs["pairs"].to_list() == [30, 30]


def test_a_setting_without_any_run_stands_in_the_table(analyze, tmp_path):
    folder = write_sweep(tmp_path / "sweep", heights=("0", "1"), seeds=(1,), broken=[(0, "failed")])
    done = analyze(str(folder))
    assert done.status == 0, done.err
    assert "| loss.height=0 | 0 | 1 |" in (done.folder / "analysis.md").read_text()
    assert done.json("manifest.json")["analysis"]["reference"] == "loss.height=1"


def test_one_run_alone(analyze, tmp_path):
    write_run(tmp_path / "one", ["task=fewshot", "run=one"], 1.0, 1, blind=False)  # as task.heads.random=null
    done = analyze(str(tmp_path / "one"))
    assert done.status == 0, done.err
    assert not (done.folder / "significance").exists()
    table = pl.read_csv(done.folder / "tables" / "accuracy.csv")
    assert table["setting"].to_list() == ["all", "all"]
    assert table["low"].null_count() == 2
    assert (done.folder / "figures" / "instruments.png").exists()


def test_a_list_of_runs_and_another_head(analyze, tmp_path):
    write_run(tmp_path / "a", ["task=fewshot", "run=a", "loss.height=0"], 1.6, 1)
    write_run(tmp_path / "b", ["task=fewshot", "run=b"], 1.0, 1)
    done = analyze([tmp_path / "a", tmp_path / "b"], "job.head=simpleshot_l2", "job.metric=height")
    assert done.status == 0, done.err
    table = pl.read_csv(done.folder / "tables" / "height.csv")
    names = ["loss.height=0", "loss.height=1", "constant", "random"]
    assert table["setting"].unique(maintain_order=True).to_list() == names
    expected = pl.read_csv(tmp_path / "b" / "heads.csv").filter(pl.col("head") == "simpleshot_l2")["height"]
    assert table.filter(pl.col("setting") == "loss.height=1")["mean"].to_list() == pytest.approx(expected.to_list())
    assert not (done.folder / "instruments.csv").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"reference": None}, "different reference trees (hornbostel_sachs and null)"),
        ({"queries": 3}, "different protocols: queries (4 and 3)"),
        ({"seed": 1}, "different protocols: seed (0 and 1)"),
    ],
)
def test_runs_judged_differently_are_refused_by_name(tmp_path, change, match):
    write_run(tmp_path / "a", ["run=a"], 1.0, 1)
    write_run(tmp_path / "b", ["run=b"], 1.0, 2, protocol=Protocol(**{**asdict(PROTOCOL), **change}))
    with pytest.raises(UserError) as told:
        check(gather([tmp_path / "a", tmp_path / "b"]))
    assert match in str(told.value)
    assert str(tmp_path / "b") in str(told.value)


def test_the_number_of_resamplings_is_no_other_protocol(tmp_path):
    write_run(tmp_path / "a", ["run=a"], 1.0, 1)
    write_run(tmp_path / "b", ["run=b"], 1.0, 2, protocol=Protocol(**{**asdict(PROTOCOL), "rounds": 30}))
    check(gather([tmp_path / "a", tmp_path / "b"]))


def test_other_queries_are_refused(analyze, tmp_path):
    write_run(tmp_path / "a", ["run=a"], 1.0, 1)
    write_run(tmp_path / "b", ["run=b"], 1.0, 2, clips=11)
    done = analyze([tmp_path / "a", tmp_path / "b"])
    assert done.status == 2
    assert "other queries" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_mistakes_are_one_line(analyze, sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    write_manifest(tmp_path / "plain", ["run=plain"], 1)
    for runs, match in (
        ([tmp_path / "nothing"], "no such folder"),
        ([tmp_path / "empty"], "holds no run"),
        ([sweep / "0", sweep / "0"], "one setting and seed"),
    ):
        with pytest.raises(UserError, match=match):
            settings(gather(runs))
    for runs, words, match in (
        (tmp_path / "plain", [], "no few-shot test: heads.csv"),
        (sweep, ["job.metric=acuracy"], "did you mean 'accuracy'"),
        (sweep, ["job.head=prototype"], "did you mean 'prototypes'"),
    ):
        done = analyze(str(runs), *words)
        assert done.status == 2, words
        assert match in done.err
        assert len(done.err.strip().splitlines()) == 1
