"""job=import: checkpoints of CLMR and TUNe give the same vectors here and start other tasks."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL
from tests.test_clmr import samplecnn, samplecnn_layers, tune, tune_layers, wrapped
from tonnetz.datasets.magnatagatune import TAGS

SOURCES = {
    "samplecnn": (lambda: samplecnn((4, 6, 8)), lambda state, x: [*samplecnn_layers(state, x)][-1]),
    "tune": (
        lambda: tune(tail=(6, 12, 24, 8), skips=True),
        lambda state, x: [*tune_layers(state, x, tail=4, skips=True)][-1],
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_vectors_are_those_of_the_source(cli, corpus, tmp_path, name):
    torch.manual_seed(0)
    make, reference = SOURCES[name]
    state, path = make(), tmp_path / "clmr.ckpt"
    torch.save({"state_dict": wrapped(state, "lightning"), "pytorch-lightning_version": "1.8.0"}, path)
    done = cli("job=import", "task=contrastive", f"job.source={path}", run="in")
    assert done.status == 0, done.err
    assert f"model={name}" in done.out
    assert "fc.weight" in done.out
    made = done.folder / "checkpoints" / "imported.ckpt"
    content = torch.load(made, weights_only=True)
    assert content["tonnetz"]["config"]["frontend"]["sample_rate"] == 22050
    assert content["tonnetz"]["config"]["data"]["normalize"] is False
    projector = {key: value.shape for key, value in content["state_dict"].items() if key.startswith("projection.")}
    assert projector == {"projection.0.weight": (8, 8), "projection.2.weight": (5, 8)}
    data = ["data=folder", f"data.root={corpus}"]
    out = cli("job=export", *data, f"ckpt={made}", "job.format=torchscript", "job.input=audio", run="out")
    assert out.status == 0, out.err
    x = torch.randn(2, 1, 59049)
    with torch.no_grad():
        found = torch.jit.load(out.folder / "encoder.pt")(x)
        torch.testing.assert_close(found, reference(state, x).mean(2), rtol=1e-3, atol=1e-5)
    words = ["frontend=raw", "frontend.sample_rate=22050", "pooling=mean", "augment=none", "trainer=cpu"]
    sizes = content["tonnetz"]["config"]["model"]
    model = [f"model={name}", *(f"model.{key}={value}" for key, value in sizes.items() if key != "_target_")]
    short = ["trainer.max_epochs=1", "task.plan.steps=1", "task.plan.seconds=0.5", "data.workers=0", "job.test=false"]
    begun = cli(*data, *words, *model, *short, f"init={made}", "job.baseline=false", "job.figures=false", run="fine")
    assert begun.status == 0, begun.err


RAW = ["frontend=raw", "task.plan.seconds=0.2", "task.bank=0", "trainer.max_epochs=1", "job.test=false"]
NETWORKS = {
    "samplecnn": ["model=samplecnn", "model.widths=[4,6,8]"],
    "tune": ["model=tune_plus", "model.width=2", "model.tail=[4,8,16,32,8]"],
    "tune_hybrid": ["model=tune_hybrid", "model.width=2", "model.widths=[4,8]"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_trained_here_comes_back_from_that_layout(cli, corpus, name):
    small = [word for word in SMALL if not word.startswith(("model", "task.plan.seconds", "trainer.max_epochs"))]
    made = cli("task=contrastive", "data=folder", f"data.root={corpus}", *small, *RAW, *NETWORKS[name], run="made")
    assert made.status == 0, made.err
    first = made.folder / "checkpoints" / "last.ckpt"
    out = cli("job=export", f"ckpt={first}", "job.format=clmr", run="out")
    assert out.status == 0, out.err
    assert "left out" not in out.out
    state = torch.load(out.folder / "clmr.pt", weights_only=True)
    assert {key.split(".")[0] for key in state} == {"encoder", "projector"}
    back = cli("job=import", "task=contrastive", f"job.source={out.folder / 'clmr.pt'}", "job.sample_rate=16000")
    assert back.status == 0, back.err
    second = back.folder / "checkpoints" / "imported.ckpt"
    x = torch.randn(2, 1, 16000)
    vectors = [vectors_of(cli, ckpt, x, run) for ckpt, run in ((first, "one"), (second, "two"))]
    assert torch.equal(*vectors)
    assert vectors[0].std() > 1e-3
    kinds = [torch.load(ckpt, weights_only=True)["state_dict"] for ckpt in (first, second)]
    assert all(torch.equal(kinds[0][key], kinds[1][key]) for key in kinds[0] if key.startswith("projection."))


def vectors_of(cli, ckpt, x, run):
    """What the network of a checkpoint makes of audio (B, 1, N)."""
    words = ["job=export", f"ckpt={ckpt}", "job.format=torchscript", "job.input=audio"]
    done = cli(*words, run=run)
    assert done.status == 0, done.err
    with torch.no_grad():
        return torch.jit.load(done.folder / "encoder.pt")(x)


def test_an_imported_file_is_written_back_whole(cli, tmp_path):
    state = wrapped(samplecnn((4, 8)), "raw")
    torch.save(state, tmp_path / "clmr.pt")
    done = cli("job=import", "task=contrastive", f"job.source={tmp_path / 'clmr.pt'}")
    assert done.status == 0, done.err
    out = cli("job=export", f"ckpt={done.folder / 'checkpoints' / 'imported.ckpt'}", "job.format=clmr", run="out")
    assert out.status == 0, out.err
    written = torch.load(out.folder / "clmr.pt", weights_only=True)
    assert written.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in written.items())


def test_a_classifier_is_written_as_theirs(cli, fit):
    raw = ["frontend=raw", "model=samplecnn", "model.widths=[4,6,8]", "trainer.max_epochs=1", "job.test=false"]
    done = fit(*raw, run="mean")
    assert done.status == 0, done.err
    out = cli("job=export", f"ckpt={done.folder / 'checkpoints' / 'last.ckpt'}", "job.format=clmr", run="out")
    assert out.status == 0, out.err
    state = torch.load(out.folder / "clmr.pt", weights_only=True)
    assert state["encoder.fc.weight"].shape == (3, 8)
    done = fit(*raw, "pooling=attention", run="attention")
    out = cli("job=export", f"ckpt={done.folder / 'checkpoints' / 'last.ckpt'}", "job.format=clmr", run="out2")
    assert out.status == 0, out.err
    assert "left out, for that layout has no place for it: pooling, head" in out.out
    assert "encoder.fc.weight" not in torch.load(out.folder / "clmr.pt", weights_only=True)
    done = fit("trainer.max_epochs=1", "job.test=false", run="tiny")
    out = cli("job=export", f"ckpt={done.folder / 'checkpoints' / 'last.ckpt'}", "job.format=clmr", run="out3")
    assert (out.status, out.err.count("\n")) == (2, 1)
    assert "only model=samplecnn, tune, tune_hybrid" in out.err
    assert not list(out.folder.glob("*.pt"))


def test_a_bare_encoder_has_no_projector(cli, tmp_path):
    torch.save(samplecnn((4, 8)), tmp_path / "clmr.pt")
    done = cli("job=import", "task=contrastive", f"job.source={tmp_path / 'clmr.pt'}", "job.sample_rate=16000")
    assert done.status == 0, done.err
    content = torch.load(done.folder / "checkpoints" / "imported.ckpt", weights_only=True)
    assert not any(key.startswith("projection.") for key in content["state_dict"])
    assert content["tonnetz"]["config"]["task"]["plan"]["seconds"] == 59049 / 16000


def test_mistakes(cli, tmp_path):
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "other.pt")
    for words, text in (
        (["task=contrastive"], "job.source is missing"),
        (["task=contrastive", "job.source=absent"], "absent: no such checkpoint"),
        (["task=contrastive", f"job.source={tmp_path / 'other.pt'}"], "not of CLMR or TUNe"),
        (["task=classification", f"job.source={tmp_path / 'other.pt'}"], "task=contrastive"),
    ):
        done = cli("job=import", *words)
        assert (done.status, done.err.count("\n")) == (2, 1), done.err
        assert text in done.err


@pytest.mark.parametrize("form", ["supervised", "linear", "mlp", "apart"])
def test_a_classifier_comes_along(cli, corpus, tmp_path, form):
    """Of supervised training (encoder.fc), or of linear evaluation (model.0), in the same file or in another one."""
    torch.manual_seed(3)
    widths, tags = (4, 6, 8, 8, 8, 8, 8, 8, 12), form == "supervised"
    encoder = {f"encoder.{name}": value for name, value in samplecnn(widths).items()}
    sizes = [12, 5, 3] if form == "mlp" else [12, 50 if tags else 3]
    names = ["encoder.fc"] if tags else ["model.0", "model.2"]
    layers = [(torch.randn(b, a), torch.randn(b)) for a, b in itertools.pairwise(sizes)]
    head = {}
    for name, (weight, bias) in zip(names, layers, strict=False):
        head |= {f"{name}.weight": weight, f"{name}.bias": bias}
    parts = (encoder, head) if form == "apart" else (encoder | head, {})
    for name, state in zip(("encoder", "head"), parts, strict=True):
        torch.save({"state_dict": state}, tmp_path / f"{name}.ckpt")
    words = ["job=import", "task=classification", f"job.source={tmp_path / 'encoder.ckpt'}", "job.sample_rate=8000"]
    words += [f"job.head={tmp_path / 'head.ckpt'}"] if form == "apart" else []
    words += [] if tags else ["job.classes=[low,middle,high]"]
    done = cli(*words, "model=samplecnn", run="in")
    assert done.status == 0, done.err
    ckpt = f"ckpt={done.folder / 'checkpoints/imported.ckpt'}"
    file = corpus / "sine" / "4.wav"
    said = cli("job=predict", ckpt, f"job.inputs={file}", "trainer=cpu", run="said")
    assert said.status == 0, said.err
    vector = cli("job=embed", ckpt, f"job.inputs={file}", "trainer=cpu", run="vector")
    h = load_file(vector.folder / "embeddings.safetensors")["vectors"][0]
    for weight, bias in layers:
        h = weight @ h + bias
        h = h.relu() if len(h) == 5 else h
    expected = h.sigmoid() if tags else h.softmax(0)
    line = json.loads((said.folder / "predictions.jsonl").read_text())
    found = line["probabilities"]
    assert set(found) == (set(TAGS) if tags else {"low", "middle", "high"})
    order = TAGS if tags else ("low", "middle", "high")
    assert [found[name] for name in order] == pytest.approx(expected.tolist(), abs=1e-5)
    wrong = cli(*words[:4], *words[4:5], "job.classes=[a,b]", run="wrong")
    assert wrong.status == 2
    bare = cli("job=import", "task=classification", f"job.source={tmp_path / 'encoder.ckpt'}", run="bare")
    assert bare.status == (2 if form == "apart" else 0), bare.err
