"""job=overlap: what is planted is found, and nothing else."""

import json

import numpy as np
import polars as pl
import pytest
import soundfile

from tests.conftest import tone
from tonnetz.jobs.overlap import marked, overlap
from tonnetz.tracks import table


@pytest.fixture
def sets(tmp_path):
    """Two lists: b has a0 under another name as FLAC, a1 copied byte by byte, and one work in common."""
    for name in ("a0", "a1", "a2", "b2"):
        soundfile.write(tmp_path / f"{name}.wav", tone("buzz", sum(map(ord, name))), 16000, subtype="PCM_16")
    soundfile.write(tmp_path / "b0.flac", *soundfile.read(tmp_path / "a0.wav"), subtype="PCM_16")
    (tmp_path / "b1.wav").write_bytes((tmp_path / "a1.wav").read_bytes())
    files = {"a": ("a0.wav", "a1.wav", "a2.wav", "gone.wav"), "b": ("b0.flac", "b1.wav", "b2.wav")}
    works = {"a0.wav": "W0", "a1.wav": "W1", "a2.wav": "W2", "gone.wav": "W2"}
    for side, names in files.items():
        rows = [
            {"perf": n.split(".")[0], "wav": n, "work": works.get(n, f"{n[:2]}" if n != "b2.wav" else "W2")}
            for n in names
        ]
        (tmp_path / f"{side}.txt").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"job.a={tmp_path / 'a.txt'}", f"job.b={tmp_path / 'b.txt'}"]


def kinds(done):
    (pair,) = done.json("overlap.json")["pairs"]
    return {kind: (found["rows_a"], found["rows_b"]) for kind, found in pair["kinds"].items()}


def test_works_and_file_bytes(cli, sets):
    done = cli("job=overlap", *sets)
    assert done.status == 0, done.err
    assert kinds(done) == {
        "id": ([], []),
        "recording": ([], []),
        "work": (["a2", "gone"], ["b2"]),
        "audio": (["a1"], ["b1"]),
    }
    assert "1 rows have no audio to compare" in done.out


def test_decoded_audio_finds_another_format(cli, sets):
    done = cli("job=overlap", *sets, "job.hash=decoded", "job.by=[audio]")
    assert kinds(done) == {"audio": (["a0", "a1"], ["b0", "b1"])}


def test_failing_on_overlap(cli, sets):
    done = cli("job=overlap", *sets, "job.fail_on_overlap=true")
    assert done.status != 0
    assert "overlap found: " in done.err
    assert "(work): 1" in done.err
    assert "(audio): 1" in done.err
    assert (done.folder / "overlap.json").exists()
    assert done.json("manifest.json")["status"] == "failed"
    clean = cli("job=overlap", *sets, "job.fail_on_overlap=true", "job.by=[id,recording]", run="clean")
    assert clean.status == 0, clean.err


def test_splits_of_a_corpus(cli, tmp_path):
    """One recording under two names in two splits, in the audio of the corpus itself."""
    for split, seeds in (("train", (1, 2, 3)), ("valid", (4, 5)), ("test", (2, 6))):
        for seed in seeds:
            path = tmp_path / "raw" / split / f"work{seed % 2}" / f"{split}{seed}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tone("sine", seed), 16000)
    words = ["job=overlap", "data=folder_works", f"data.root={tmp_path / 'raw'}", "job.by=[audio,id]"]
    done = cli(*words)
    assert done.status == 0, done.err
    pairs = {(p["a"], p["b"]): p["kinds"]["audio"]["rows_a"] for p in done.json("overlap.json")["pairs"]}
    assert pairs == {
        ("train", "valid"): [],
        ("train", "test"): ["train/work0/train2"],
        ("valid", "test"): [],
    }


def test_a_file_and_this_corpus(cli, tmp_path, sets):
    (tmp_path / "raw" / "W1").mkdir(parents=True)
    (tmp_path / "raw" / "W1" / "x.wav").write_bytes((tmp_path / "a1.wav").read_bytes())
    words = ["data=folder_works", f"data.root={tmp_path / 'raw'}", "data.valid=0", "data.test=0"]
    done = cli("job=overlap", sets[0], *words)
    assert done.status == 0, done.err
    assert kinds(done)["audio"] == (["a1"], ["W1/x"])
    assert kinds(done)["work"] == (["a1"], ["W1/x"])
    (tmp_path / "a.txt").write_text('{"perf": "sp_0.8-W1/x", "work": "?"}')
    done = cli("job=overlap", sets[0], *words, run="again")
    assert kinds(done)["recording"] == (["sp_0.8-W1/x"], ["W1/x"])


def test_mistakes(cli, sets, corpus):
    assert "no kind 'ids'; did you mean 'id'?" in cli("job=overlap", *sets, "job.by=[ids]").err
    assert "known are auto, bytes, decoded" in cli("job=overlap", *sets, "job.hash=md5").err
    alone = cli("job=overlap", "data=folder", f"data.root={corpus}", "data.valid=0", "data.test=0")
    assert alone.status == 2
    assert "nothing to compare" in alone.err


def test_overlap_equals_a_double_loop():
    random = np.random.default_rng(0)

    def draw(count):
        return table(
            {"id": f"i{random.integers(60)}", "path": "", "work": None if i % 7 == 0 else f"w{random.integers(30)}"}
            for i in range(count)
        )

    a, b = draw(50), draw(40)
    found = overlap(a, b, ["id", "work"])
    for kind, column in (("id", "id"), ("work", "work")):
        rows = [i for i, x in zip(a["id"], a[column], strict=True) if any(x == y for y in b[column] if x is not None)]
        assert found[kind]["rows_a"] == rows
        assert found[kind]["unknown_a"] == a[column].null_count()


def test_excerpts_of_prepared_audio_are_told_apart(tmp_path):
    from tonnetz.audio import pcm_header

    soundfile.write(tmp_path / "a.wav", np.r_[tone("sine", 1, 0.5), tone("sine", 2, 0.5)], 16000, subtype="PCM_16")
    header = pcm_header(str(tmp_path / "a.wav"), 16000)
    facts = {"path": "a", "audio": str(tmp_path / "a.wav"), "header": header, "samples": 8000}
    frame = table([{"id": "1", "first": 0, **facts}, {"id": "2", "first": 8000, **facts}])
    (one, two) = marked([frame.head(1), frame.tail(1)], "auto")
    assert isinstance(one, pl.DataFrame)
    assert overlap(one, two, ["audio"])["audio"]["shared"] == 0
    assert overlap(one, one, ["audio"])["audio"]["shared"] == 1
