"""job=probe and job=report from the command line."""

import csv
import json

import numpy as np
import polars as pl
import pytest

from tonnetz.probing import features as feature_module


@pytest.fixture
def trained(fit):
    done = fit("trainer.max_epochs=1", "data.valid=0.25", "data.test=0.25", "job.test=false")
    assert done.status == 0, done.err
    return f"ckpt={done.folder / 'checkpoints' / 'best.ckpt'}"


FAST = ["job=probe", "job.preset=fast", "job.axes.hidden=[[]]", "job.protocol.max_steps=120", "job.draws=40"]


def rows(done):
    return {row["features"]: row for row in done.json("probe.json")["rows"]}


def test_a_checkpoint_and_its_baselines(cli, trained, monkeypatch):
    done = cli(*FAST, trained, run="probe")
    assert done.status == 0, done.err
    found = rows(done)
    assert list(found) == ["model", "random", "mfcc", "chroma", "constant"]
    assert [found[name]["dimensions"] for name in found] == [found["random"]["dimensions"]] * 2 + [120, 72, 0]
    assert found["mfcc"]["test"]["accuracy"] > 0.6 > found["constant"]["test"]["accuracy"]
    assert found["model"]["mark"] != found["random"]["mark"]
    low, high = found["model"]["interval"]
    assert low <= found["model"]["test"]["accuracy"] <= high
    result = done.json("probe.json")
    assert result["protocol"]["name"] == "fast"
    assert len(result["data"]["fingerprint"]) == 16
    assert len(found["model"]["configurations"]) == 4
    with (done.folder / "probe.csv").open() as file:
        assert [row["features"] for row in csv.DictReader(file)] == list(found)
    assert "| mfcc |" in (done.folder / "probe.md").read_text()
    assert (done.folder / "figures" / "probe.png").exists()

    def never(*args, **keywords):
        raise AssertionError("features are stored, and so are the groups")

    monkeypatch.setattr(feature_module, "_pass", never)
    monkeypatch.setattr("tonnetz.probing.search.fit", never)
    again = cli(*FAST, trained, run="probe")
    assert again.status == 0, again.err
    assert again.json("probe.json")["rows"] == result["rows"]

    empty = cli(*FAST, trained, "data.valid=0.0", run="empty")
    assert empty.status == 2
    assert "no tracks in the split 'valid'" in empty.err
    report = cli("job=report", f"job.runs=[{done.folder}]", run="report")
    assert report.status == 0, report.err
    assert list(report.json("report.json")["rows"]) == ["probe", "random (probe)", "mfcc", "chroma", "constant"]
    assert (report.folder / "figures" / "report.png").exists()


def test_taps_columns_fractions_and_deformations(cli, trained, corpus):
    words = ["job.taps=all", "job.join=all", "job.baselines=[constant]", "job.fractions=[0.5,1.0]", "job.seeds=1"]
    words += ["job.deformations=[noise_0db]", "job.train=all", "job.aggregate=[vote,prob]", "job.tail=drop"]
    done = cli(*FAST, trained, *words, "job.target=duration", "job.aggregate=logit", run="taps")
    assert done.status == 0, done.err
    result = done.json("probe.json")
    assert result["goal"]["monitor"] == "r2"
    models = [row for row in result["rows"] if row["fraction"] == 1 and row["features"] != "constant"]
    assert len({row["mark"] for row in models}) == len(models) > 2
    assert models[-2]["dimensions"] == sum(row["dimensions"] for row in models[:-2])
    assert models[-1]["dimensions"] == max(row["dimensions"] for row in models[:-2])
    assert sum(models[-1]["taps"]) == pytest.approx(1)
    assert all("noise_0db" in row["deformed"] for row in models)
    assert result["rows"][0]["examples"] < models[0]["examples"]


def test_files_of_features_need_no_checkpoint(cli, trained, corpus, tmp_path):
    tracks = pl.read_ndjson(next((tmp_path / "data").glob("folder-*/tracks.jsonl")))
    for name, labels in tracks.select("id", "labels").iter_rows():
        path = tmp_path / "mine" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.eye(3)[["buzz", "noise", "sine"].index(labels[0])])
    data = ["data=folder", f"data.root={corpus}", "data.valid=0.25", "data.test=0.25", "job.baselines=[constant]"]
    done = cli(*FAST, f"job.features={tmp_path / 'mine'}", *data, run="mine")
    assert done.status == 0, done.err
    assert rows(done)["mine"]["test"] == {"accuracy": 1.0, "macro_f1": 1.0}
    report = cli("job=report", f"job.runs=[{done.folder},{done.folder.parent / 'run'}]", run="report")
    assert report.status == 2
    assert "probe.json: no such file" in report.err
    other = done.folder.parent / "else"
    other.mkdir()
    result = done.json("probe.json")
    (other / "probe.json").write_text(json.dumps(result | {"target": "tempo"}))
    report = cli("job=report", f"job.runs=[{done.folder},{other}]", run="report")
    assert "differ in target" in report.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["job.preset=jukemir"], "did you mean 'jukemir216'"),
        (["job.axes.lr=[-1.0]"], "makes no sense"),
        (["job.baselines=[mfc]"], "did you mean 'mfcc'"),
        ([], "ckpt is missing"),
        (["job.axes.rate=[1]"], "no such key"),
        (["job.dry=true", "+job.axes.rate=[1]"], "job.axes.rate: no such axis"),
        (["job.dry=true", "job.axes.lr=[1e-3,-1e-3]"], "makes no sense"),
        (["job.dry=true", "job.jukemir=[debug]"], "is [DATASET,REPRESENTATION]"),
        (["job.dry=true", "job.jukemir=[a,b]", "job.preset=fast"], "is [DATASET,REPRESENTATION]"),
    ],
)
def test_mistakes(cli, words, message):
    done = cli("job=probe", *words)
    assert done.status == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def listed(done):
    assert done.status == 0, done.err
    return {line.split()[0] for line in done.out.splitlines() if "lr=" in line}


def test_the_list(cli):
    """Without a checkpoint and without data: 216 different ids, jukemir's own when they are asked for."""
    ours = cli("job=probe", "job.preset=jukemir216", "job.dry=true")
    assert len(listed(ours)) == 216
    assert "216 configurations" in ours.out
    theirs = cli("job=probe", "job.preset=jukemir216", "job.dry=true", "job.jukemir=[debug,debug]")
    assert len(listed(theirs)) == 216
    assert "931d09133314c180443615815249a7415da09c86" in listed(theirs)  # that of jukemir's own test
    assert not listed(ours) & listed(theirs)
    other = cli("job=probe", "job.preset=jukemir216", "job.dry=true", "job.jukemir=[magnatagatune,clmr]")
    assert not listed(theirs) & listed(other)


def test_the_bench(cli):
    words = ["job.bench=0.2", "job.sizes=[300,80,80,16,5]", "job.protocol.max_steps=40", "job.axes.hidden=[[]]"]
    done = cli("job=probe", *words, run="bench")
    assert done.status == 0, done.err
    found = done.json("bench.json")
    assert found["probes"] == 108
    assert found["validations"] == 108 * 6
    assert found["ratio"] > 1
