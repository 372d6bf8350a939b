"""job=export: the written network computes this framework's vectors or scores, for any length."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.conftest import SMALL
from tonnetz.build import restore
from tonnetz.paths import config_folder


@pytest.fixture
def trained(fit):
    """A checkpoint of the tiny classifier."""
    done = fit("trainer.max_epochs=1", "job.test=false")
    assert done.status == 0, done.err
    return done.folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("source", ["features", "audio"])
def test_torchscript(cli, trained, source):
    done = cli("job=export", f"ckpt={trained}", "job.format=torchscript", f"job.input={source}", run="out")
    assert done.status == 0, done.err
    facts = done.json("encoder.json")
    assert facts["difference"] < 1e-4
    network = torch.jit.load(done.folder / "encoder.pt")
    shape = (1, *facts["shape"][1:-1], 16000 if source == "audio" else 77)
    assert list(network(torch.randn(shape)).shape) == [1, facts["vector"][1]]
    assert "checked" in done.out


def test_onnx(cli, trained):
    import onnxruntime

    done = cli("job=export", f"ckpt={trained}", "job.format=onnx", run="out")
    assert done.status == 0, done.err
    facts = done.json("encoder.json")
    session = onnxruntime.InferenceSession(done.folder / "encoder.onnx")
    assert [item.name for item in session.get_inputs()] == ["features"]
    x = torch.randn(2, 1, facts["bins"], 91)
    found = session.run(None, {"features": x.numpy()})[0]
    script = cli("job=export", f"ckpt={trained}", "job.format=torchscript", run="script")
    expected = torch.jit.load(script.folder / "encoder.pt")(x)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
    assert json.loads((done.folder / "manifest.json").read_text())["status"] == "completed"


def own_scores(ckpt, x, key):
    """Probabilities of a batch as the restored task gives them."""
    content = torch.load(ckpt, weights_only=True)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("main", [f"ckpt={ckpt}"])
    experiment, _ = restore(cfg, [])
    assert list(experiment.task.spec.classes) == content["tonnetz"]["spec"]["classes"]
    batch = {key: x, "lengths": torch.full((len(x),), x.shape[-1]), "row": torch.arange(len(x))}
    with torch.no_grad():
        return experiment.task.eval().probabilities(experiment.task(batch))


@pytest.mark.parametrize(("format", "source"), [("onnx", "features"), ("torchscript", "audio")])
def test_scores_are_those_of_the_task(cli, trained, format, source):
    words = [f"job.format={format}", f"job.input={source}", "job.output=scores"]
    done = cli("job=export", f"ckpt={trained}", *words, run="out")
    assert done.status == 0, done.err
    facts = done.json("classifier.json")
    assert facts["scores"] == ["batch", 3]
    assert facts["classes"] == ["buzz", "noise", "sine"]
    assert (facts["activation"], facts["thresholds"], facts["window_seconds"]) == ("softmax", None, 0.5)
    assert not list(done.folder.glob("encoder*"))
    x = torch.randn(2, *facts["shape"][1:-1], 9000 if source == "audio" else 71)
    found = read(done.folder / f"classifier.{'onnx' if format == 'onnx' else 'pt'}", x, source)
    torch.testing.assert_close(found, own_scores(trained, x, source), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def read(file, x, source):
    """What a reader of the exported file makes of x."""
    if file.suffix == ".pt":
        with torch.no_grad():
            return torch.jit.load(file)(x)
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    assert [item.name for item in session.get_outputs()] == ["scores"]
    return torch.from_numpy(session.run(None, {source: x.numpy()})[0])


def test_scores_of_a_linear_evaluation_with_many_labels(cli, fit, corpus):
    """A contrastive encoder, frozen, and a linear layer on it: CLMR's evaluation, with sigmoids and thresholds."""
    words = [word for word in SMALL if not word.startswith("augment")]
    short = ["trainer.max_epochs=1", "job.test=false", "augment=light", "frontend=logmel", "task.bank=0"]
    first = cli("task=contrastive", "data=folder", f"data.root={corpus}", *words, *short, run="pretrained")
    assert first.status == 0, first.err
    start = [f"init={first.folder / 'checkpoints' / 'last.ckpt'}", "task.frozen=true", "data.multilabel=true"]
    done = fit(*start, "trainer.max_epochs=1", "job.test=false", run="linear")
    assert done.status == 0, done.err
    ckpt = done.folder / "checkpoints" / "last.ckpt"
    out = cli("job=export", f"ckpt={ckpt}", "job.format=torchscript", "job.output=scores", run="out")
    assert out.status == 0, out.err
    facts = out.json("classifier.json")
    assert facts["activation"] == "sigmoid"
    state = torch.load(ckpt, weights_only=True)["state_dict"]
    assert facts["thresholds"] == pytest.approx(state["thresholds"].tolist())
    x = torch.randn(2, *facts["shape"][1:-1], 71)
    found = read(out.folder / "classifier.pt", x, "features")
    torch.testing.assert_close(found, own_scores(ckpt, x, "features"), rtol=1e-4, atol=1e-5)
    refused = cli("job=export", f"ckpt={first.folder / 'checkpoints' / 'last.ckpt'}", "job.output=scores", run="none")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "job.output=scores: Contrastive has no head for classes" in refused.err


def test_mistakes(cli, trained, monkeypatch):
    done = cli("job=export", f"ckpt={trained}", "job.format=tflite", run="out")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "job.format=tflite" in done.err
    done = cli("job=export", f"ckpt={trained}", "job.format=torchscript", "job.tolerance=-1.0", run="out")
    assert done.status == 2
    assert "job.tolerance" in done.err
    assert not list(done.folder.glob("encoder*"))
    done = cli("job=export", f"ckpt={trained}", "job.format=clmr", "job.output=scores", run="out")
    assert done.status == 2
    assert "job.output=scores: needs job.format=onnx or torchscript" in done.err
    done = cli("job=export", f"ckpt={trained}", "job.format=coverhunter", run="out")
    assert done.status == 2
    assert "only model=conformer" in done.err
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = cli("job=export", f"ckpt={trained}", "job.format=onnx", run="out")
    assert done.status == 2
    assert "tonnetz[export]" in done.err
