"""job=probe and job=report from the command line."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import soundfile
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.jobs.test_csi import SMALL as SMALL_CSI
from tests.jobs.test_csi import WORDS as WORKS
from tonnetz.jobs.probe import read_preset, taps_of
from tonnetz.probing import features as feature_module
from tonnetz.probing.baselines import complaints
from tonnetz.probing.slices import Slices
from tonnetz.probing.tables import show


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
    assert "lead" not in found["model"]
    lead = found["constant"]["lead"]
    apart = found["model"]["test"]["accuracy"] - found["constant"]["test"]["accuracy"]
    assert lead["value"] == pytest.approx(apart)
    assert lead["low"] <= apart <= lead["high"]
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
    table = report.json("report.json")["rows"]
    assert list(table) == ["probe", "random (probe)", "mfcc", "chroma", "constant"]
    assert table["constant"]["lead"] == lead
    assert "lead" in (report.folder / "report.md").read_text()
    assert (report.folder / "figures" / "report.png").exists()
    assert report.json("report.json")["lacking"] == []
    assert "no row" not in report.out + done.out


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


def test_the_winner_answers_for_other_recordings(cli, trained, corpus, tmp_path):
    """Of the tracks that it was tested on it says what the test scored, and the same of their sound elsewhere."""
    words = ["job.baselines=[]", "job.seeds=1", "job.train=all", "job.aggregate=prob", "job.fractions=[0.5,1.0]"]
    done = cli(*FAST, trained, *words, run="probe")
    assert done.status == 0, done.err
    result = done.json("probe.json")
    applied = cli("job=probe", f"job.apply={done.folder}", run="applied")
    assert applied.status == 0, applied.err
    said = pl.read_csv(applied.folder / "predictions.csv")
    names = result["goal"]["names"]
    chances = said.select(names).to_numpy()
    assert chances.sum(1) == pytest.approx(1, abs=1e-5)
    assert said["labels"].to_list() == [names[k] for k in chances.argmax(1)]
    assert said.height == 30
    size = result["split"]["test"]
    right = [Path(path).parent.name == label for path, label in said.select("path", "labels")[-size:].iter_rows()]
    assert np.mean(right) == pytest.approx(result["rows"][-1]["test"]["accuracy"])
    for kind in ("buzz", "noise"):
        (tmp_path / "new" / kind).mkdir(parents=True)
        (tmp_path / "new" / kind / "1.wav").write_bytes((corpus / kind / "0.wav").read_bytes())
    other = cli("job=probe", f"job.apply={done.folder}", "data=folder", f"data.root={tmp_path / 'new'}", run="other")
    assert other.status == 0, other.err
    lines = [json.loads(line) for line in (other.folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    before = dict(said.select("path", "buzz").iter_rows())
    for line in lines:
        kind = Path(line["path"]).parent.name
        assert line["probabilities"]["buzz"] == pytest.approx(before[str(corpus / kind / "0.wav")], abs=1e-3)


def test_songs_of_several_tracks_are_judged_as_one_everywhere(cli, trained, corpus, tmp_path):
    """Tracks that share a value of `job.unit` are one in the test, in the report and in what is kept for a rerun."""
    with (tmp_path / "list.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", "split", "song", "half", "key", "total", "number", "new", "level"])
        for path in sorted(corpus.glob("*/*.wav")):
            i, kind = int(path.stem), path.parent.name
            split = "train" if i < 4 else "valid" if i < 7 else "test"
            writer.writerow([path, kind, split, f"{kind}{i // 2}", f"{kind}{i // 5}", "C minor", 1, 2, "x", i + 0.5])
    data = ["data=csv", f"data.root={tmp_path / 'list.csv'}", "data.corpus.missing=fail"]
    words = [*FAST, trained, *data[:2], "job.baselines=[constant]", "job.seeds=1", "job.train=mean"]
    words += ["job.aggregate=[vote,prob]"]
    one = cli(*words, "job.unit=song", run="one")
    assert one.status == 0, one.err
    result = one.json("probe.json")
    assert (result["unit"], result["units"]) == ("song", {"train": 6, "valid": 6, "test": 6})
    assert "judged by song (6/6/6)" in (one.folder / "probe.md").read_text()
    files = set((one.folder / "parts").iterdir())
    assert cli(*words, "job.unit=half", run="one").status == 0
    assert set((one.folder / "parts").iterdir()) > files  # other units are another search
    single = cli(*words, run="single")
    assert single.status == 0, single.err
    refused = cli("job=report", f"job.runs=[{one.folder},{single.folder}]", run="report")
    assert refused.status == 2
    assert "differ in unit: half and None" in refused.err
    assert cli(*words, "job.unit=song", run="one").status == 0
    applied = cli("job=probe", f"job.apply={one.folder}", *data[:2], run="applied")
    assert applied.status == 0, applied.err
    said = pl.read_csv(applied.folder / "predictions.csv")
    assert said.height == 15
    assert said["id"].is_unique().all()
    songs = {f"{path.parent.name}{int(path.stem) // 2}" for path in corpus.glob("*/*.wav") if int(path.stem) >= 7}
    tested = said.filter(pl.col("id").is_in(songs))
    right = [name.startswith(label) for name, label in tested.select("id", "labels").iter_rows()]
    assert np.mean(right) == pytest.approx(one.json("probe.json")["rows"][0]["test"]["accuracy"])
    keys = cli(*words, "job.target=key", "job.kind=key", "job.aggregate=prob", run="keys")
    assert keys.status == 0, keys.err
    level = cli(*words, "job.target=level", "job.aggregate=prob", run="level")
    assert level.status == 2  # a name that is settled elsewhere
    numbers = cli(*words, "job.target=total", "job.kind=number", "job.aggregate=prob", run="numbers")
    assert "is the same for all training tracks" in numbers.err


def test_runs_of_one_name_are_told_apart(cli, trained, tmp_path):
    done = [cli(*FAST, trained, "job.baselines=[constant]", "job.seeds=1", run=f"{name}/0") for name in "ab"]
    assert [one.status for one in done] == [0, 0]
    report = cli("job=report", f"job.runs=[{done[0].folder},{done[1].folder}]", run="report")
    assert report.status == 0, report.err
    assert list(report.json("report.json")["rows"]) == ["a/0", "b/0", "constant"]


@pytest.mark.parametrize("join", ["concat", "sum"])
def test_numbers_are_said_in_their_own_unit(cli, trained, corpus, join):
    words = [
        "job.taps=all",
        f"job.join={join}",
        "job.baselines=[]",
        "job.seeds=1",
        "job.target=duration",
        "job.slice=0.4",
    ]
    done = cli(*FAST, trained, *words, run="probe")
    assert done.status == 0, done.err
    result = done.json("probe.json")
    applied = cli("job=probe", f"job.apply={done.folder}", run="applied")
    assert applied.status == 0, applied.err
    said = pl.read_csv(applied.folder / "predictions.csv")[-result["split"]["test"] :]
    truth = np.array([soundfile.info(path).duration for path in said["path"]])
    guess = said["predicted_duration"].to_numpy()
    score = 1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert score == pytest.approx(result["rows"][0]["test"]["r2"], abs=1e-4)


def test_only_the_probed_checkpoint_is_used_again(cli, trained, fit, corpus, tmp_path):
    empty = cli("job=probe", f"job.apply={tmp_path}", run="empty")
    assert empty.status == 2
    assert "has no probe.json; give the folder of a finished run" in empty.err
    done = cli(*FAST, trained, "job.baselines=[]", "job.seeds=1", run="probe")
    assert done.status == 0, done.err
    other = fit("seed=5", "trainer.max_epochs=1", "job.test=false", run="other")
    again = cli("job=probe", f"job.apply={done.folder}", f"ckpt={other.folder / 'checkpoints/best.ckpt'}", run="again")
    assert again.status == 2
    assert "is not the encoder that" in again.err
    facts = done.json("probe.json")
    facts["rows"] = [{**row, "of": []} for row in facts["rows"]]
    (done.folder / "probe.json").write_text(json.dumps(facts))
    files = cli("job=probe", f"job.apply={done.folder}", run="files")
    assert files.status == 2
    assert "no probe of a checkpoint that can be used again" in files.err


def test_files_of_features_need_no_checkpoint(cli, trained, corpus, tmp_path):
    tracks = pl.read_ndjson(next((tmp_path / "data").glob("folder-*/tracks.jsonl")))
    for name, labels in tracks.select("id", "labels").iter_rows():
        path = tmp_path / "mfcc-mine" / f"{name}.npy"  # called like a baseline, and none
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.eye(3)[["buzz", "noise", "sine"].index(labels[0])])
    data = ["data=folder", f"data.root={corpus}", "data.valid=0.25", "data.test=0.25", "job.baselines=[constant]"]
    done = cli(*FAST, f"job.features={tmp_path / 'mfcc-mine'}", *data, run="mine")
    assert done.status == 0, done.err
    assert rows(done)["constant"]["lead"]["value"] > 0
    assert rows(done)["mfcc-mine"]["test"] == {"accuracy": 1.0, "macro_f1": 1.0}
    lines = [line for line in done.out.splitlines() if line.startswith("no row")]
    assert [line.split("'")[1] for line in lines] == ["random", "mfcc", "chroma"]
    report = cli("job=report", f"job.runs=[{done.folder}]", run="report")
    assert report.status == 0, report.err
    lacking = report.json("report.json")["lacking"]
    assert lacking[0].startswith("mine: no row 'random': files do not say which network made them; give ckpt=")
    assert lacking[1].startswith("mine: no row 'mfcc': run it again with job.baselines=[random,mfcc,chroma,constant]")
    assert all(line in report.out and line in (report.folder / "report.md").read_text() for line in lacking)
    beside = cli(*FAST, trained, f"job.features={tmp_path / 'mfcc-mine'}", *data[-1:], "job.seeds=1", run="beside")
    assert beside.status == 0, beside.err
    assert list(rows(beside)) == ["mfcc-mine", "model", "constant"]
    words = [trained, f"job.features={tmp_path / 'mfcc-mine'}", "job.baselines=[random]", "job.seeds=1"]
    untrained = cli(*FAST, *words, run="untrained")
    assert list(rows(untrained)) == ["mfcc-mine", "model", "random"]
    report = cli("job=report", f"job.runs=[{done.folder},{done.folder.parent / 'run'}]", run="report")
    assert report.status == 2
    assert "probe.json: no such file" in report.err
    other = done.folder.parent / "else"
    other.mkdir()
    result = done.json("probe.json")
    (other / "probe.json").write_text(json.dumps(result | {"target": "tempo"}))
    report = cli("job=report", f"job.runs=[{done.folder},{other}]", run="report")
    assert "differ in target" in report.err


def test_a_report_names_the_rows_that_runs_lack():
    def result(*names, checkpoint="best.ckpt"):
        rows = [{"features": name, "baseline": name != "model"} for name in ("model", *names)]
        return {"rows": rows, "checkpoint": checkpoint}

    whole = result("random conv1", "random conv2", "mfcc", "chroma", "constant")
    assert complaints({"a": whole}) == []
    bare = result("constant")
    found = complaints({"a": whole, "b": bare, "c": result(checkpoint=None)})
    assert [line.split(":")[:2] for line in found] == [["b", " no row 'random'"], ["c", " no row 'random'"]]
    found = complaints({"b": bare, "c": result("mfcc")})
    assert [line.split(": run")[0] for line in found] == ["b, c: no row 'random'", "b, c: no row 'chroma'"]


def test_all_rows_are_judged_on_the_tracks_that_have_features(cli, corpus, tmp_path):
    assert cli("job=prepare", "data=folder", f"data.root={corpus}").status == 0
    (home,) = (tmp_path / "data").glob("folder-*")
    names = sorted(pl.read_ndjson(home / "tracks.jsonl")["id"])
    folder = tmp_path / "some"
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if i % 5:  # every fifth is missing
            np.save(folder / f"{name}.npy", np.random.default_rng(i).standard_normal(4))
    np.save(folder / f"{names[1]}.npy", np.full(4, np.nan))
    np.save(folder / "stranger.npy", np.zeros(4))
    data = ["data=folder", f"data.root={corpus}", "data.valid=0.3", "data.test=0.3", "data.on_error=skip"]
    words = [*FAST, f"job.features={folder}", *data, "job.baselines=[mfcc,constant]", "job.seeds=1"]
    done = cli(*words, run="some")
    assert done.status == 0, done.err
    lost = list(csv.DictReader((done.folder / "skipped.csv").open()))
    assert {row["id"] for row in lost} == {name for i, name in enumerate(names) if i % 5 == 0 or i == 1}
    assert {row["reason"] for row in lost} == {"is missing", "holds NaN or infinity"}
    assert all(row["path"] == str(folder / f"{row['id']}.npy") for row in lost)
    assert "left out 7 of 30 tracks" in done.out
    assert "files that belong to no track, and are not looked at: 1" in done.out
    result = done.json("probe.json")
    assert result["left_out"] == 7
    counts = {split: result["split"][split] for split in ("train", "valid", "test")}
    assert sum(counts.values()) == 23
    assert result["data"]["tracks"] == counts
    assert {row["examples"] for row in result["rows"]} == {counts["train"]}
    assert "/".join(map(str, counts.values())) + " tracks" in (done.folder / "probe.md").read_text()
    truth = {row["features"]: row["test"]["accuracy"] * counts["test"] for row in result["rows"]}
    assert all(abs(value - round(value)) < 1e-4 for value in truth.values())  # of that many test tracks

    whole = tmp_path / "whole"  # the same rows for mfcc and constant, whatever the features
    for i, name in enumerate(names):
        (whole / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(whole / f"{name}.npy", np.random.default_rng(i).standard_normal(4))
    words[words.index(f"job.features={folder}")] = f"job.features={whole}"
    full = cli(*words, run="whole")
    assert full.json("probe.json")["left_out"] == 0
    assert not (full.folder / "skipped.csv").exists()
    assert full.json("probe.json")["data"]["fingerprint"] != result["data"]["fingerprint"]
    refused = cli("job=report", f"job.runs=[{done.folder},{full.folder}]", run="report")
    assert refused.status == 2


FEWSHOT = [
    *("task=fewshot", "data=folder", "data.taxonomy=hornbostel_sachs", "data.valid=0", "data.test=0"),
    *("data.fixed={valid:[oboe,flute,banjo],test:[violin,clarinet,piano]}", "task.dim=16", "task.plan.episodes=2"),
    *("task.plan.ways=3", "task.plan.shots=2", "task.plan.queries=3", "task.evaluation.valid_episodes=10"),
    *("task.evaluation.ways=3", "task.evaluation.shots=2", "task.evaluation.queries=4", "model=tiny"),
    *("task.plan.seconds=0.4", "data.batch_size=16", "task.plan.steps=2"),
]
VIEWS = ["task=contrastive", "data=folder", "data.valid=0.25", "data.batch_size=8", "task.plan.steps=2"]
RAW = [*VIEWS, "model=samplecnn", "model.widths=[4,4,4,4,4,4,4,4,8]"]
MEL = [*VIEWS, "frontend=logmel", "frontend.sample_rate=16000", "augment=none", "model=tiny", "task.plan.seconds=0.4"]
ONCE = ["trainer=cpu", "trainer.max_epochs=1", "data.workers=0", "job.baseline=false", "job.test=false"]


@pytest.mark.parametrize("kind", [FEWSHOT, RAW, MEL, [*WORKS, *SMALL_CSI]], ids=["fewshot", "raw", "mel", "csi"])
def test_checkpoints_of_every_task_are_probed(cli, instruments, tmp_path, kind):
    """On instruments that are split by tracks, whatever they were trained on."""
    own = "data=folder" in kind
    fitted = cli(
        *kind, *ONCE, "job.figures=false", f"data.root={instruments if own else tmp_path / 'works'}", run="fit"
    )
    assert fitted.status == 0, fitted.err
    words = [*FAST, f"ckpt={fitted.folder / 'checkpoints' / 'last.ckpt'}", "trainer=cpu", "job.seeds=1"]
    words += ["job.baselines=[random,constant]", "data.split=labels", "data.valid=0.25", "data.test=0.25"]
    places = {"other": ["data=folder", f"data.root={instruments}", "data.workers=0"]}
    places |= {"own": ["data.fixed=null"]} if own else {}
    for name, place in places.items():
        done = cli(*words, *place, run=name)
        assert done.status == 0, done.err
        found = done.json("probe.json")
        assert [row["features"] for row in found["rows"]] == ["model", "random", "constant"]
        assert sum(found["split"][split] for split in ("train", "valid", "test")) == 72
        model, blind = found["rows"][0], found["rows"][-1]
        assert model["valid"] > blind["valid"]
        if kind is not RAW:  # nine values a vector after two steps are hardly more than chance on 18 test tracks
            assert model["test"]["accuracy"] > blind["test"]["accuracy"]


def test_the_table_fits_narrow_terminals_and_breaks_no_number(capsys, monkeypatch):
    row = {"features": "model a tap with a long name of its own"}
    row |= {"accuracy": 1.0, "95 %": "1.000-1.000", "seeds": "0.998±0.001", "valid": 0.5, "macro_f1": 0.25}
    for width in (40, 60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        show([row, row | {"features": "mfcc"}], "fast: labels 604/130/130 tracks", Path("probe.csv"))
        lines = capsys.readouterr().out.splitlines()
        text = "\n".join(lines)
        assert all(len(line) <= width for line in lines)
        assert "…" not in text
        assert "604/130/130" in text
        assert (text.count("1.000-1.000") == 2) == (width > 40)
        assert ("also in probe.csv:" in text) == (width <= 80)


SMOKE = ["job.protocol.max_steps=8", "job.protocol.every=4", "job.seeds=1", "job.draws=20", "data.workers=0"]
PRESETS = sorted(path.stem for path in (ROOT / "config" / "job" / "presets").glob("*.yaml"))


def test_every_preset_runs(cli, trained):
    """As it is, but for the number of steps; all of its configurations, layers, deformations and slices."""
    found = {}
    for preset in PRESETS:
        words = ["job=probe", f"job.preset={preset}", trained, *SMOKE, "job.baselines=[mfcc,constant]"]
        words += ["job.slice=0.7"] if preset == "marble_constrained" else []
        done = cli(*words, run=preset)
        assert done.status == 0, done.err
        found[preset] = done.json("probe.json")
    sizes = {preset: len(result["rows"][0]["configurations"]) for preset, result in found.items()}
    assert sizes == {"fast": 8, "jukemir216": 216, "linear": 1, "marble_constrained": 6, "mir_ref": 3}
    hidden = [row["hidden"] for row in found["mir_ref"]["rows"][0]["configurations"]]
    between = (found["mir_ref"]["rows"][0]["dimensions"] + 3) // 2  # of features and classes
    assert hidden == [[], [between + between % 2], [256, 128]]
    assert len(found["mir_ref"]["rows"][0]["deformed"]) == 7
    marble = found["marble_constrained"]
    assert (marble["slices"], found["linear"]["slices"]) == ({"seconds": 0.7, "keep": 0.8}, None)
    assert all(row["features"].startswith("model ") for row in marble["rows"] if not row["baseline"])  # taps
    assert marble["rows"][0]["rule"] == "logit"


def test_marble_cuts_as_it_is_told():
    job = OmegaConf.load(ROOT / "config" / "job" / "probe.yaml")
    job.preset = "marble_constrained"
    assert read_preset(job)["slices"] == Slices(30.0, 0.8)
    job.slice, job.slice_keep = 15, 0.5
    assert read_preset(job)["slices"] == Slices(15, 0.5)
    job.slice = 0
    assert read_preset(job)["slices"] is None
    job.preset, job.slice = "fast", None
    assert read_preset(job)["slices"] is None


def test_marble_probes_every_layer():
    job = OmegaConf.load(ROOT / "config" / "job" / "probe.yaml")
    job.preset = "marble_constrained"
    assert read_preset(job)["taps"] == "all"
    job.taps = "embedding"
    assert read_preset(job)["taps"] == "embedding"
    job.preset, job.taps = "fast", None
    assert read_preset(job)["taps"] is None
    backbone = SimpleNamespace(taps={"one": 4, "two": 8})
    subject = SimpleNamespace(task=SimpleNamespace(encoder=SimpleNamespace(backbone=backbone)))
    assert taps_of(subject, "all") == ["one", "two"]
    assert (taps_of(subject, None), taps_of(subject, "two")) == (["embedding"], ["two"])
    backbone.taps = {}
    assert taps_of(subject, "all") == ["embedding"]


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


WRONG = ["axes.hidden=[512]", "axes.lr=[abc]", "axes.dropout=[x]", "fractions=[]", "fractions=[a]", "aggregate=[]"]
WRONG += [
    "protocol.stop=never",
    "taps=[]",
    "target=[]",
    "slice=x",
    "window=abc",
    "bench=x",
    "protocol.patience=x",
    "protocol.plateau=0.5",
]


def test_what_makes_no_sense_is_said_in_a_line(cli, trained):
    for word in WRONG:
        done = cli(*FAST[:2], trained, f"job.{word}", run="wrong")
        assert done.status == 2, word
        assert len(done.err.strip().splitlines()) == 1, done.err
        assert f"job.{word.split('=')[0]}" in done.err
    fine = ["job.axes.weight_decay=[null]", "job.fractions=0.5", "job.baselines=constant", "job.seeds=1"]
    assert cli(*FAST, trained, *fine, run="fine").status == 0
