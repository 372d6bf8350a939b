"""job=overlap: what is planted is found, and nothing else."""

import json
from collections import Counter

import librosa
import numpy as np
import polars as pl
import pytest
import soundfile

from tests.conftest import tone
from tonnetz.jobs.overlap import marked, overlap
from tonnetz.landmarks import Landmarks, copies, landmarks
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


def test_spreadsheets_need_no_audio(cli, tmp_path):
    (tmp_path / "here.wav").write_bytes(b"sound")
    (tmp_path / "a.csv").write_text("file,work\nhere.wav,W1\ngone.wav,W2\n")
    (tmp_path / "b.csv").write_text("file,work,id\nhere.wav,W3,copy\nlost.wav,W2,lost\n")
    sides = [f"job.{side}={tmp_path / f'{side}.csv'}" for side in "ab"]
    done = cli("job=overlap", *sides)
    assert done.status == 0, done.err
    found = kinds(done)
    assert found["work"] == (["gone"], ["lost"])
    assert found["audio"] == (["here"], ["copy"])
    assert "2 rows have no audio to compare" in done.out
    for words in (["job.hash=decoded", "job.by=[work]"], ["job.by=[sound]"]):
        (tmp_path / "here.wav").unlink(missing_ok=True)
        done = cli("job=overlap", *sides, *words)
        assert done.status == 0, done.err
    assert "4 rows have no sound to compare" in done.out


def test_decoded_audio_finds_another_format(cli, sets):
    done = cli("job=overlap", *sets, "job.hash=decoded", "job.by=[audio]")
    assert kinds(done) == {"audio": (["a0", "a1"], ["b0", "b1"])}


def performance(work, player, seconds=30):
    """A piece of two voices: the notes are those of the work, their timing and tone colour the player's."""
    notes, hands = np.random.default_rng(work), np.random.default_rng([work, player])
    rate, out = 16000, np.zeros(seconds * 16000)
    power = hands.uniform(0.8, 1.6)
    for voice, length in ((0, 0.28), (-12, 0.61)):
        begin = 0.0
        while begin < seconds - 1.5:
            pitch = 262 * 2 ** ((voice + notes.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])) / 12)
            t = np.arange(int(1.2 * rate)) / rate
            first = int((begin + hands.uniform(0, 0.06)) * rate)
            sound = sum(np.sin(2 * np.pi * pitch * k * t + k) / k**power for k in range(1, 9))
            out[first : first + len(t)] += sound * np.exp(-4 * t) * hands.uniform(0.5, 1)
            begin += length
    return (0.3 * out / np.abs(out).max()).astype(np.float32)


@pytest.fixture
def pieces(tmp_path):
    """Train has six pieces; test has three of them as copies, one by another player, and a new one."""
    for split in ("train", "test"):
        (tmp_path / "raw" / split).mkdir(parents=True)
    for work in range(6):
        soundfile.write(tmp_path / "raw" / "train" / f"p{work}.wav", performance(work, 0), 16000)
    loud = np.clip(3 * performance(0, 0)[int(3.337 * 16000) : -7000], -1, 1)  # louder, trimmed and encoded anew
    soundfile.write(tmp_path / "raw" / "test" / "loud.mp3", loud, 16000, compression_level=0.9)
    soundfile.write(tmp_path / "raw" / "test" / "quiet.ogg", 0.1 * performance(1, 0)[16000 * 11 :], 16000)
    late = np.r_[np.zeros(16000 * 2), 0.5 * performance(2, 0)].astype(np.float32)
    soundfile.write(
        tmp_path / "raw" / "test" / "late.flac", librosa.resample(late, orig_sr=16000, target_sr=22050), 22050
    )
    soundfile.write(tmp_path / "raw" / "test" / "another.wav", performance(3, 1), 16000)
    soundfile.write(tmp_path / "raw" / "test" / "new.wav", performance(9, 0), 16000)
    soundfile.write(tmp_path / "raw" / "test" / "sine.wav", tone("sine", 1, 20), 16000)
    for split in ("train", "test"):
        files = sorted((tmp_path / "raw" / split).iterdir())
        rows = [{"perf": file.stem, "wav": f"raw/{split}/{file.name}", "work": file.stem} for file in files]
        (tmp_path / f"{split}.txt").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_copies_that_sound_alike_are_found_and_another_performance_is_not(cli, pieces):
    words = ["job=overlap", "job.by=[audio,sound]", f"job.a={pieces / 'train.txt'}", f"job.b={pieces / 'test.txt'}"]
    done = cli(*words)
    assert done.status == 0, done.err
    (pair,) = done.json("overlap.json")["pairs"]
    assert pair["kinds"]["audio"]["shared"] == 0
    sound = pair["kinds"]["sound"]
    found = {(a, b): (share, shift) for a, b, share, shift in sound["values"]}
    assert found.keys() == {("p0", "loud"), ("p1", "quiet"), ("p2", "late")}
    assert found["p0", "loud"][1] == pytest.approx(-3.337, abs=0.05)
    assert found["p1", "quiet"][1] == pytest.approx(-11, abs=0.05)
    assert found["p2", "late"][1] == pytest.approx(2, abs=0.05)
    assert min(share for share, _ in found.values()) > 0.25
    assert (sound["in_a"], sound["in_b"], sound["unknown_b"]) == (6, 5, 1)  # a steady tone has no landmarks
    assert "copies: " in done.out
    failed = cli(*words, "job.fail_on_overlap=true", run="failed")
    assert failed.status != 0
    assert "(sound): 3" in failed.err
    bad = cli(*words, "job.share=0", run="bad")
    assert "job.share=0: must be" in bad.err


def test_copies_in_the_splits_of_a_corpus(cli, pieces):
    """Prepared audio, whatever the format of the files."""
    words = ["job=overlap", "job.by=[sound]", "data=csv", f"data.root={pieces / 'all.csv'}", "data.corpus.classes=[]"]
    rows = [f"{f.relative_to(pieces)},{f.parent.name}" for f in sorted((pieces / "raw").rglob("*.*"))]
    (pieces / "all.csv").write_text("file,split\n" + "\n".join(rows) + "\n")
    done = cli(*words)
    assert done.status == 0, done.err
    (pair,) = done.json("overlap.json")["pairs"]
    assert sorted(len(row) for row in pair["kinds"]["sound"]["values"]) == [4] * 3
    assert len(pair["kinds"]["sound"]["rows_a"]) == 3


def test_landmarks_do_not_know_the_gain():
    sound = performance(4, 0, 10)
    one, two = landmarks(sound[::2]), landmarks(0.01 * sound[::2])
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert len(one[0]) > 50
    for nothing in (np.zeros(100, np.float32), np.zeros(9000, np.float32), np.zeros(0, np.float32)):
        assert len(landmarks(nothing)[0]) == 0


def test_common_landmarks_and_shifts_equal_a_loop():
    random = np.random.default_rng(0)
    parts = [
        (random.integers(0, 500, 300).astype(np.int32), random.integers(0, 900, 300).astype(np.int32)) for _ in "abcd"
    ]
    parts.append((parts[0][0][:200], parts[0][1][:200] + 40))
    a, b = Landmarks.of(parts[:3]), Landmarks.of(parts[3:])
    expected = {}
    for i, (code, frame) in enumerate(parts[:3]):
        for j, (other, there) in enumerate(parts[3:]):
            shifts = Counter(int(t - s) for c, s in zip(code, frame, strict=True) for t in there[other == c])
            best = max((shifts[s] + shifts[s + 1], -s) for s in shifts)
            if best[0] >= 20:
                expected[i, j] = best[0] / min(len(code), len(other))
    found = {(i, j): share for i, j, share, _ in copies(a, b, 0.01)}
    assert found.keys() == expected.keys() == {(0, 1)}
    assert found[0, 1] == pytest.approx(expected[0, 1])


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
