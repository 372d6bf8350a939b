"""What one does with a checkpoint: test, predict, embed; and the jobs that need none: prepare, baseline, bench."""

import csv
import json

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from safetensors.numpy import load_file

from tests.conftest import RATE, tone


@pytest.fixture
def trained(fit):
    done = fit("trainer.max_epochs=6", "task.plan.steps=20")
    assert done.status == 0, done.err
    return done


def best(done):
    return f"ckpt={done.folder / 'checkpoints' / 'best.ckpt'}"


def test_a_checkpoint_needs_nothing_else(cli, trained):
    again = cli("job=test", best(trained), run="again")
    assert again.status == 0, again.err
    assert again.json("metrics.json")["test"] == pytest.approx(trained.json("metrics.json")["test"])
    assert (again.folder / "test_classes.csv").exists()
    assert (again.folder / "figures" / "test_confusion.png").exists()


def test_other_data_keeps_the_classes_of_training(cli, trained, tmp_path):
    for kind in ("sine", "buzz"):
        (tmp_path / "more" / kind).mkdir(parents=True)
        for i in range(8):
            soundfile.write(tmp_path / "more" / kind / f"{i}.wav", tone(kind, 500 + i), RATE)
    done = cli(
        "job=test",
        best(trained),
        "data=folder",
        f"data.root={tmp_path / 'more'}",
        "job.split=train",
        run="other",
    )
    assert done.status == 0, done.err
    assert list(done.json("metrics.json")["classes"]["test"]["f1"]) == ["buzz", "noise", "sine"]


def test_predict_files_folders_and_lists(cli, trained, corpus, tmp_path):
    soundfile.write(tmp_path / "long.flac", tone("sine", 77, seconds=2.3), 22050)
    (tmp_path / "list.csv").write_text("file,remark\nlong.flac,here\n")
    inputs = f"job.inputs=[{corpus / 'noise'},{corpus / 'buzz' / '1.wav'},{tmp_path / 'list.csv'}]"
    done = cli("job=predict", best(trained), inputs, run="predict")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in (done.folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["path"].rsplit("/", 1)[1] for line in lines] == [
        *(f"{i}.wav" for i in range(10)),
        "1.wav",
        "long.flac",
    ]
    for line in lines:
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert line["labels"] == [max(line["probabilities"], key=line["probabilities"].get)]
    right = sum(line["labels"] == ["noise"] for line in lines[:10])
    assert right >= 8
    seconds = 2.3 * RATE / 22050
    assert lines[-1]["timeline"][-1]["end"] == pytest.approx(seconds, abs=2e-3)  # the last window ends with the file
    with (done.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["labels"] == lines[0]["labels"][0]
    with (done.folder / "timeline.csv").open() as file:
        windows = list(csv.DictReader(file))
    assert len(windows) == sum(len(line["timeline"]) for line in lines)


def test_predict_agrees_with_test(cli, trained, corpus):
    """A file judged alone gets what it got inside the test split: no skew between training and use."""
    table = pl.read_ndjson(next((trained.folder.parents[1] / "data").glob("folder-*/tracks.jsonl")))
    done = cli("job=predict", best(trained), f"job.inputs=[{corpus}]", run="all")
    lines = [json.loads(line) for line in (done.folder / "predictions.jsonl").read_text().splitlines()]
    guess = {line["path"]: line["labels"][0] for line in lines}
    manifest = trained.json("manifest.json")
    assert manifest["data"]["tracks"]["test"] > 0
    truth = dict(zip(table["path"], table["labels"].list.first(), strict=True))
    accuracy = np.mean([guess[path] == truth[path] for path in truth])
    assert accuracy > 0.8


def test_a_bad_file_costs_only_itself(cli, trained, corpus, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"")
    inputs = f"job.inputs=[{tmp_path / 'bad.wav'},{corpus / 'sine' / '0.wav'}]"
    done = cli("job=predict", best(trained), inputs, run="bad")
    assert done.status == 2
    assert "bad.wav: the file is empty" in done.err
    assert len((done.folder / "predictions.jsonl").read_text().splitlines()) == 1
    skipped = cli("job=predict", best(trained), inputs, "data.on_error=skip", run="skipped")
    assert skipped.status == 0
    assert "left out" in skipped.err


def test_embed_the_corpus_and_files(cli, trained, corpus):
    done = cli("job=embed", best(trained), run="embed")
    assert done.status == 0, done.err
    arrays = load_file(done.folder / "embeddings.safetensors")
    assert arrays["vectors"].shape[0] == 30
    stored = np.load(done.folder / "embeddings.npz")
    np.testing.assert_array_equal(stored["vectors"], arrays["vectors"])
    table = pl.read_csv(done.folder / "embeddings.csv")
    assert table.height == 30
    assert set(table["labels"]) == {"buzz", "noise", "sine"}
    one = cli("job=embed", best(trained), f"job.inputs={corpus / 'sine' / '4.wav'}", run="one")
    vector = load_file(one.folder / "embeddings.safetensors")["vectors"][0]
    (row,) = table.with_row_index("n").filter(pl.col("path").str.ends_with("sine/4.wav"))["n"]
    np.testing.assert_allclose(vector, arrays["vectors"][row], atol=1e-4)


def test_embeddings_that_would_have_one_name_are_refused(cli, trained, corpus):
    files = f"job.inputs=[{corpus / 'sine' / '4.wav'},{corpus / 'buzz' / '4.wav'}]"
    done = cli("job=embed", best(trained), files, "job.npy=true", run="npy")
    assert done.status == 2
    assert "would both be 4.npy" in done.err
    one = cli("job=embed", best(trained), f"job.inputs={corpus / 'sine' / '4.wav'}", "job.npy=true", run="one")
    assert one.status == 0, one.err
    assert np.load(one.folder / "npy" / "4.npy").ndim == 1


def test_processes_share_a_folder_of_vectors(cli, trained, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("tonnetz.jobs.embed.PORTION", 4)
    whole = cli("job=embed", best(trained), "job.npy=true", run="whole")
    assert whole.status == 0, whole.err
    vectors, folder = load_file(whole.folder / "embeddings.safetensors")["vectors"], tmp_path / "vectors"
    for i in range(3):
        done = cli("job=embed", best(trained), f"job.npy={folder}", f"job.shard=[{i},3]", run=f"shard{i}")
        assert done.status == 0, done.err
        np.testing.assert_allclose(
            load_file(done.folder / "embeddings.safetensors")["vectors"], vectors[i::3], atol=1e-5
        )
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.npy"))
    assert len(files) == 30
    assert files == sorted(path.relative_to(whole.folder / "npy") for path in whole.folder.rglob("*.npy"))
    for path in files:
        np.testing.assert_allclose(np.load(folder / path), np.load(whole.folder / "npy" / path), atol=1e-5)
    (folder / files[3]).unlink()
    (folder / files[7]).write_bytes(b"of a killed process")
    again = cli("job=embed", best(trained), f"job.npy={folder}", run="again")
    assert "has 28 of 30 files already" in again.out
    assert load_file(again.folder / "embeddings.safetensors")["vectors"].shape[0] == 2
    full = cli("job=embed", best(trained), f"job.npy={folder}", run="full")
    assert full.status == 0
    assert "has 30 of 30 files already" in full.out
    other = cli("job=embed", best(trained), f"job.npy={folder}", "job.layer=output", run="other")
    assert other.status == 2
    assert "holds vectors of another model, layer or window" in other.err
    for wrong in ("[3,3]", "[0]", "1", "[a,b]", "[0.5,2]"):
        done = cli("job=embed", best(trained), f"job.shard={wrong}", run="wrong")
        assert done.status == 2
        assert "of n processes the i-th, counted from 0" in done.err


def test_a_file_of_vectors_stays_that_of_its_recording(cli, trained, corpus, tmp_path):
    folder, place = tmp_path / "vectors", tmp_path / "other" / "0.wav"
    place.parent.mkdir()
    place.write_bytes((corpus / "sine" / "0.wav").read_bytes())
    words = ["job=embed", best(trained), f"job.npy={folder}"]
    assert cli(*words, f"job.inputs={place}", run="first").status == 0
    vector = np.load(folder / "0.npy")
    other = cli(*words, f"job.inputs={corpus / 'buzz' / '0.wav'}", run="second")
    assert other.status == 2
    assert f"0.npy is of {place}, not of" in other.err
    place.write_bytes((corpus / "buzz" / "0.wav").read_bytes())
    again = cli(*words, f"job.inputs={place}", run="third")
    assert again.status == 0, again.err
    assert not np.allclose(np.load(folder / "0.npy"), vector)
    (place.parent / "1.wav").write_bytes(b"")
    for run in ("fourth", "fifth"):  # only the bad one is left
        skipped = cli(*words, f"job.inputs={place.parent}", "data.on_error=skip", run=run)
        assert skipped.status == 0, skipped.err
        assert "left out" in skipped.err
    assert cli(*words, f"job.inputs={place.parent}", run="sixth").status == 2


def test_labels_that_the_model_does_not_know_do_not_matter(cli, trained, corpus, tmp_path):
    (tmp_path / "sounds" / "gong").mkdir(parents=True)
    (tmp_path / "sounds" / "gong" / "0.wav").write_bytes((corpus / "sine" / "0.wav").read_bytes())
    done = cli("job=embed", best(trained), "data=folder", f"data.root={tmp_path / 'sounds'}", run="gong")
    assert done.status == 0, done.err
    assert pl.read_csv(done.folder / "embeddings.csv")["labels"].to_list() == ["gong"]


def test_embed_windows_of_a_layer(cli, trained):
    done = cli("job=embed", best(trained), "job.windows=true", "job.layer=output", run="windows")
    assert done.status == 0, done.err
    assert load_file(done.folder / "embeddings.safetensors")["vectors"].shape[0] > 30
    wrong = cli("job=embed", best(trained), "job.layer=outptu", run="wrong")
    assert wrong.status == 2
    assert "'output'" in wrong.err


def test_prepare_is_resumable_and_idempotent(cli, corpus, tmp_path):
    words = [
        "data=folder",
        f"data.root={corpus}",
        "job=prepare",
        "frontend.sample_rate=8000",
        "job.features=true",
    ]
    assert cli(*words).status == 0
    files = sorted((tmp_path / "data").rglob("*.wav"))
    assert len(files) == 30
    stamps = [path.stat().st_mtime_ns for path in files]
    files[3].unlink()
    done = cli(*words)
    assert "30" not in done.err
    again = [path.stat().st_mtime_ns for path in files]
    assert [a == b for a, b in zip(stamps, again, strict=True)] == [i != 3 for i in range(30)]


def test_baseline_job(cli, corpus):
    done = cli("job=baseline", "data=folder", f"data.root={corpus}")
    assert done.status == 0, done.err
    assert done.json("metrics.json")["test"]["macro_f1"] > 0.9  # these three sounds are easy


def test_bench_tells_where_time_goes(cli, corpus):
    from tests.conftest import SMALL

    words = [word for word in SMALL if not word.startswith("job.")]
    done = cli("data=folder", f"data.root={corpus}", *words, "job=bench", "job.batches=2", "job.warmup=1")
    assert done.status == 0, done.err
    result = done.json("bench.json")
    assert set(result["seconds_per_batch"]) >= {"loader", "front-end", "forward", "backward", "metric"}
    assert result["reading"]["prepared"] > 0
    assert (done.folder / "figures" / "bench.png").exists()


def test_bench_of_episodes(cli, instruments):
    from tests.tasks.test_fewshot import SMALL

    words = [word for word in SMALL if not word.startswith("job.")]
    words += ["job=bench", "job.batches=2", "job.warmup=1", "job.decode=false", "job.episodes=3", "job.shots=[1,2]"]
    done = cli(*words, f"data.root={instruments}")
    assert done.status == 0, done.err
    result = done.json("bench.json")
    assert set(result["seconds_per_batch"]) == {
        *("loader", "wave augment", "front-end", "spectral augment", "forward", "loss", "backward", "optimizer")
    }
    assert result["batch_size"] == 2 * 3 * (2 + 3)  # episodes x ways x clips, not data.batch_size
    assert 0 < result["loader_and_loss"] < 1
    assert f"{result['loader_and_loss']:.1%} of a step" in done.out
    judged = result["episodes"]
    assert judged["answers"]["compared"] == 2 * 3 * 3 * 4  # settings x episodes x ways x queries
    assert judged["answers"]["same"] >= 0.9 * judged["answers"]["compared"]
    assert judged["ratio"] == pytest.approx(judged["again"]["seconds_each"] * 40 / judged["once"]["all"])


def test_other_answers_of_clips_embedded_anew_are_an_error():
    from tonnetz.fewshot.bench import _same
    from tonnetz.fewshot.protocol import Answers

    def answers(logits):
        one = torch.ones(len(logits), logits.shape[1], dtype=torch.bool)
        empty = torch.zeros(len(logits), 0)
        rows = torch.zeros_like(one, dtype=torch.long)
        return Answers(logits, rows, one, rows, torch.zeros(len(logits), 3), empty[..., None], empty)

    quick = torch.tensor([[[3.0, 1.0, 0.0], [2.0, 1.999, 0.0]], [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]])
    near, far = quick.clone(), quick.clone()
    near[0, 1, 1] = 2.001
    far[1, 0, 1] = 2.5
    single = [answers(quick[i : i + 1]) for i in (0, 1)]
    assert _same(answers(quick), single) == (4, 4)
    assert _same(answers(quick), single[:1]) == (2, 2)
    assert _same(answers(quick), [answers(near[:1])]) == (1, 2)  # a tie that rounding decides
    with pytest.raises(RuntimeError, match="1 answers change"):
        _same(answers(quick), [answers(far[i : i + 1]) for i in (0, 1)])


def test_bench_counts_views_without_data(cli):
    words = ["frontend=raw", "frontend.sample_rate=8000", "augment=clmr", "task.plan.seconds=0.5"]
    done = cli(*words, "job=bench", "job.views=true", "job.batches=2", "job.warmup=1")
    assert done.status == 0, done.err
    result = done.json("bench.json")
    assert result["samples"] == 4000
    assert 0 < result["views_per_second"] <= result["best"]


def test_bench_of_cover_song_identification(cli, corpus, tmp_path):
    words = ["job=bench", "task=csi", "job.segments=2"]
    ranked = cli(*words, "job.recordings=40", "task.rounds=10", run="ranked")
    assert ranked.status == 0, ranked.err
    result = ranked.json("bench.json")
    assert (result["recordings"], result["segments"]) == (40, 2)
    assert result["microseconds_a_pair"] == pytest.approx(1e6 * result["seconds"] / (40 * 39))
    assert result["map"] > 0.3  # chance is below .2
    assert "all pairs, every metric: recordings 40" in ranked.out
    asked = cli(*words, "job.vectors=4000", "task.reduction=min", "task.transpositions=1", run="asked")
    assert asked.status == 0, asked.err
    result = asked.json("bench.json")
    assert (result["vectors"], result["recordings"]) == (4000, 2000)
    assert result["same"] > 0.8
    assert 0 < result["best_ms"] <= result["faiss_ms"]
    words = ["job=bench", "task=csi", "frontend=cqt_coverhunter", "data=folder_works", f"data.root={corpus}"]
    words.append("job.prepare=true")
    done = cli(*words, run="prepared")
    assert done.status == 0, done.err
    result = done.json("bench.json")
    assert result["recordings"] == 30
    seconds = 3 * 2 * sum(0.6 + 0.25 * i for i in range(5))
    assert result["hours"] == pytest.approx(seconds / 3600, rel=1e-3)
    assert result["real_time"] == pytest.approx(
        seconds / (result["audio_seconds"] + result["feature_seconds"]), rel=1e-3
    )
    assert result["times_as_fast"] == pytest.approx(result["real_time"] / result["published_real_time"])
    assert result["difference_db"] < 0.01  # of what is stored from the way of its authors
    assert [path.name for path in done.folder.iterdir() if path.is_dir() and path.name != ".hydra"] == []
    for word, told in (("job.recordings=0", "at least 1"), ("job.vectors=-1", "at least 1")):
        assert told in cli("job=bench", "task=csi", word, run="bad").err
    assert "task=csi; say so" in cli("job=bench", "job.recordings=9", run="none").err


def test_start_from_another_checkpoint(fit, trained):
    done = fit(f"init={trained.folder / 'checkpoints' / 'best.ckpt'}", "trainer.max_epochs=1", run="second")
    assert done.status == 0, done.err
    refused = fit(f"init={trained.folder / 'checkpoints' / 'best.ckpt'}", "model.dim=24", run="third")
    assert refused.status == 2
    assert "init=" in refused.err


def test_several_sources(cli, corpus, tmp_path):
    from tests.conftest import SMALL

    (tmp_path / "more" / "sine").mkdir(parents=True)
    for i in range(4):
        soundfile.write(tmp_path / "more" / "sine" / f"{i}.wav", tone("sine", 900 + i), RATE)
    extra = f"data.sources=[{{name: folder, root: {tmp_path / 'more'}, split: test}}]"
    done = cli("data=folder", f"data.root={corpus}", extra, *SMALL)
    assert done.status == 0, done.err
    assert (
        done.json("manifest.json")["data"]["tracks"]["test"] == 4
    )  # the second corpus is the test; none is carved out


def test_one_split_of_a_further_source(cli, corpus, tmp_path):
    """`only` takes a split that the other corpus has, so its test tracks stay out of a training set."""
    from tests.conftest import SMALL

    (tmp_path / "more").mkdir()
    lines = ["file,labels,split"]
    for i, split in enumerate(["train", "train", "train", "test"]):
        soundfile.write(tmp_path / "more" / f"{i}.wav", tone("sine", 900 + i), RATE)
        lines.append(f"{i}.wav,sine,{split}")
    (tmp_path / "more" / "list.csv").write_text("\n".join(lines))
    source = f"name: csv, root: {tmp_path / 'more' / 'list.csv'}"
    done = cli("data=folder", f"data.root={corpus}", f"data.sources=[{{{source}, only: train}}]", *SMALL)
    assert done.status == 0, done.err
    table = done.json("manifest.json")["data"]["tracks"]
    alone = cli("data=folder", f"data.root={corpus}", *SMALL, run="alone").json("manifest.json")["data"]["tracks"]
    assert table["train"] == alone["train"] + 3
    assert table["test"] == alone["test"]  # that of the folder, by chance as ever
    refused = cli("data=folder", f"data.root={corpus}", f"data.sources=[{{{source}, only: valid}}]", *SMALL, run="none")
    assert refused.status == 2
    assert "only=valid" in refused.err
    assert "no such split of its own (it has test, train)" in refused.err
