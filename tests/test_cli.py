"""The command line: answers at once, one line for a mistake, exit status 2."""

import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import RATE, ROOT, SMALL, tone


def one_line(result, *words):
    assert result.status == 2, result.err
    assert result.err.startswith("error: "), result.err
    assert result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trainer.max_epoch=1"], ["trainer.max_epoch", "'max_epochs'"]),
        (["model=cnnn"], ["model=cnnn", "'cnn'"]),
        (["modell=cnn"], ["modell", "'model'"]),
        (["job=trian"], ["job=trian"]),
        (["-m", "hydra/sweeper=absent", "seed=1,2"], ["hydra/sweeper=absent", "tonnetz[sweep]"]),
        (["trainer.max_epochs=1.5"], ["a whole number"]),
        (["seed=-1"], ["seed=-1"]),
        (["data.workers=-1"], ["data.workers=-1"]),
        (["optimizer.lr=-1"], ["optimizer", "learning rate"]),
        (
            ["task.plan.source=features", "augment=mixup", "model=tiny"],
            ["mixup", "augment=specaugment", "task.plan.source=audio task.plan.stretch=null"],
        ),
        (
            ["job=test", "ckpt=a.ckpt", "task.reduction=min"],
            ["task.reduction", "another task needs its name: task=csi"],
        ),
        (
            ["job=test", "ckpt=a.ckpt", "task.evaluation.episodes=50"],
            ["task.evaluation.episodes: task=classification has no such key", "needs its name: task=fewshot"],
        ),
        (["job=test", "ckpt=a.ckpt", "task.reductoin=min"], ["task.reductoin", "+task."]),
        (["loss=nosuch"], ["loss=nosuch", "known: alignment_uniformity, arcface", "prototypes"]),
        (["job=test", "ckpt=a.ckpt", "task=csi", "task.reductoin=min"], ["task.reductoin", "'reduction'", "+task."]),
        (["data.sets={x: {source: 'folder:/x'}}"], ["data.sets:", "+data.sets.NAME={...}"]),
        (["warm=all"], ["warm=all", "init="]),
        (["warm=some", "init=a.ckpt"], ["warm=some", "weights, all"]),
        (["experiment=csi_fine"], ["init is missing", "init=outputs/RUN"]),
        (["experiment=csi_fine", "init=a.ckpt"], ["task.plan.alignment is missing", "job=align"]),
        (["seed=???"], ["seed is missing", "seed=VALUE"]),
        (["experiment=none_such"], ["experiment=none_such", "philharmonia"]),
        (["optimizer.lr=high"], ["optimizer.lr=high", "a number"]),
        (["data.normalize=3"], ["data.normalize=3", "true or false"]),
        (["data=folder"], ["data.root is missing"]),
        (["data=folder", "data.root=/nowhere"], ["/nowhere", "no such"]),
        (["data.sources=[philharmoni:/x]"], ["philharmoni", "'philharmonia'"]),
        (["data.sources=[nocolon]"], ["nocolon", "NAME:FOLDER"]),
        (["data.on_error=maybe"], ["data.on_error=maybe"]),
        (["task.aggregate=sum"], ["task.aggregate=sum"]),
        (["task.plan.seconds=-1"], ["task.plan.seconds"]),
        (["frontend=raw", "model=cnn"], ["needs a front-end", "model=tiny"]),
        (["job=test"], ["ckpt is missing"]),
        (["job=test", "ckpt=nowhere.ckpt"], ["nowhere.ckpt", "no such checkpoint"]),
        (["job=predict", "ckpt=nowhere.ckpt"], ["job.inputs is missing"]),
        (["job=predict", "ckpt=nowhere.ckpt", "job.inputs=[/nowhere]"], ["/nowhere", "no such"]),
        (["job.inputs=[a"], ["job.inputs=[a"]),
        (["job=predict", "job.inputs=my, tape.wav"], ["one value or several", """'job.inputs="my, tape.wav"'"""]),
        (["job=predict", "job.inputs=[a,b (1).wav]"], ["cannot be read", """'job.inputs=["A","B"]'"""]),
        (["job=predict", "job.inputs=Miller's.wav"], ["quote", '''"job.inputs=\\"Miller's.wav\\""''']),
        (["nonsense"], ["nonsense: cannot be read; write KEY=VALUE"]),
    ],
)
def test_mistakes(cli, corpus, words, told):
    base = [] if any(word.startswith("data") for word in words) else ["data=folder", f"data.root={corpus}"]
    one_line(cli(*base, *words), *told)


@pytest.mark.parametrize("words", [["--help"], ["trainer.max_epoch=1"], ["model=nothing"], ["--cfg", "job"]])
def test_answers_without_importing_torch(words):
    code = f"import sys; sys.argv = ['tonnetz', *{words!r}]; import runpy\n"
    code += "try:\n    runpy.run_module('tonnetz.cli', run_name='__main__')\nexcept SystemExit: pass\n"
    code += (
        "heavy = {'torch', 'lightning', 'polars', 'librosa', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 10  # about 0.6 s; the assertion above is what keeps it so


def bad_audio(kind, path):
    good = tone("sine", 1)
    if kind == "corrupt":
        path.with_suffix(".mp3").write_bytes(b"this is no audio" * 50)
        return "cannot be decoded"
    if kind == "corrupt wav":
        path.write_bytes(b"RIFF but no wave" * 50)
        return "cannot be decoded"
    if kind == "empty":
        path.write_bytes(b"")
        return "empty"
    if kind == "nan":
        good[100] = np.nan
        soundfile.write(path, good, RATE, subtype="FLOAT")
        return "NaN"
    soundfile.write(path, 0 * good, RATE)
    return "silent"


@pytest.mark.parametrize("kind", ["corrupt", "corrupt wav", "empty", "nan", "silent"])
def test_bad_audio_is_named_or_skipped(cli, tmp_path, kind):
    root = tmp_path / "sounds"
    for name in ("sine", "noise"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            soundfile.write(root / name / f"{i}.wav", tone(name, i), RATE)
    told = bad_audio(kind, root / "sine" / "bad.wav")
    words = ["data=folder", f"data.root={root}", "job=prepare"]
    one_line(cli(*words), "bad.", told, "data.on_error=skip")
    skipped = cli(*words, "data.on_error=skip")
    assert skipped.status == 0
    assert "left out 1 of 13 files" in skipped.out


def test_empty_folder(cli, tmp_path):
    (tmp_path / "sounds").mkdir()
    one_line(cli("data=folder", f"data.root={tmp_path / 'sounds'}"), "no audio files")


def test_label_outside_the_taxonomy(cli, tmp_path):
    for name in ("flutte", "oboe"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "sounds" / name / "a.wav", tone("sine", 1), RATE)
    result = cli("data=folder", f"data.root={tmp_path / 'sounds'}", "data.taxonomy=hornbostel_sachs", "job=prepare")
    one_line(result, "flutte", "did you mean 'flute'")


def test_class_without_training_file(cli, tmp_path):
    for split, name in (("train", "sine"), ("valid", "sine"), ("test", "noise")):
        (tmp_path / "sounds" / split / name).mkdir(parents=True)
        soundfile.write(tmp_path / "sounds" / split / name / "a.wav", tone(name, 1), RATE)
    result = cli("data=folder", f"data.root={tmp_path / 'sounds'}", *SMALL)
    one_line(result, "class 'noise' has no training file")


def test_file_in_two_splits(cli, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone("sine", 1), RATE)
    soundfile.write(tmp_path / "b.wav", tone("noise", 1), RATE)
    rows = "file,label,split,offset,duration\na.wav,sine,train,0,0.5\na.wav,sine,test,0.5,0.5\nb.wav,noise,train,,\n"
    (tmp_path / "list.csv").write_text(rows)
    one_line(cli("data=csv", f"data.root={tmp_path / 'list.csv'}", *SMALL), "a.wav", "splits test and train")


class Harmful:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_checkpoint_with_code_is_refused(cli, tmp_path):
    torch.save({"state_dict": {}, "tonnetz": Harmful(tmp_path / "owned")}, tmp_path / "evil.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Harmful(tmp_path / "owned")))
    for name in ("evil", "bare"):
        one_line(cli("job=test", f"ckpt={tmp_path / name}.ckpt"), f"{name}.ckpt")
    assert not (tmp_path / "owned").exists()


def test_foreign_checkpoint(cli, tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "foreign.ckpt")
    one_line(cli("job=test", f"ckpt={tmp_path / 'foreign.ckpt'}"), "does not describe itself")


@pytest.fixture
def trained(fit):
    done = fit("job.test=false")
    assert done.status == 0, done.err
    return done.folder / "checkpoints" / "best.ckpt"


def test_checkpoint_naming_a_foreign_class(cli, trained, tmp_path):
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["tonnetz"]["config"]["model"]["_target_"] = "os.system"
    torch.save(checkpoint, tmp_path / "sly.ckpt")
    one_line(cli("job=test", f"ckpt={tmp_path / 'sly.ckpt'}"), "foreign class os.system")


@pytest.mark.parametrize("word", ["frontend.sample_rate=22050", "model=cnn", "frontend=mfcc", "loss=bce"])
def test_what_weights_depend_on_cannot_be_overridden(cli, trained, word):
    one_line(cli("job=test", f"ckpt={trained}", word), word.partition("=")[0], "stored in the checkpoint")


def test_data_with_unknown_label(cli, trained, tmp_path):
    for name in ("sine", "violin"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(8):
            soundfile.write(tmp_path / "sounds" / name / f"{i}.wav", tone("sine", i), RATE)
    result = cli("job=test", f"ckpt={trained}", "data=folder", f"data.root={tmp_path / 'sounds'}")
    one_line(result, "label 'violin'")


def test_prepared_data_of_another_rate(cli, fit, trained, corpus, tmp_path):
    cli(
        "job=prepare",
        "data=folder",
        f"data.root={corpus}",
        "frontend.sample_rate=8000",
        f"paths.data={tmp_path}/other",
    )
    (home,) = (
        (tmp_path / "other").glob("folder-*") if (tmp_path / "other").exists() else (tmp_path / "data").glob("folder-*")
    )
    result = cli("job=test", f"ckpt={trained}", "data=prepared", f"data.root={home}")
    one_line(result, "8000 Hz", "16000 Hz")


def test_run_resumed_with_other_classes(cli, fit, trained, tmp_path):
    for name in ("violin", "cello", "flute"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(8):
            soundfile.write(tmp_path / "sounds" / name / f"{i}.wav", tone("sine", i), RATE)
    result = fit(f"data.root={tmp_path / 'sounds'}")  # the name of the run that `trained` made
    one_line(result, "buzz, noise, sine", "cello, flute, violin")


def test_one_class_is_none(cli, tmp_path):
    (tmp_path / "sounds" / "sine").mkdir(parents=True)
    for i in range(8):
        soundfile.write(tmp_path / "sounds" / "sine" / f"{i}.wav", tone("sine", i), RATE)
    one_line(cli("data=folder", f"data.root={tmp_path / 'sounds'}", *SMALL), "at least two classes")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary\x00", b"title\nsong\n"])
def test_bad_list_of_inputs(cli, trained, tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    one_line(cli("job=predict", f"ckpt={trained}", f"job.inputs=[{tmp_path / 'list.csv'}]"), "list.csv")


def test_flags_may_stand_anywhere(cli, corpus):
    result = cli("data=folder", f"data.root={corpus}", *SMALL, "trainer.max_epochs=1", "-m", "seed=1,2", run="flags")
    assert result.status == 0, result.err
    assert (result.folder / "sweep.csv").exists()


def test_devices_may_be_named(cli, corpus):
    words = ["data=folder", f"data.root={corpus}", *SMALL, "trainer.max_epochs=1", "trainer.devices=auto"]
    assert cli(*words).status == 0
