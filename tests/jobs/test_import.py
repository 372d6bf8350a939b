"""job=import: a CoverHunter checkpoint gives the same vectors here, and comes back bit by bit."""

from __future__ import annotations

import pytest
import torch

from tests.test_coverhunter import generator, reference
from tonnetz import coverhunter
from tonnetz.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A small g_ and do_ pair: the generator, the paths, AdamW's state after a step."""
    folder = tmp_path_factory.mktemp("source")
    state = generator(dim=16, depth=2, heads=2, ffn=24)
    parameters = {name: torch.nn.Parameter(state[name].clone()) for name in coverhunter.parameter_names(state)}
    optimizer = torch.optim.AdamW(parameters.values(), lr=7e-4, betas=(0.8, 0.99))
    for name, parameter in parameters.items():
        parameter.grad = None if name in ("_bottleneck.bias", "_center_loss.centers") else torch.randn_like(parameter)
    optimizer.step()
    torch.save({"generator": state}, folder / "g_00000042")
    progress = {"steps": 4200, "epoch": 42, "early_stopping": {"best": 0.5, "count": 3}}
    torch.save({"optim_g": optimizer.state_dict(), **progress}, folder / "do_00000042")
    return folder, state, optimizer.state_dict()


def run(cli, source, *words, run="in"):
    folder = source[0]
    return cli("job=import", "task=csi", f"job.source={folder / 'g_00000042'}", *words, run=run)


@pytest.mark.parametrize("backend", ["cqt_coverhunter", "cqt", "cqt2010v2"])
def test_vectors_are_those_of_the_source(cli, corpus, source, backend):
    done = run(cli, source, f"job.frontend_backend={backend}")
    assert done.status == 0, done.err
    made = done.folder / "checkpoints" / "imported.ckpt"
    pad = load_checkpoint(made)["tonnetz"]["config"]["frontend"].get("pad")
    assert pad == (None if backend == "cqt_coverhunter" else "reflect")
    words = ["data=folder", f"data.root={corpus}", f"ckpt={made}", "job.format=torchscript"]
    out = cli("job=export", *words, run="out")
    assert out.status == 0, out.err
    facts = out.json("encoder.json")
    assert (facts["bins"], facts["sample_rate"], facts["hop"]) == (96, 16000, 1920)
    x = torch.randn(2, 200, 96)
    found = torch.jit.load(out.folder / "encoder.pt")(x.transpose(1, 2)[:, None])
    assert (found - reference(source[1], x)).abs().max() < 1e-5


def test_the_pair_comes_back_exactly(cli, corpus, source):
    folder, state, optimizer = source
    done = run(cli, source, "job.frontend_backend=cqt_coverhunter", f"job.optimizer={folder / 'do_00000042'}")
    assert done.status == 0, done.err
    made = done.folder / "checkpoints" / "imported.ckpt"
    words = ["data=folder", f"data.root={corpus}", f"ckpt={made}", "job.format=coverhunter"]
    out = cli("job=export", *words, run="out")
    assert out.status == 0, out.err
    back = torch.load(out.folder / "g_00000042", weights_only=True)["generator"]
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())
    moments = torch.load(out.folder / "do_00000042", weights_only=True)
    assert (moments["steps"], moments["epoch"], moments["early_stopping"]) == (4200, 42, {"best": 0.5, "count": 3})
    assert moments["optim_g"]["param_groups"] == optimizer["param_groups"]
    assert set(moments["optim_g"]["state"]) == set(optimizer["state"])
    for index, values in optimizer["state"].items():
        assert all(torch.equal(moments["optim_g"]["state"][index][key], value) for key, value in values.items())


def test_mistakes(cli, source, tmp_path):
    for words, text in (
        ([], "job.frontend_backend is missing"),
        (["job.frontend_backend=mel"], "job.frontend_backend=mel"),
        (["job.frontend_backend=cqt", "job.optimizer=absent"], "absent: no such checkpoint"),
    ):
        done = run(cli, source, *words)
        assert (done.status, done.err.count("\n")) == (2, 1), done.err
        assert text in done.err
    (tmp_path / "cut").write_bytes((source[0] / "g_00000042").read_bytes()[:3000])
    done = cli("job=import", "task=csi", f"job.source={tmp_path / 'cut'}", "job.frontend_backend=cqt")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "cannot be read" in done.err or "refused" in done.err
    done = cli("job=import", f"job.source={source[0] / 'g_00000042'}", "job.frontend_backend=cqt")
    assert done.status == 2
    assert "task=csi" in done.err
