"""From recordings to an identifier: index, identify, compare, align."""

import csv
import json
import shutil
import sys

import numpy as np
import polars as pl
import pytest
import soundfile
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import RATE
from tonnetz import cli as command
from tonnetz import index as index_module
from tonnetz import search as searching
from tonnetz import shortlist as shortlisting
from tonnetz.alignment import Alignment
from tonnetz.data.recordings import find_recordings
from tonnetz.index import Index
from tonnetz.jobs import identify as job
from tonnetz.jobs.identify import spots
from tonnetz.jobs.index import file_table
from tonnetz.search import search

WORKS, VERSIONS = 10, 3


def tune(work, key=0, pace=1.0, rolloff=1.0, seconds=22.0):
    """A melody of 120 notes in any key, pace and timbre; it begins at its first note."""
    notes = np.random.default_rng(work).choice([0, 2, 4, 5, 7, 9, 11, 12, 14], 120)
    out = np.zeros(int(seconds * RATE))
    size = int(0.35 * pace * RATE)
    t = np.arange(size) / RATE
    for i, begin in enumerate(range(0, len(out) - size, size)):
        pitch = 220 * 2 ** ((notes[i % len(notes)] + key) / 12)
        out[begin : begin + size] = sum(np.sin(2 * np.pi * pitch * k * t) / k**rolloff for k in range(1, 6))
        out[begin : begin + size] *= np.exp(-3 * t)
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


VARIANTS = [{}, {"key": 3, "pace": 1.1, "rolloff": 0.7}, {"key": -2, "pace": 0.92, "rolloff": 1.4}]
SMALL = [
    "task=csi",
    "data=folder_works",
    "loss=supcon",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "data.batch_size=8",
    "model.width=8",
    "model.depth=1",
    "task.plan.steps=2",
    "task.plan.items=2",
    "task.plan.seconds=10",
    "task.plan.window=30",
    "task.rounds=10",
    "job.figures=false",
    "job.baseline=false",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with recordings by work, a checkpoint made with them, and an index of them."""
    root = tmp_path_factory.mktemp("covers")
    for work in range(WORKS):
        (root / "tunes" / f"work{work}").mkdir(parents=True)
        for i, variant in enumerate(VARIANTS):
            soundfile.write(root / "tunes" / f"work{work}" / f"v{i}.wav", tune(work, **variant), RATE)
    corpus = f"data.root={root / 'tunes'}"
    for words in (
        [*SMALL, corpus, "run=fit"],
        ["job=index", f"ckpt={root / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}", f"job.index={root / 'index'}"],
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                sys, "argv", ["tonnetz", *words, f"paths.data={root / 'data'}", f"paths.outputs={root / 'outputs'}"]
            )
            command.main()
    return root


@pytest.fixture
def index(place, tmp_path):
    """A copy of the index, to change at will."""
    return shutil.copytree(place / "index", tmp_path / "index")


@pytest.fixture
def ask(cli, place, index):
    """Run a job with the checkpoint and the index."""

    def call(*words, run="run"):
        ckpt = f"ckpt={place / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}"
        return cli(*words, ckpt, *([] if any(w == "job=align" for w in words) else [f"job.index={index}"]), run=run)

    return call


@pytest.fixture
def queries(tmp_path):
    folder = tmp_path / "queries"
    folder.mkdir()
    soundfile.write(folder / "excerpt.wav", tune(4, key=5, pace=1.15, rolloff=1.2)[8 * RATE : 18 * RATE], RATE)
    soundfile.write(folder / "whole ü.flac", np.repeat(tune(7, key=-4, pace=0.9), 2).reshape(-1, 2), RATE)
    soundfile.write(
        folder / "long.wav", np.concatenate([tune(101, seconds=40), tune(2, key=1), tune(102, seconds=40)]), RATE
    )
    soundfile.write(folder / "stranger.wav", tune(99), RATE)
    return folder


def read(done):
    return {item["path"].rsplit("/", 1)[1]: item for item in done.json("matches.json")}


def test_a_recording_at_an_address(ask, served, queries):
    shutil.copy(queries / "excerpt.wav", served.folder / "excerpt.wav")
    done = ask("job=identify", f"job.inputs=[{served.url}/excerpt.wav,{queries / 'excerpt.wav'}]", "job.p=0.001")
    assert done.status == 0, done.err
    far, near = done.json("matches.json")
    assert far.pop("path") == f"{served.url}/excerpt.wav"
    assert near.pop("path") == str(queries / "excerpt.wav")
    assert far == near
    gone = ask("job=identify", f"job.inputs=[{served.url}/absent.wav,{served.url}/excerpt.wav]", run="gone")
    assert gone.status == 2
    assert f"{served.url}/absent.wav: 404" in gone.err
    assert len(gone.json("matches.json")) == 1
    kept = ask("job=index", "job.action=add", f"job.inputs=[{served.url}/excerpt.wav]", run="kept")
    assert (kept.status, kept.err.count("\n")) == (2, 1)
    assert "this job reads files alone" in kept.err


def test_identify(ask, queries):
    done = ask("job=identify", f"job.inputs=[{queries}]", "job.p=0.001")
    assert done.status == 0, done.err
    found = read(done)
    assert {name: item["matches"][0]["work"] for name, item in found.items() if name != "stranger.wav"} == {
        "excerpt.wav": "work4",
        "whole ü.flac": "work7",
        "long.wav": "work2",
    }
    assert found["whole ü.flac"]["match"] is True
    assert found["whole ü.flac"]["work"] == "work7"
    assert found["stranger.wav"]["match"] is False
    assert found["stranger.wav"]["work"] is None
    assert "stranger.wav: no match" in " ".join(done.out.split())  # a narrow terminal wraps
    for item in found.values():
        matches = item["matches"]
        assert [match["rank"] for match in matches] == list(range(1, 11))
        for name in ("distance", "z", "p", "chance"):
            values = [match[name] for match in matches]
            assert values == sorted(values)
        assert matches[0]["p"] > 0
    assert 40 <= found["long.wav"]["matches"][0]["query_start"] <= 60  # the tune begins there
    for name, pace, begin, near in (  # ten seconds do not tell the ratio so well
        ("whole ü.flac", 0.9, 0, 0.03),
        ("long.wav", 1.0, -40, 0.03),
        ("excerpt.wav", 1.15, 8, 0.1),
    ):
        match = found[name]["matches"][0]
        ratio = {"v0": 1.0, "v1": 1.1, "v2": 0.92}[match["recording"].rsplit("/", 1)[1]] / pace
        assert match["ratio"] == pytest.approx(ratio, rel=near)
        middle = max(-begin, 0) + 5  # seconds of the query
        assert match["ratio"] * middle + match["shift"] == pytest.approx(ratio * (middle + begin), abs=1)
    key = found["whole ü.flac"]["matches"]
    semitones = {match["recording"].rsplit("/", 1)[1]: match["semitones"] for match in key if match["work"] == "work7"}
    assert semitones.items() <= {"v0": 4, "v1": -5, "v2": 2}.items()
    with (done.folder / "matches.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert rows[0]["work"] == found["excerpt.wav"]["matches"][0]["work"]
    for name, item in found.items():
        named = [row["match"] for row in rows if row["query"].endswith(name)]
        assert named == [str(item["match"])] + ["False"] * 9  # of a work the nearest recording is listed


def test_strangers_of_any_length_have_no_match(ask, tmp_path):
    """The longer a stranger, the more places agree by chance; a known tune is found in it all the same."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name, tunes in {"thrice": 3, "ten": 10, "thirty": 30}.items():
        for i in range(4):
            sound = np.concatenate([tune(500 + 40 * i + n, key=n % 5) for n in range(tunes)])
            soundfile.write(folder / f"{name}{i}.wav", sound, RATE)
            if not i:
                sound[22 * RATE : 44 * RATE] = tune(3, key=2, pace=0.95, rolloff=1.2)
                soundfile.write(folder / f"known-{name}.wav", sound, RATE)
    done = ask("job=identify", f"job.inputs=[{folder}]")
    assert done.status == 0, done.err
    found = read(done)
    strangers = {name: item["match"] for name, item in found.items() if not name.startswith("known")}
    assert len(strangers) == 12
    assert sum(strangers.values()) <= 1  # job.p=0.01 of each
    for name, item in found.items():
        chances = [match["chance"] for match in item["matches"]]
        assert chances == sorted(chances)
        if name.startswith("known"):
            assert item["matches"][0]["work"] == "work3", name
            assert (item["match"], chances[0] < 1e-3) == (True, True), name
            assert item["matches"][0]["query_start"] == pytest.approx(33, abs=12)


def test_short_recordings_in_an_index_do_not_change_its_scale(ask, queries, index, tmp_path):
    before = read(ask("job=identify", f"job.inputs=[{queries}]", "job.p=0.001", run="before"))
    (tmp_path / "short").mkdir()
    for i in range(2):
        soundfile.write(tmp_path / "short" / f"{i}.wav", tune(700 + i, key=i)[2 * RATE : 10 * RATE], RATE)
    (tmp_path / "short.csv").write_text("file,work\nshort/0.wav,Other\nshort/1.wav,Another\n")
    words = ["job.action=add", f"job.inputs=[{tmp_path / 'short'}]", f"job.works={tmp_path / 'short.csv'}"]
    assert ask("job=index", *words, run="add").status == 0
    after = read(ask("job=identify", f"job.inputs=[{queries}]", "job.p=0.001", run="after"))
    assert after["whole ü.flac"]["match"] is before["whole ü.flac"]["match"] is True
    assert after["stranger.wav"]["match"] is False


def test_recordings_centroids_and_any_number_of_matches(ask, queries):
    one = f"job.inputs='{queries / 'whole ü.flac'}'"
    done = ask("job=identify", one, "job.mode=recordings", "job.top=1000000", "job.reduction=best-8")
    matches = done.json("matches.json")[0]["matches"]
    assert len(matches) == WORKS * VERSIONS
    assert {match["match"] for match in matches} == {None}
    judged = ask("job=identify", one, "job.mode=recordings", "job.top=30", run="judged").json("matches.json")[0]
    true = [match for match in judged["matches"] if match["match"]]
    assert len(true) == VERSIONS
    for match in judged["matches"]:
        assert match["match"] == (match["work"] == judged["work"] and match["distance"] <= judged["threshold"])
    assert {match["work"] for match in matches[:3]} == {"work7"}
    assert done.json("matches.json")[0]["match"] is None  # nothing says what distances of another reduction mean
    centroids = ask("job=identify", one, "job.mode=centroids", run="centroids")
    assert centroids.status == 2
    assert "job.mode=centroids: the vectors turn with the key" in centroids.err
    assert "take job.mode=works" in centroids.err
    assert centroids.err.count("\n") == 1
    for key in ("places", "show"):
        bad = ask("job=identify", one, f"job.{key}=-1", run="bad")
        assert bad.status == 2
        assert f"job.{key}=-1: must be a number, 0 or more" in bad.err
    assert ask("job=identify", one, "job.places=0", "job.show=0", run="none").status == 0
    other = ask("job=identify", one, "data.normalize=false", run="other")
    assert other.status == 2
    assert "was made with data.normalize=true" in other.err
    for top in (0, -1):
        assert f"job.top={top}: must be at least 1" in ask("job=identify", one, f"job.top={top}", run="top").err
    for word in ("job.p=0", "job.mode=nearest", "job.threshold=high"):
        bad = ask("job=identify", one, word, run="bad")
        assert bad.status == 2
        assert word.split("=")[0] in bad.err
    equal = ask("job=identify", one, "job.threshold=equal", run="equal")
    assert equal.json("matches.json")[0]["match"] is True


def test_bad_recordings_cost_only_themselves(ask, queries):
    soundfile.write(queries / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(queries / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(queries / "click.wav", np.ones(40) / 2, RATE)
    (queries / "empty.wav").write_bytes(b"")
    (queries / "broken.wav").write_bytes(b"nonsense" * 99)
    for name in ("excerpt.wav", "long.wav", "stranger.wav"):
        (queries / name).unlink()
    inputs = f"job.inputs=[{queries},{queries / 'absent.wav'}]"
    done = ask("job=identify", inputs, "data.on_error=skip")
    assert done.status == 0, done.err
    assert len(done.json("matches.json")) == 1
    with (done.folder / "skipped.csv").open() as file:
        reasons = {row["path"].rsplit("/", 1)[1]: row["reason"] for row in csv.DictReader(file)}
    expected = {
        "silent": "silent",
        "nan": "NaN",
        "click": "ms long",
        "empty": "0 bytes",
        "broken": "cannot be decoded",
        "absent": "no such file",
    }
    assert reasons.keys() == {f"{name}.wav" for name in expected}
    for name, words in expected.items():
        assert words in reasons[f"{name}.wav"]
    assert done.err.count("left out: ") == done.err.count("\n") == len(expected) + 1  # each, and where they are listed
    strict = ask("job=identify", inputs, run="strict")
    assert strict.status == 2
    assert len(strict.json("matches.json")) == 1
    assert strict.err.count("left out: ") == len(expected)
    assert f"error: {len(expected)} bad files in all" in strict.err
    assert "results of the others are kept" in strict.err
    alone = ask("job=identify", f"job.inputs={queries / 'silent.wav'}", "data.on_error=skip", run="alone")
    assert alone.status == 2
    assert "error: " in alone.err
    assert "silent" in alone.err
    assert "0 of 0" not in alone.out


def test_a_query_shorter_than_a_window(ask, tmp_path):
    soundfile.write(tmp_path / "short.wav", tune(1)[: 2 * RATE], RATE)
    for pad in ("zero", "repeat"):
        done = ask("job=identify", f"job.inputs={tmp_path / 'short.wav'}", f"job.pad={pad}", run=pad)
        assert done.status == 0, done.err
        assert len(done.json("matches.json")[0]["matches"]) == 10


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_is_readable(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "Cold Is The River, as Three Sisters of Hella sang it in 1961, take two [b].wav"
    match = {"rank": 1, "work": "Cold Is The River", "recording": f"/a/{name}", "distance": 0.52, "z": -12.3}
    match |= {"p": 0.0002, "chance": 0.0213, "query_start": 66.2, "match_start": None}
    job.show([{"path": "x" * 90, "match": True, "work": "Cold Is The River", "matches": [match] * 2}], 1)
    title, head, first, *more = capsys.readouterr().out.splitlines()
    assert title == "x" * 90 + ": match: Cold Is The River"  # the terminal wraps it, nothing is lost
    assert head.split() == [
        "work",
        "recording",
        "distance",
        *(["z", "p"] if columns > 100 else []),
        "chance",
        "at",
        "there",
    ]
    assert {"0.5200", "0.0213", "1:06.2"} < set(first.split())
    assert max(map(len, [head, first, *more])) <= columns
    begin, end = head.index("recording"), head.index("distance")
    assert " ".join(" ".join(line[begin:end].strip() for line in [first, *more]).split()) == name


def test_add_and_remove_embed_nothing_twice(ask, index, tmp_path, monkeypatch):
    asked = []
    from tonnetz.jobs import index as job

    embed = job.embed_files

    def count(experiment, paths, *rest):
        asked.extend(paths)
        return embed(experiment, paths, *rest)

    monkeypatch.setattr(job, "embed_files", count)
    (tmp_path / "more").mkdir()
    for i in range(2):
        soundfile.write(tmp_path / "more" / f"{i}.wav", tune(50, key=i), RATE)
    (tmp_path / "works.csv").write_text("file,work\nmore/0.wav,The New One\nmore/1.wav,The New One\n")
    words = ["job=index", "job.action=add", f"job.inputs=[{tmp_path / 'more'}]", f"job.works={tmp_path / 'works.csv'}"]
    done = ask(*words)
    assert done.status == 0, done.err
    assert len(asked) == 2
    assert Index.open(index).works.count("The New One") == 1
    assert "2 kept" in ask(*words, run="again").out
    assert len(asked) == 2
    soundfile.write(tmp_path / "query.wav", tune(50, key=4, pace=1.1), RATE)
    query = f"job.inputs={tmp_path / 'query.wav'}"
    assert read(ask("job=identify", query, run="there"))["query.wav"]["matches"][0]["work"] == "The New One"
    removed = ask("job=index", "job.action=remove", "job.names=[The New One]", run="remove")
    assert removed.status == 0, removed.err
    assert "2 recordings taken out, 30 left" in removed.out
    assert read(ask("job=identify", query, run="gone"))["query.wav"]["matches"][0]["work"] != "The New One"


def test_a_second_corpus_with_the_same_names(ask, index, tmp_path):
    for work in (0, 1):
        (tmp_path / "tunes" / f"work{work}").mkdir(parents=True)
        for i, variant in enumerate(VARIANTS[:2]):
            soundfile.write(tmp_path / "tunes" / f"work{work}" / f"v{i}.wav", tune(70 + work, **variant), RATE)
    data = ["data=folder_works", f"data.root={tmp_path / 'tunes'}", "data.corpus.split=test"]
    done = ask("job=index", "job.action=add", "job.splits=[test]", *data)
    assert done.status == 0, done.err
    assert "4 added" in done.out
    made = Index.open(index)
    assert len(made) == WORKS * VERSIONS + 4  # nothing was replaced
    (corpus,) = set(made.table["corpus"][-4:])
    assert {f"{corpus}/work0", f"{corpus}/work1", "work0", "work1"} <= set(made.works)
    soundfile.write(tmp_path / "query.wav", tune(70, key=2), RATE)
    found = read(ask("job=identify", f"job.inputs={tmp_path / 'query.wav'}", run="found"))["query.wav"]
    assert found["matches"][0]["work"] == f"{corpus}/work0"
    for work in (0, 1):  # of equal length and loudness, in the place of each other
        soundfile.write(tmp_path / "tunes" / f"work{work}" / "v0.wav", tune(71 - work), RATE)
    again = ask("job=index", "job.action=add", "job.splits=[test]", *data)
    assert again.status == 0, again.err
    assert "2 added" in again.out


def test_index_mistakes(ask, index, tmp_path):
    for words, message in (
        (["job.action=build"], "holds an index already"),
        (["job.action=bild"], "did you mean 'build'"),
        (["job.action=remove"], "job.names is empty"),
        (["job.action=remove", "job.names=[workk4]"], "near ones: work4"),
        (["job.action=add", "job.splits=[trian]"], "no recordings there"),
        (["job.action=add", f"job.works={tmp_path / 'none.csv'}"], "none.csv"),
    ):
        done = ask("job=index", *words)
        assert done.status == 2, words
        assert message in done.err
        assert done.err.count("\n") == 1
    shutil.rmtree(index)
    assert "no index here" in ask("job=identify", "job.inputs=[x.wav]").err


def test_a_large_index_needs_no_faiss(cli, ask, place, queries, tmp_path, monkeypatch):
    monkeypatch.setattr(shortlisting, "THRESHOLD", 1)
    monkeypatch.setitem(sys.modules, "faiss", None)
    shortlisting._note_absence.cache_clear()
    ckpt = f"ckpt={place / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}"
    made = cli("job=index", ckpt, f"job.index={tmp_path / 'new'}", run="made")
    assert made.status == 0, made.err
    words = ["job=identify", f"job.inputs=[{queries / 'excerpt.wav'}]"]
    answers = [ask(*words, f"job.faiss={choice}", run=f"f{choice}") for choice in ("null", "false")]
    for done in answers:
        assert done.status == 0, done.err
        assert read(done)["excerpt.wav"]["matches"][0]["work"] == "work4"
    assert read(answers[0]) == read(answers[1])
    for choice, message in (("true", "pip install 'tonnetz[faiss]'"), ("yess", "must be true, false or null")):
        done = ask(*words, f"job.faiss={choice}", run="refused")
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert f"job.faiss={choice}" in done.err
        assert message in done.err
    shortlisting._note_absence.cache_clear()


def test_the_first_query_of_a_large_index_finds_the_shortlist(cli, place, queries, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(shortlisting, "THRESHOLD", 1)
    words = [
        f"ckpt={place / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}",
        f"job.index={tmp_path / 'new'}",
    ]
    made = cli("job=index", *words, run="made")
    assert made.status == 0, made.err
    assert (tmp_path / "new" / "vectors-1.faiss").is_file()
    monkeypatch.setattr(shortlisting.Shortlist, "build", None)  # not called
    done = cli("job=identify", *words, f"job.inputs=[{queries / 'excerpt.wav'}]", run="found")
    assert done.status == 0, done.err
    assert read(done)["excerpt.wav"]["matches"][0]["work"] == "work4"


def test_centroids_are_written(ask):
    done = ask("job=index", "job.action=centroids")
    assert done.status == 0, done.err
    assert "note: the vectors turn with the key" in done.out
    table = pl.read_csv(done.folder / "works.csv")
    assert table["recordings"].to_list() == [VERSIONS] * WORKS
    assert table["coherence"].min() > 0.5
    with safe_open(done.folder / "centroids.safetensors", "pt") as file:
        about, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert json.loads(about["works"]) == table["work"].to_list()
    assert len(json.loads(about["facts"])["encoder"]) == 16
    assert len(arrays["vectors"]) == WORKS
    assert {"pairs", "nearest", "kin"} <= arrays.keys()


def test_another_checkpoint_is_refused(cli, place, index, queries):
    other = cli(*SMALL, f"data.root={place / 'tunes'}", "seed=2", run="other")
    assert other.status == 0, other.err
    ckpt = f"ckpt={other.folder / 'checkpoints' / 'best.ckpt'}"
    done = cli("job=identify", ckpt, f"job.index={index}", f"job.inputs=[{queries}]", run="identify")
    assert done.status == 2
    assert "was made with encoder" in done.err


def test_a_killed_index_goes_on(cli, place, tmp_path, monkeypatch):
    from tonnetz.jobs import index as job

    monkeypatch.setattr(index_module, "BATCH", 8)
    embed, asked = job.embed_tracks, []

    def count(experiment, frame, *rest):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(frame.height)
        return embed(experiment, frame, *rest)

    words = [
        "job=index",
        f"job.index={tmp_path / 'new'}",
        f"ckpt={place / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}",
    ]
    monkeypatch.setattr(job, "embed_tracks", count)
    assert cli(*words).status == 130
    assert not (tmp_path / "new" / "meta.json").exists()
    asked.clear()
    monkeypatch.setattr(job, "embed_tracks", lambda *a: asked.append(a[1].height) or embed(*a))
    done = cli(*words, run="again")
    assert done.status == 0, done.err
    assert sum(asked) == WORKS * VERSIONS - 16
    one, two = Index.open(tmp_path / "new"), Index.open(place / "index")
    assert set(one.table["id"]) == set(two.table["id"])
    query = two.windows.vectors[None, two.row == 5]
    np.testing.assert_allclose(search(one, query).distance, search(two, query).distance, atol=1e-5)


def test_files_and_corpus_give_the_same_vectors(cli, place, tmp_path):
    ckpt = f"ckpt={place / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}"
    folder = place / "tunes" / "work3"
    done = cli("job=index", ckpt, f"job.index={tmp_path / 'files'}", f"job.inputs=[{folder}]")
    assert done.status == 0, done.err
    files, corpus = Index.open(tmp_path / "files"), Index.open(place / "index")
    for i, path in enumerate(files.table["path"]):
        (row,) = [r for r, other in enumerate(corpus.table["path"]) if other == path]
        a, b = files.windows.vectors[files.row == i], corpus.windows.vectors[corpus.row == row]
        assert a.shape == b.shape
        assert (a * b).sum(1).min() > 0.99


def test_compare(ask, place, index):
    a, b = place / "tunes" / "work6" / "v0.wav", place / "tunes" / "work6" / "v1.wav"
    done = ask("job=compare", f"job.a={a}", f"job.b={b}", "job.method=tempo")
    assert done.status == 0, done.err
    same = done.json("compare.json")
    assert same["semitones"] == 3
    assert same["ratio"] == pytest.approx(1.1, abs=0.06)
    assert same["shift"] == pytest.approx(0, abs=1.5)
    assert (done.folder / "figures" / "similarity.png").exists()
    other = ask("job=compare", f"job.a={a}", f"job.b={place / 'tunes' / 'work5' / 'v1.wav'}", run="other")
    stranger = other.json("compare.json")
    assert same["distance"] < stranger["distance"]
    assert same["p"] < stranger["p"]
    warped = ask("job=compare", f"job.a={a}", f"job.b={b}", "job.method=dtw", run="warped").json("compare.json")
    there = np.array(warped["path"])
    assert len(there) > 20
    np.testing.assert_allclose(there[:, 1], 1.1 * there[:, 0], atol=1.5)
    assert warped["ratio"] == pytest.approx(1.1, abs=0.06)
    itself = ask("job=compare", f"job.a={a}", f"job.b={a}", run="itself").json("compare.json")
    assert itself["shift"] == pytest.approx(0, abs=0.05)
    assert itself["distance"] < same["distance"]
    bad = ask("job=compare", f"job.a={a}", "job.b=none.wav", run="bad")
    assert bad.status == 2
    assert "none.wav: no such file" in bad.err


def test_tempi_count_in_index_identify_and_compare_as_in_a_test(cli, place, tmp_path):
    ckpt = f"ckpt={place / 'outputs' / 'fit' / 'checkpoints' / 'best.ckpt'}"
    how = ["task=csi", "task.plan.tempi=[0.9,1.0,1.1]", "task.reduction=smeanmin"]
    tested = cli("job=test", ckpt, *how, "job.split=train", "job.distances=true", run="tested")
    assert tested.status == 0, tested.err
    assert 0 <= tested.json("metrics.json")["test"]["eer"] <= 0.5
    assert (tested.folder / "figures" / "test_open_set.png").stat().st_size > 10_000
    table = load_file(tested.folder / "distances.safetensors")["distances"].numpy()
    names = pl.read_csv(tested.folder / "distances.csv").filter(pl.col("side") == "query")["id"].to_list()
    made = cli("job=index", ckpt, *how, f"job.index={tmp_path / 'paced'}", "job.splits=[train]", run="made")
    assert made.status == 0, made.err
    index = Index.open(tmp_path / "paced")
    assert index.tempi == [0.9, 1.0, 1.1]
    assert (made.folder / "figures" / "open_set.png").stat().st_size > 10_000
    assert "a match is nearer than" in made.out
    assert len(index.row) == sum(len(windows.row) for windows in index.asked) > 2 * len(index.windows.row)
    files = ",".join(str(place / "tunes" / f"{name}.wav") for name in names)
    words = [f"job.index={tmp_path / 'paced'}", "job.mode=recordings", f"job.top={len(names)}"]
    found = cli("job=identify", ckpt, *words, f"job.inputs=[{files}]", run="found").json("matches.json")
    for q, item in enumerate(found):
        for match in item["matches"]:
            r = names.index(match["recording"])
            if r != q:  # a test does not compare a recording with itself
                assert match["distance"] == pytest.approx(table[q, r], abs=2e-3)
    calibration = index.calibration(10**6)
    work = np.array([name.split("/")[0] for name in names])
    other = work[:, None] != work
    assert len(calibration.pairs) == other.sum() // 2
    closest = np.sort(np.where(other, table, np.inf).min(1))
    np.testing.assert_allclose(calibration.nearest, closest, atol=2e-3)
    by = {(names[q], m["recording"]): m for q, item in enumerate(found) for m in item["matches"]}
    work = names[0].split("/")[0]
    slow, same = by[f"{work}/v1", f"{work}/v0"], by[f"{work}/v0", f"{work}/v0"]
    assert slow["ratio"] == pytest.approx(1 / 1.1, abs=0.03)  # what is left after reading at 1.1 is found, too
    assert same["ratio"] == pytest.approx(1, abs=1e-3)
    assert slow["match_start"] == pytest.approx(slow["query_start"] / 1.1, abs=1.5)
    one, two = (place / "tunes" / work / f"v{i}.wav" for i in (1, 0))
    pair = cli("job=compare", ckpt, f"job.index={tmp_path / 'paced'}", f"job.a={one}", f"job.b={two}", run="pair")
    assert pair.json("compare.json")["distance"] == pytest.approx(slow["distance"], abs=1e-3)
    assert pair.json("compare.json")["ratio"] == pytest.approx(1 / 1.1, abs=1e-3)  # job.method=lag: that of the reading


def test_align(ask, place):
    words = ["job=align", "job.hop=1", "job.method=tempo", "data=folder_works", f"data.root={place / 'tunes'}"]
    done = ask(*words, "data.corpus.split=train", run="align")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in (done.folder / "alignment.jsonl").read_text().splitlines()]
    assert len(lines) == WORKS * 3
    known = Alignment.load(done.folder / "alignment.jsonl", lines[0]["model"])
    keys = {f"work{i}/v{j}": k for i in range(WORKS) for j, k in enumerate((0, 3, -2))}
    right = [line["semitones"] == keys[line["id_b"]] - keys[line["id_a"]] for line in lines]
    assert np.mean(right) > 0.9
    a = np.array([f"work{i}/v0" for i in range(WORKS)])
    b = np.array([f"work{i}/v1" for i in range(WORKS)])
    there = known.lookup(a, b, np.full(WORKS, 8.0), 4.0)
    assert np.median(np.abs(there + 2 - 11.0)) < 1  # the middle of 8..12 s comes 1.1 times as late
    assert (known.sureness(a, b) > 0.1).mean() > 0.8
    assert (done.folder / "figures" / "alignment.png").exists()
    medoid = ask(*words, "data.corpus.split=train", "job.pairs=medoid", "job.method=dtw", run="medoid")
    assert len((medoid.folder / "alignment.jsonl").read_text().splitlines()) == WORKS * 3
    warped = Alignment.load(medoid.folder / "alignment.jsonl", lines[0]["model"])
    assert np.median(np.abs(warped.lookup(a, b, np.full(WORKS, 8.0), 4.0) + 2 - 11.0)) < 1
    for word in ("job.method=line", "job.pairs=none", "job.hop=0", "job.split=all"):
        assert ask(*words, word, run="bad").status == 2


@pytest.mark.parametrize("method", ["lag", "votes", "tempo", "dtw"])
def test_align_by_itself_finds_a_copy_and_a_late_copy(ask, tmp_path, method):
    """With the settings as they are: the copy lies at 0, that after thirty seconds of something else at 30."""
    sound = {
        "a": tune(0),
        "copy": tune(0),
        "late": np.concatenate([tune(9, seconds=30.0), tune(0)]),
        "short": tune(0)[:RATE],
    }
    for name, samples in {**{f"one/{k}": v for k, v in sound.items()}, "two/b": tune(1), "three/c": tune(2)}.items():
        (tmp_path / "late" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "late" / f"{name}.wav", samples, RATE)
    words = ["job=align", "data=folder_works", f"data.root={tmp_path / 'late'}", "data.corpus.split=train"]
    done = ask(*words, f"job.method={method}", run="late")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in (done.folder / "alignment.jsonl").read_text().splitlines()]
    found = {(line["id_a"], line["id_b"]): line for line in lines}
    for name, shift in (("copy", 0.0), ("late", 30.0)):
        line = found["one/a", f"one/{name}"]
        assert (line["shift"], line["ratio"], line["semitones"]) == (
            pytest.approx(shift, abs=0.5),
            pytest.approx(1, abs=0.03),
            0,
        )
        assert line["confidence"] > line["floor"] >= 0.1
    assert all(line["confidence"] == 0 for line in lines if "one/short" in (line["id_a"], line["id_b"]))
    assert "pairs of different works are below" in done.out
    assert "1 of 6 recordings have fewer than 3 windows of 3.84 s" in done.out
    sure = Alignment.load(done.folder / "alignment.jsonl", floor=None)
    assert len(sure) == sum(line["confidence"] >= line["floor"] for line in lines)


def test_folders_are_works_and_centroids_of_steady_vectors_are_searched(cli, fit, corpus, tmp_path):
    ckpt = f"ckpt={fit().folder / 'checkpoints' / 'best.ckpt'}"
    index = f"job.index={tmp_path / 'sounds'}"
    plain = cli("job=index", ckpt, index, f"job.inputs=[{corpus}]", run="plain")
    assert plain.status == 0, plain.err
    assert Index.open(tmp_path / "sounds").works == []
    one = f"job.inputs={corpus / 'sine' / '4.wav'}"
    lost = cli("job=identify", ckpt, index, one, run="lost")
    assert lost.status == 0, lost.err
    (found,) = lost.json("matches.json")
    assert found["match"] is None
    assert found["matches"][0]["p"] is None
    assert "fewer than two works are known" in lost.out
    assert "4.wav: not judged" in " ".join(lost.out.split())
    pair = [f"job.a={corpus / 'sine' / '4.wav'}", f"job.b={corpus / 'sine' / '3.wav'}"]
    compared = cli("job=compare", ckpt, index, *pair, run="compared")
    assert compared.status == 0, compared.err
    assert "fewer than two works are known" in compared.out
    assert "p" not in compared.json("compare.json")
    words = ["job=index", "job.action=add", ckpt, index, f"job.inputs=[{corpus}]"]
    named = cli(*words, "job.level=work", run="named")
    assert named.status == 0, named.err
    made = Index.open(tmp_path / "sounds")
    assert made.works == ["buzz", "noise", "sine"]
    assert (made.table["work"] == made.table["path"].str.split("/").list.get(-2)).all()
    centroids = cli("job=identify", ckpt, index, one, "job.mode=centroids", run="centroids")
    assert centroids.status == 0, centroids.err
    assert len(centroids.json("matches.json")[0]["matches"]) == 3
    reduced = cli("job=identify", ckpt, index, one, "job.mode=centroids", "job.reduction=qmax-3", run="reduced")
    assert reduced.status == 2
    assert "the reduction qmax-3 follows the order" in reduced.err
    assert "note:" not in cli("job=index", "job.action=centroids", ckpt, index, run="means").out
    for inputs, level, message in (
        (corpus / "sine", "work", "no folder with sub-folders"),
        (corpus, "artist", "job.level=artist: must be work or null"),
    ):
        bad = cli(*words[:-1], f"job.inputs=[{inputs}]", f"job.level={level}", run="bad")
        assert bad.status == 2
        assert message in bad.err


def test_a_spreadsheet_knows_better_than_the_folder(tmp_path):
    for name in ("a/1.wav", "a/deep/2.wav", "b/3.wav", "4.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "w.csv").write_text("file,work\nin/b/3.wav,Other\n")
    paths = find_recordings([tmp_path / "in"])
    table = file_table(paths, str(tmp_path / "w.csv"), [str(tmp_path / "in")], "work")
    names = {path.rsplit("/", 1)[1]: work for path, work in table.select("path", "work").rows()}
    assert names == {"1.wav": "a", "2.wav": "a", "3.wav": "Other", "4.wav": None}


@pytest.mark.parametrize("seconds", [100, 250, 300])
def test_recordings_longer_than_a_window(ask, index, tmp_path, seconds):
    """Windows of 30 s: what b has 23 s later is found 23 s later, however many windows there are."""
    a = np.concatenate([tune(200 + i, seconds=25) for i in range(seconds // 25)])
    b = np.concatenate([tune(300, seconds=23), a[: -10 * RATE]])
    for name, sound in (("a", a), ("b", b)):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
    done = ask("job=compare", f"job.a={tmp_path / 'a.wav'}", f"job.b={tmp_path / 'b.wav'}")
    assert done.status == 0, done.err
    assert done.json("compare.json")["shift"] == pytest.approx(23, abs=0.5)
    added = ask("job=index", "job.action=add", f"job.inputs=[{tmp_path / 'b.wav'}]", run="add")
    assert added.status == 0, added.err
    made = Index.open(index)
    start = made.windows.start.numpy()[made.row == len(made) - 1]
    steps = np.diff(start)
    np.testing.assert_allclose(steps, np.median(steps), atol=1e-3)
    assert start[0] == 0
    assert abs(len(b) / RATE - start[-1] - made.facts["segment"]) < steps[0] + 0.1  # to the end, and no further
    words = ["job=identify", f"job.inputs=[{tmp_path / 'a.wav'}]", "job.pad=repeat"]  # a long one needs none
    one = ask(*words, run="one").json("matches.json")[0]["matches"][0]
    assert one["recording"].endswith("b.wav")
    assert one["shift"] == pytest.approx(23, abs=0.5)
    assert one["match_start"] - one["query_start"] == pytest.approx(23, abs=0.5)


def test_queries_of_ten_seconds_to_twenty_minutes(ask, index, tmp_path, monkeypatch):
    """In another key, tempo and timbre each; what is held at once stays bounded whatever the length."""
    for folder in ("more", "ask"):
        (tmp_path / folder).mkdir()
    for work in (60, 61):
        soundfile.write(tmp_path / "more" / f"{work}.wav", tune(work, seconds=70), RATE)
    (tmp_path / "works.csv").write_text("file,work\nmore/60.wav,Sixty\nmore/61.wav,Sixty-one\n")
    words = ["job=index", "job.action=add", f"job.inputs=[{tmp_path / 'more'}]", f"job.works={tmp_path / 'works.csv'}"]
    assert ask(*words, run="more").status == 0
    play = tune(60, key=3, pace=1.1, rolloff=0.7, seconds=70)
    others = [tune(400 + i, seconds=80) for i in range(14)]
    for name, sound in {
        "ten": play[20 * RATE : 30 * RATE],
        "middle": play[20 * RATE : 50 * RATE],
        "minute": tune(61, key=-4, pace=0.92, seconds=60),
        "twenty": np.concatenate([*others[:8], play, *others[8:]]),
    }.items():
        soundfile.write(tmp_path / "ask" / f"{name}.wav", sound, RATE)
    held = []
    keep = searching.in_one_key

    def watch(a, b, *rest):
        held.append(len(a) * a.shape[1] * b.shape[1])
        return keep(a, b, *rest)

    monkeypatch.setattr(searching, "in_one_key", watch)
    monkeypatch.setattr(job, "CELLS", 2**20)
    done = ask("job=identify", f"job.inputs=[{tmp_path / 'ask'}]")
    assert done.status == 0, done.err
    found = {name.split(".")[0]: item for name, item in read(done).items()}
    works = {name: item["matches"][0]["work"] for name, item in found.items()}
    assert works == {"ten": "Sixty", "middle": "Sixty", "minute": "Sixty-one", "twenty": "Sixty"}
    assert found["twenty"]["windows"] > 2000
    assert max(held) <= 2**20
    assert len(held) > 1
    for name, before in (("ten", -20), ("middle", -20), ("twenty", 640)):  # seconds until the play begins
        best = found[name]["matches"][0]
        assert best["semitones"] == -3
        middle = {"ten": 5, "middle": 15, "twenty": 675}[name]
        assert best["ratio"] * middle + best["shift"] == pytest.approx((middle - before) / 1.1, abs=0.5), name
        if name != "ten":  # which is too short to tell a tenth
            assert best["ratio"] == pytest.approx(1 / 1.1, abs=0.02), name
        assert best["match_start"] == pytest.approx(best["ratio"] * best["query_start"] + best["shift"], abs=0.1)
    assert found["minute"]["matches"][0]["ratio"] == pytest.approx(1 / 0.92, abs=0.02)
    assert found["minute"]["matches"][0]["shift"] == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_windows_meet_by_their_starts(seed):
    """With holes, a window beside the grid and padding: places by the definition, one window at a time."""
    random = np.random.default_rng(seed)
    start = np.sort(random.integers(0, 20, (3, 6)), 1) * 5.0
    start[0, 5] = start[0, 4] + 7
    real = np.arange(6) < np.array([6, 4, 5])[:, None]
    expected = np.full((3, 6), -1)
    for p in range(3):
        taken = set()
        for k in range(6):
            place = round(start[p, k] / 5)
            if real[p, k] and start[p, k] % 5 == 0 and place not in taken:
                expected[p, k] = place
                taken.add(place)
    np.testing.assert_array_equal(spots(start, real, 5.0), expected)


def test_any_task_that_embeds_can_be_indexed(cli, fit, corpus, tmp_path):
    trained = fit()
    ckpt = f"ckpt={trained.folder / 'checkpoints' / 'best.ckpt'}"
    done = cli("job=index", ckpt, f"job.index={tmp_path / 'sounds'}", f"job.inputs=[{corpus}]", run="index")
    assert done.status == 0, done.err
    found = Index.open(tmp_path / "sounds")
    assert len(found) == 30
    assert found.facts["segment"] is None
    one = cli(
        "job=identify", ckpt, f"job.index={tmp_path / 'sounds'}", f"job.inputs={corpus / 'sine' / '4.wav'}", run="one"
    )
    assert one.status == 0, one.err
    best = one.json("matches.json")[0]["matches"][0]
    assert best["recording"].endswith("sine/4.wav")
    assert best["distance"] == pytest.approx(0, abs=1e-5)
    assert best["query_start"] == best["match_start"]
