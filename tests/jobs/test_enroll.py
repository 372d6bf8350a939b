"""A musician's afternoon: teach a few sounds, add and remove some, and ask what recordings are."""

import csv
import json
import shutil
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import roc_auc_score

from tests.conftest import RATE
from tonnetz import cli as command
from tonnetz.enrolment.taught import Enrolment
from tonnetz.jobs import enroll as module
from tonnetz.jobs.classify import shortened, show, timeline, track_names

KINDS = ("cello", "banjo", "oboe", "flute", "trumpet", "marimba", "violin", "clarinet", "piano", "harp")


def note(kind, i, seconds=0.6, rate=RATE):
    """A note whose overtones are those of its kind."""
    number = KINDS.index(kind)
    timbre = np.random.default_rng(number).uniform(0, 1, 12) ** 2
    random = np.random.default_rng([number, i])
    t = np.arange(int(seconds * rate)) / rate
    pitch = 220 * 2 ** random.uniform(0, 1)
    sound = sum(a * np.sin(2 * np.pi * pitch * (k + 1) * t) for k, a in enumerate(timbre))
    sound = sound / np.abs(sound).max() * random.uniform(0.3, 0.9) + 0.003 * random.standard_normal(len(t))
    return sound.astype(np.float32)


SMALL = [
    "data=folder",
    "model=tiny",
    "pooling=mean",
    "augment=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "task.plan.seconds=0.5",
    "data.batch_size=16",
    "data.workers=0",
    "job.baseline=false",
    "job.figures=false",
    "job.test=false",
]
FEWSHOT = [
    *SMALL,
    "task=fewshot",
    "data.taxonomy=hornbostel_sachs",
    "data.fixed={valid:[oboe,flute]}",
    "data.valid=0",
    "data.test=0",
    "task.dim=16",
    "task.plan.steps=12",
    "task.plan.episodes=2",
    "task.plan.ways=4",
    "task.plan.shots=2",
    "task.plan.queries=2",
    "task.evaluation.valid_episodes=10",
    "task.evaluation.ways=2",
    "task.evaluation.shots=2",
    "task.evaluation.queries=2",
]


def tonnetz(root, *words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["tonnetz", *words, f"paths.data={root / 'data'}", f"paths.outputs={root / 'outputs'}"]
        )
        command.main()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two checkpoints, examples of three instruments of mixed rates and formats, and prototypes of them."""
    root = tmp_path_factory.mktemp("enroll")
    for kind in KINDS[:6]:
        (root / "corpus" / kind).mkdir(parents=True)
        for i in range(6):
            soundfile.write(root / "corpus" / kind / f"{i}.wav", note(kind, i), RATE)
    for kind in KINDS[6:9]:
        (root / "examples" / kind).mkdir(parents=True)
        for i, (end, rate, channels) in enumerate(
            [("wav", 16000, 1), ("flac", 44100, 2), ("ogg", 22050, 1), ("wav", 8000, 1), ("mp3", 48000, 2)]
        ):
            sound = note(kind, 50 + i, seconds=0.4 + 0.2 * i, rate=rate)
            soundfile.write(root / "examples" / kind / f"{i}.{end}", np.stack([sound] * channels, 1), rate)
    corpus = f"data.root={root / 'corpus'}"
    tonnetz(root, *FEWSHOT, corpus, "run=fewshot")
    tonnetz(root, *SMALL, corpus, "task.plan.steps=3", "run=plain")
    words = "job=enroll", f"job.examples={root / 'examples'}", f"job.prototypes={root / 'three.protos'}"
    tonnetz(root, *words, f"ckpt={root / 'outputs/fewshot/checkpoints/best.ckpt'}", "trainer=cpu", "run=enroll")
    return root


@pytest.fixture
def protos(place, tmp_path):
    """A copy of the prototypes, to change at will."""
    return shutil.copy(place / "three.protos", tmp_path / "three.protos")


@pytest.fixture
def ask(cli, place, protos):
    """Run a job with a checkpoint and the prototypes."""

    def call(*words, ckpt="fewshot", run="run", protos=protos):
        ckpt = f"ckpt={place / 'outputs' / ckpt / 'checkpoints' / 'best.ckpt'}"
        return cli(*words, ckpt, f"job.prototypes={protos}", "trainer=cpu", "data.workers=0", run=run)

    return call


@pytest.fixture
def questions(tmp_path):
    """Recordings of many sorts: 0.4 s, a minute of three instruments in stereo, other rates and formats, a stranger."""
    root = tmp_path / "questions"
    sorts = [("wav", 16000, 1), ("flac", 44100, 2), ("ogg", 22050, 1), ("mp3", 48000, 1)]
    for kind in KINDS[6:]:
        (root / kind).mkdir(parents=True)
        for i, (end, rate, channels) in enumerate(sorts):
            sound = note(kind, 80 + i, seconds=0.4 + 0.3 * i, rate=rate)
            soundfile.write(root / kind / f"{i}.{end}", np.stack([sound] * channels, 1), rate)
    parts = [note(KINDS[6 + j % 3], 200 + j, seconds=4.0, rate=22050) for j in range(15)]
    soundfile.write(root / "violin" / "long ü.wav", np.stack([np.concatenate(parts)] * 2, 1), 22050)
    return root


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_enrolment_says_what_it_knows(place):
    folder = place / "outputs" / "enroll"
    found = json.loads((folder / "enrolment.json").read_text())
    assert [(c["name"], c["node"], c["count"]) for c in found["classes"]] == [
        ("clarinet", "clarinet", 5),
        ("piano", "piano", 5),
        ("violin", "violin", 5),
    ]
    seconds = {e["file"]: e["seconds"] for e in found["examples"]}
    assert seconds["violin/1.flac"] == pytest.approx(0.6, abs=1e-3)
    assert seconds["violin/3.wav"] == pytest.approx(1.0, abs=1e-3)
    checkpoint = torch.load(place / "outputs/fewshot/checkpoints/best.ckpt", weights_only=True)
    assert found["facts"]["frontend"] == checkpoint["tonnetz"]["frontend"]
    assert found["facts"]["measure"]["distance"] == checkpoint["tonnetz"]["config"]["loss"].get("distance", "euclidean")
    assert found["facts"]["window"] == 0.5
    assert 0 <= found["accuracy"] <= 1
    assert found["reject"]["novelty"] == "ratio"
    assert np.isfinite(found["reject"]["file"]["threshold"])
    assert str(place) not in json.dumps(found)  # nothing of this machine


def test_adding_and_removing_embed_nothing_again(ask, protos, tmp_path, monkeypatch):
    asked = []

    def counted(experiment, paths, *rest):
        asked.extend(paths)
        return embed(experiment, paths, *rest)

    embed = module.embed_files
    monkeypatch.setattr(module, "embed_files", counted)
    before = Enrolment.load(protos)
    more = tmp_path / "more"
    (more / "harp").mkdir(parents=True)
    for i in range(3):
        soundfile.write(more / "harp" / f"{i}.wav", note("harp", i), RATE)
    done = ask("job=enroll", "job.action=add", f"job.examples={more}")
    assert done.status == 0, done.err
    assert sorted(asked) == [str(more / "harp" / f"{i}.wav") for i in range(3)]
    after = Enrolment.load(protos)
    assert after.names == ["clarinet", "harp", "piano", "violin"]
    old = [i for i, e in enumerate(after.examples) if e.label != "harp"]
    assert torch.equal(after.vectors[old], before.vectors)
    assert "harp" in done.out
    again = ask("job=enroll", "job.action=add", f"job.examples={more}", run="again")
    assert again.status == 0, again.err
    assert "harp/0.wav: is enrolled already" in again.out
    assert len(Enrolment.load(protos).examples) == len(after.examples)
    done = ask("job=enroll", "job.action=remove", "job.names=harp", run="remove")
    assert done.status == 0, done.err
    left = Enrolment.load(protos)
    assert left.names == before.names
    assert torch.equal(left.vectors, before.vectors)
    assert left.examples == before.examples


def test_show_needs_no_checkpoint(cli, protos):
    done = cli("job=enroll", "job.action=show", f"job.prototypes={protos}")
    assert done.status == 0, done.err
    assert "are recognised when left out (dice: 33.3%)" in " ".join(done.out.split())


def test_classes_that_the_tree_lacks_are_hinted_and_attached(ask, place, tmp_path):
    shutil.copytree(place / "examples" / "violin", tmp_path / "in" / "violinn")
    shutil.copytree(place / "examples" / "piano", tmp_path / "in" / "piano")
    done = ask("job=enroll", f"job.examples={tmp_path / 'in'}", protos=tmp_path / "a.protos")
    assert done.status == 0, done.err
    assert "did you mean 'violin'? Attached to chordophones, the nearest family" in done.out
    assert Enrolment.load(tmp_path / "a.protos").places[1].node == "chordophones"
    words = "job=enroll", f"job.examples={tmp_path / 'in'}", "job.attach=false"
    done = ask(*words, protos=tmp_path / "b.protos", run="alone")
    assert "It stands alone" in done.out
    assert Enrolment.load(tmp_path / "b.protos").places[1].node is None


def test_doubtful_examples_are_warned_of(ask, place, tmp_path):
    examples = shutil.copytree(place / "examples", tmp_path / "in")
    shutil.copy(examples / "violin" / "0.wav", examples / "piano" / "copy.wav")
    soundfile.write(examples / "piano" / "loud.wav", np.clip(4 * note("piano", 7), -1, 1), RATE)
    soundfile.write(examples / "piano" / "short.wav", note("piano", 8, seconds=0.06), RATE)
    (examples / "harp").mkdir()
    soundfile.write(examples / "harp" / "only.wav", note("harp", 0), RATE)
    done = ask("job=enroll", f"job.examples={examples}", protos=tmp_path / "a.protos")
    assert done.status == 0, done.err
    for words in (
        "violin/0.wav: is the same file as piano/copy.wav of class piano",
        "piano/loud.wav: clipped in",
        "piano/short.wav: too short (0.06 s, less than a quarter of a window of 0.5 s): take a longer one",
        "harp: has one example",
    ):
        assert words in done.out
    assert len(done.json("enrolment.json")["warnings"]) >= 4


@pytest.mark.parametrize("columns", ["80", "160"])
def test_a_file_is_a_line_and_keeps_its_ends(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    segments = [{"label": "french_horn", "start": 0.0, "end": 3.0}] * 3
    numbers = {"probability": 0.98, "novelty": -1.25, "segments": segments}
    names = [f"french_horn_C4_long_forte_normal_take_{i}.mp3" for i in range(3)]
    show([{"path": f"x/{name}", "answer": "french_horn", "label": "french_horn", **numbers} for name in names], 20)
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert len(lines) == 3
    assert all(f"{i}.mp3" in line and line.count("french_horn") >= 2 for i, line in enumerate(lines))


def test_short_names_stay():
    assert shortened("a.wav", 5) == "a.wav"
    assert shortened("abcdefgh.wav", 8) == "abcd…wav"


def bad_files(folder):
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no sound")
    return {"silent.wav", "nan.wav", "empty.wav", "text.wav"}


def test_unusable_examples_stop_it_or_are_left_out(ask, place, tmp_path):
    examples = shutil.copytree(place / "examples", tmp_path / "in")
    names = bad_files(examples / "violin")
    done = ask("job=enroll", f"job.examples={examples}", protos=tmp_path / "a.protos")
    assert done.status == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "4 bad files in all" in done.err
    assert not (tmp_path / "a.protos").exists()
    words = "job=enroll", f"job.examples={examples}", "data.on_error=skip"
    done = ask(*words, protos=tmp_path / "a.protos", run="skip")
    assert done.status == 0, done.err
    assert {row["path"].rsplit("/", 1)[1] for row in rows(done.folder / "skipped.csv")} == names
    assert len(Enrolment.load(tmp_path / "a.protos").examples) == 15


def test_a_recording_at_an_address(ask, served, questions):
    shutil.copy(questions / "violin" / "1.flac", served.folder / "a.flac")
    address = f"{served.url}/a.flac?of=1"
    done = ask("job=classify", f'job.inputs=["{address}",{questions / "violin" / "1.flac"}]', "job.hop=0.25")
    assert done.status == 0, done.err
    far, near = done.json("classify.json")["files"]
    assert far.pop("path") == address
    assert near.pop("path") == str(questions / "violin" / "1.flac")
    assert far == near
    assert len(served.asked) == 1
    alone = ask("job=classify", f'job.inputs=["{address}"]', run="alone")
    assert alone.status == 0, alone.err
    assert [path.name for path in (alone.folder / "labels").iterdir()] == ["a.txt"]


def test_recordings_of_all_sorts_are_classified(ask, questions):
    done = ask("job=classify", f"job.inputs={questions}", "job.hop=0.25")
    assert done.status == 0, done.err
    found = done.json("classify.json")
    table = rows(done.folder / "classify.csv")
    assert len(found["files"]) == len(table) == 17
    for item, row in zip(found["files"], table, strict=True):
        assert row["path"] == item["path"]
        assert row["answer"] == item["answer"]
        assert float(row["distance"]) == item["distance"]
        assert sum(item["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert item["label"] == max(item["probabilities"], key=item["probabilities"].get)
        steps = item["family"]
        assert steps[0] == {"node": item["label"], "probability": item["probability"]}
        assert [s["probability"] for s in steps] == sorted(s["probability"] for s in steps)
        assert item["unknown"] == (item["novelty"] > item["threshold"])
    windows = rows(done.folder / "timeline.csv")
    assert len(windows) == sum(item["windows"] for item in found["files"])
    short = next(item for item in found["files"] if item["path"].endswith("violin/0.wav"))
    assert short["seconds"] == pytest.approx(0.4)
    assert [(w["start"], w["end"]) for w in short["timeline"]] == [(0.0, 0.4)]


def test_five_minutes_and_four_tenths_of_a_second(ask, tmp_path):
    """Of any length, rate, channels and format: every window has an answer, and the label track covers the sound."""
    folder = tmp_path / "long"
    folder.mkdir()
    parts = [note(KINDS[6 + j % 3], 300 + j, seconds=10.0, rate=22050) for j in range(30)]
    soundfile.write(folder / "five minutes.flac", np.stack([np.concatenate(parts)] * 2, 1), 22050)
    soundfile.write(folder / "short.ogg", note("violin", 90, seconds=0.4, rate=44100), 44100)
    done = ask("job=classify", f"job.inputs={folder}")
    assert done.status == 0, done.err
    long, short = done.json("classify.json")["files"]
    assert (long["seconds"], long["windows"]) == (300.0, 600)
    assert short["seconds"] == pytest.approx(0.4, abs=1e-3)
    assert short["windows"] == 1
    windows = rows(done.folder / "timeline.csv")
    assert len(windows) == 601
    assert [float(w["start"]) for w in windows[:600]] == pytest.approx(np.arange(600) / 2)
    lines = [line.split("\t") for line in (done.folder / "labels" / "five minutes.txt").read_text().splitlines()]
    assert (float(lines[0][0]), float(lines[-1][1])) == (0.0, pytest.approx(300.0, abs=0.01))
    assert len((done.folder / "labels" / "short.txt").read_text().splitlines()) == 1


def test_label_tracks_cover_the_recording(ask, questions):
    done = ask("job=classify", f"job.inputs={questions / 'violin'}", "job.hop=0.25", "job.smooth=5", "job.reject=false")
    assert done.status == 0, done.err
    long = next(item for item in done.json("classify.json")["files"] if "long" in item["path"])
    lines = [line.split("\t") for line in (done.folder / "labels" / "long ü.txt").read_text("utf-8").splitlines()]
    spans = [(float(start), float(end)) for start, end, _ in lines]
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(60.0, abs=0.01)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    labels = [label for _, _, label in lines]
    assert all(a != b for a, b in pairwise(labels))
    assert len(long["segments"]) == len(lines)


def test_one_window_of_another_opinion_makes_no_segment(protos):
    enrolment = Enrolment.load(protos)
    prob = torch.full((9, 3), 0.05).double()
    prob[:, 0] = 0.9
    prob[4] = torch.tensor([0.05, 0.9, 0.05]).double()
    away = torch.zeros(9, 3).double()
    away[7] = 9.0  # one that is far from all
    start = torch.arange(9).double()
    for width, expected in ((1, ["clarinet", "piano", "clarinet", "unknown", "clarinet"]), (3, ["clarinet"])):
        job = SimpleNamespace(mass=0.5, smooth=width)
        found = timeline(enrolment, [prob, away, away], start, start + 1, 5.0, job)
        assert [s["label"] for s in found["segments"]] == expected
        assert [w["answer"] for w in found["timeline"]][4] == "piano"  # the windows stay as they are
        assert found["segments"][-1]["end"] == 9.0


def test_folders_as_truth(ask, questions):
    done = ask("job=classify", f"job.inputs={questions}", "job.truth=folders")
    assert done.status == 0, done.err
    files = done.json("classify.json")["files"]
    truth = done.json("truth.json")
    folder = [item["path"].split("/")[-2] for item in files]
    known = np.array([name != "harp" for name in folder])
    right = np.array([item["label"] == name for item, name in zip(files, folder, strict=True)])
    assert truth["accuracy"] == pytest.approx(right[known].mean())
    commonest = max(folder.count(name) for name in ("clarinet", "piano", "violin"))
    assert truth["chance"] == {"constant": pytest.approx(commonest / known.sum()), "random": pytest.approx(1 / 3)}
    assert "dice 33.3%" in done.out
    novelty = np.array([item["novelty"] for item in files])
    assert truth["file"]["auroc"] == pytest.approx(roc_auc_score(known, -novelty), abs=1e-6)
    assert truth["file"]["oscr"] <= truth["file"]["auroc"] + 1e-6
    by_name = {row["folder"]: row for row in truth["classes"]}
    assert by_name["harp"]["label"] is None
    assert by_name["harp"]["rejected"] == np.mean([i["unknown"] for i, k in zip(files, known, strict=True) if not k])
    for name, row in by_name.items():
        assert sum(row["answers"].values()) == row["files"] == folder.count(name)
    table = rows(done.folder / "confusion.csv")
    assert [row["folder"] for row in table] == ["clarinet", "piano", "violin", "harp"]
    assert {k: int(v) for k, v in table[0].items() if k != "folder"} == by_name["clarinet"]["answers"]
    assert "AUROC" in done.out


def test_folders_may_be_named_by_an_alias(ask, questions):
    (questions / "violin").rename(questions / "fiddle")
    shutil.rmtree(questions / "harp")
    done = ask("job=classify", f"job.inputs={questions}", "job.truth=folders")
    assert done.status == 0, done.err
    assert {row["folder"]: row["label"] for row in done.json("truth.json")["classes"]}["fiddle"] == "violin"
    assert done.json("truth.json")["file"]["auroc"] is None
    assert "AUROC" not in done.out  # nothing was to be rejected


@pytest.mark.parametrize("head", ["simpleshot_cl2", "logistic", "knn", "tim"])
def test_other_heads(ask, questions, head):
    done = ask("job=classify", f"job.inputs={questions / 'piano'}", f"job.head={head}")
    assert done.status == 0, done.err
    assert all(0 <= item["probability"] <= 1 for item in done.json("classify.json")["files"])


def test_rejection_can_be_set_and_switched_off(ask, questions):
    for i, (value, expected) in enumerate(
        (("reject=false", False), ("threshold=-1e9", True), ("threshold=1e9", False))
    ):
        done = ask("job=classify", f"job.inputs={questions / 'piano'}", f"job.{value}", run=f"run{i}")
        assert done.status == 0, done.err
        assert {row["unknown"] for row in rows(done.folder / "classify.csv")} == {str(expected).lower()}


def test_novelty_by_distance(ask, questions):
    done = ask("job=classify", f"job.inputs={questions}", "job.novelty=distance")
    assert done.status == 0, done.err
    for item in done.json("classify.json")["files"]:
        assert item["novelty"] == item["distance"]
        assert item["unknown"] == (item["distance"] > item["threshold"])


def test_bad_recordings_stop_it_or_are_left_out(ask, questions):
    names = bad_files(questions / "piano")
    done = ask("job=classify", f"job.inputs={questions / 'piano'}")
    assert done.status == 2
    assert len(done.err.strip().splitlines()) == 1
    done = ask("job=classify", f"job.inputs={questions / 'piano'}", "data.on_error=skip", run="skip")
    assert done.status == 0, done.err
    assert {row["path"].rsplit("/", 1)[1] for row in rows(done.folder / "skipped.csv")} == names
    assert len(rows(done.folder / "classify.csv")) == 4


def test_any_checkpoint_that_embeds_serves(ask, place, questions, tmp_path):
    mine = tmp_path / "plain.protos"
    done = ask("job=enroll", f"job.examples={place / 'examples'}", ckpt="plain", protos=mine)
    assert done.status == 0, done.err
    assert Enrolment.load(mine).judged(None) == "distance"  # no few-shot task, no background
    measure = Enrolment.load(mine).facts["measure"]
    assert (measure["distance"], measure["normalize"]) == ("squared", "l2")
    done = ask("job=classify", f"job.inputs={questions}", ckpt="plain", protos=mine, run="plain")
    assert done.status == 0, done.err
    assert len(rows(done.folder / "classify.csv")) == 17


def test_prototypes_of_another_encoder_are_refused(ask, place, questions, protos):
    known = Enrolment.load(protos).facts["encoder"]
    for words in (
        ["job=classify", f"job.inputs={questions}"],
        ["job=enroll", "job.action=add", f"job.examples={place / 'examples'}"],
    ):
        done = ask(*words, ckpt="plain", run=words[0][4:])
        assert done.status == 2
        assert len(done.err.strip().splitlines()) == 1
        assert f"was made with encoder {known}, the checkpoint's is" in done.err
    done = ask("job=classify", f"job.inputs={questions}", "data.normalize=false")
    assert done.status == 2
    assert "data.normalize=true" in done.err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["job=enroll", "job.action=built"], "did you mean 'build'"),
        (["job=enroll"], "job.examples is missing"),
        (["job=enroll", "job.examples=EXAMPLES"], "is there already; add classes with job.action=add"),
        (["job=enroll", "job.action=add", "job.examples=nowhere"], "job.examples=nowhere: no such folder"),
        (["job=enroll", "job.action=remove"], "job.names is empty"),
        (["job=enroll", "job.action=remove", "job.names=[violon]"], "did you mean 'violin'"),
        (["job=enroll", "job.action=remove", "job.names=[violin,piano]"], "two or more must stay"),
        (["job=classify"], "job.inputs is missing"),
        (["job=classify", "job.inputs=nowhere.wav"], "nowhere.wav: no such file"),
        (["job=classify", "job.inputs=EXAMPLES", "job.head=svm"], "job.head=svm"),
        (["job=classify", "job.inputs=EXAMPLES", "job.smooth=2"], "job.smooth=2"),
        (["job=classify", "job.inputs=EXAMPLES", "job.mass=0"], "job.mass=0"),
        (["job=classify", "job.inputs=EXAMPLES", "job.accept=1.5"], "job.accept=1.5"),
        (["job=classify", "job.inputs=EXAMPLES", "job.reject=2"], "job.reject=2"),
        (["job=classify", "job.inputs=EXAMPLES", "job.novelty=rato"], "did you mean 'ratio'"),
        (["job=classify", "job.inputs=EXAMPLES", "job.hop=0"], "job.hop=0"),
        (["job=classify", "job.inputs=EXAMPLES", "job.truth=files"], "job.truth=files"),
        (["job=classify", "job.inputs=EXAMPLES/piano", "job.truth=folders"], "lies in no sub-folder"),
    ],
)
def test_mistakes_are_one_line(ask, place, words, match):
    done = ask(*(word.replace("EXAMPLES", str(place / "examples")) for word in words))
    assert done.status == 2
    assert match in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_one_class_is_refused_before_anything_is_embedded(ask, place, tmp_path):
    shutil.copytree(place / "examples" / "violin", tmp_path / "in" / "violin")
    done = ask("job=enroll", f"job.examples={tmp_path / 'in'}", protos=tmp_path / "a.protos")
    assert done.status == 2
    assert "holds one class (violin)" in done.err


def test_label_tracks_have_names_of_their_own(tmp_path):
    found = track_names([f"{tmp_path}/a/x.wav", f"{tmp_path}/a/x.mp3", f"{tmp_path}/b/x.wav"])
    assert found == ["a/x.wav", "a/x.mp3", "b/x"]
    assert track_names([f"{tmp_path}/a/x.wav"]) == ["x"]
