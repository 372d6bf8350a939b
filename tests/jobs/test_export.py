"""job=export: the written network computes this framework's vectors, for any length."""

from __future__ import annotations

import json
import sys

import pytest
import torch


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


def test_mistakes(cli, trained, monkeypatch):
    done = cli("job=export", f"ckpt={trained}", "job.format=tflite", run="out")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "job.format=tflite" in done.err
    done = cli("job=export", f"ckpt={trained}", "job.format=torchscript", "job.tolerance=-1.0", run="out")
    assert done.status == 2
    assert "job.tolerance" in done.err
    assert not list(done.folder.glob("encoder*"))
    done = cli("job=export", f"ckpt={trained}", "job.format=coverhunter", run="out")
    assert done.status == 2
    assert "only model=conformer" in done.err
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = cli("job=export", f"ckpt={trained}", "job.format=onnx", run="out")
    assert done.status == 2
    assert "tonnetz[export]" in done.err
