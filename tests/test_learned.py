"""What a checkpoint has learned from: marks of sound, permission to learn from test tracks, and who is told."""

from __future__ import annotations

import shutil
from collections import defaultdict

import polars as pl
import pytest
import soundfile
import torch

from tests.conftest import RATE, SMALL, tone
from tonnetz.checkpoint import load_checkpoint
from tonnetz.datasets.gtzan import Gtzan
from tonnetz.learned import opened, seen, sound_marks

PRETRAIN = [*SMALL, "task=contrastive", "frontend=logmel", "model=tiny", "augment=none", "data.batch_size=4"]
PRETRAIN += ["trainer.max_epochs=1", "task.plan.steps=1", "task.plan.seconds=0.5"]
PROBE = ["job=probe", "job.preset=fast", "job.axes.hidden=[[]]", "job.protocol.max_steps=32", "job.draws=0"]
PROBE += ["job.seeds=1", "job.baselines=[random,constant]"]


@pytest.fixture(scope="module")
def gtzan(tmp_path_factory):
    """Clips of three genres of the published lists, as short sounds: four to train, two to validate, two to test."""
    root = tmp_path_factory.mktemp("gtzan")
    kinds = {"blues": "buzz", "metal": "noise", "pop": "sine"}
    named = defaultdict(list)
    for row in Gtzan(root).listed():
        named[row["labels"][0], row["split"]].append(row["id"])
    for number, (genre, kind) in enumerate(kinds.items()):
        for split, count in (("train", 4), ("valid", 2), ("test", 2)):
            for i, name in enumerate(named[genre, split][:count]):
                path = root / "genres" / genre / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, tone(kind, 1000 * number + 10 * i + ord(split[1]), 0.7), RATE)
    return root


def test_marks_are_of_sound_and_not_of_names(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        soundfile.write(tmp_path / f"{name}.wav", tone("noise", seed), RATE)
    frame = pl.DataFrame({"audio": [str(tmp_path / f"{name}.wav") for name in "abca"]})
    a, b, c, again = sound_marks(frame).tolist()
    assert a == c == again != b
    assert seen(frame, {"recordings": torch.tensor([a])}) == 3


def test_corpora_with_tracks_to_test_are_noticed(gtzan):
    assert opened([Gtzan(gtzan)]) == []
    whole = Gtzan(gtzan, split="train")
    assert opened([whole]) == ["gtzan"]
    whole.only = "train"
    assert opened([whole]) == []
    whole.only = "test"
    assert opened([whole]) == ["gtzan"]
    assert opened([Gtzan(gtzan, split="train", lists=None)]) == []  # names no splits


def test_pretraining_keeps_to_training_tracks(cli, gtzan):
    data = ["data=gtzan", f"data.root={gtzan}"]
    done = cli(*data, *PRETRAIN, run="honest")
    assert done.status == 0, done.err
    assert done.json("metrics.json")["transductive"] is False
    checkpoint = done.folder / "checkpoints/last.ckpt"
    known = load_checkpoint(checkpoint)["tonnetz"]["learned"]
    assert len(known["recordings"]) == 12
    (stage,) = known["stages"]
    assert (stage["task"], stage["split"], stage["tracks"], stage["opened"]) == ("contrastive", "train", 12, [])
    assert stage["corpora"] == [{"name": "gtzan", "split": None}]
    probed = cli(*PROBE, f"ckpt={checkpoint}", run="probed")
    assert probed.status == 0, probed.err
    result = probed.json("probe.json")
    assert result["transductive"] is False
    assert result["pretraining"]["seen"] == {"train": 12, "valid": 0, "test": 0}
    assert "ransductive" not in probed.out + (probed.folder / "probe.md").read_text()


def test_who_has_learned_from_test_tracks_is_marked(cli, gtzan, tmp_path):
    data = ["data=gtzan", f"data.root={gtzan}", "data.corpus.split=train"]
    refused = cli(*data, *PRETRAIN, run="refused")
    assert refused.status == 2
    assert "gtzan names tracks to validate or test" in refused.err
    assert "task.allow_transductive=true" in refused.err
    done = cli(*data, *PRETRAIN, "task.allow_transductive=true", run="all")
    assert done.status == 0, done.err
    assert done.json("metrics.json")["transductive"] is True
    first = done.folder / "checkpoints/last.ckpt"
    copies = tmp_path / "copies"  # other names, another folder, no lists
    shutil.copytree(gtzan / "genres", copies)
    for i, path in enumerate(sorted(copies.rglob("*.wav"))):
        path.rename(path.with_name(f"{i}.wav"))
    honest = ["data=folder", f"data.root={copies}", "data.valid=0.25", "data.test=0.25", "frontend=logmel", *SMALL]
    tuned = cli(*honest, f"init={first}", "trainer.max_epochs=1", "task.plan.steps=1", run="tuned")
    assert tuned.status == 0, tuned.err
    second = tuned.folder / "checkpoints/last.ckpt"
    stages = load_checkpoint(second)["tonnetz"]["learned"]["stages"]
    assert [stage["task"] for stage in stages] == ["contrastive", "classification"]
    for name, checkpoint, words in (("first", first, ["data=gtzan", f"data.root={gtzan}"]), ("second", second, [])):
        probed = cli(*PROBE, f"ckpt={checkpoint}", *words, run=f"probe-{name}")
        assert probed.status == 0, probed.err
        result = probed.json("probe.json")
        assert result["transductive"] is True
        assert result["pretraining"]["seen"]["test"] == result["split"]["test"] == 6
        assert [row.get("transductive") for row in result["rows"]] == [6, None, None]  # model, random, constant
        assert "TRANSDUCTIVE" in (probed.folder / "probe.md").read_text()
        assert "has learned from 6 of 6 test tracks" in probed.out
        report = cli("job=report", f"job.runs=[{probed.folder}]", run=f"report-{name}")
        assert report.status == 0, report.err
        assert "TRANSDUCTIVE" in (report.folder / "report.md").read_text()
