"""Layers that share their statistics over two processes do what one process does with the joint batch."""

import copy

import torch
from torch import nn

from tests.processes import found_by_two
from tonnetz.losses.classifier import Neck
from tonnetz.models.parts import IBN, BatchNorm
from tonnetz.sync import SyncBatchNorm

CASES = """
import torch
from torch import nn
from tonnetz.losses.classifier import Neck
from tonnetz.models.parts import IBN, BatchNorm

def cases():
    g = torch.Generator().manual_seed(3)
    layers = {
        "1d": (nn.BatchNorm1d(5), (4, 5)),
        "frames": (nn.BatchNorm1d(5), (4, 5, 7)),
        "2d": (nn.BatchNorm2d(5), (4, 5, 3, 2)),
        "cumulative": (nn.BatchNorm1d(5, momentum=None), (4, 5)),
        "without affine": (nn.BatchNorm1d(5, affine=False), (4, 5)),
        "untracked": (nn.BatchNorm1d(5, track_running_stats=False), (4, 5)),
        "ours": (BatchNorm(5), (4, 5, 3, 2)),
        "half instance": (IBN(6), (4, 6, 3, 2)),
        "neck": (Neck(5), (4, 5)),
    }
    for name, (layer, shape) in layers.items():
        for p in layer.parameters():
            p.data = torch.randn(p.shape, generator=g)
        yield name, layer, 2 * torch.randn(2, *shape, generator=g) + 3, torch.randn(shape, generator=g)

def step(layer, x, weight):
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * weight).mean().backward()
    found = {"y": y.detach(), "x": x.grad, **layer.state_dict()}
    return found | {f"grad {name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
"""
TWO = (
    CASES
    + """
from tonnetz.sync import SyncBatchNorm

def found(rank):
    out, half = {}, slice(2 * rank, 2 * rank + 2)
    for name, layer, x, weight in cases():
        model = SyncBatchNorm().apply(nn.Sequential(layer))
        for part in x:  # two steps
            out[name] = step(model, part[half], weight[half])
    return out
"""
)


def test_two_processes_equal_one(tmp_path):
    found = found_by_two(TWO, tmp_path)
    names: dict = {}
    exec(CASES, names)
    for name, layer, x, weight in names["cases"]():
        model = nn.Sequential(layer)
        for part in x:
            one = names["step"](model, part, weight)
        two = [each[name] for each in found]
        assert two[0].keys() == one.keys(), name
        for key in ("y", "x"):  # the loss of one is the mean of the losses of two, so their gradients are doubled
            joined = torch.cat([each.pop(key) for each in two]) / (1 if key == "y" else 2)
            torch.testing.assert_close(joined, one.pop(key), msg=f"{name} {key}")
        for key, value in one.items():
            mean = torch.stack([each[key].double() for each in two]).mean(0)  # of gradients as DDP takes it
            torch.testing.assert_close(mean, value.double(), rtol=1e-5, atol=1e-5, msg=f"{name} {key}")


def test_alone_and_reverted_they_are_what_they_were():
    """A layer with a signature of its own keeps it; the state dict keeps its names."""
    model = nn.ModuleList([BatchNorm(4), IBN(4), Neck(4), nn.BatchNorm1d(4), nn.Linear(4, 4)])
    kinds, names = [type(module) for module in model.modules()], list(model.state_dict())
    twin = copy.deepcopy(model)
    x, keep = torch.randn(2, 4, 3, 5), torch.ones(2, 1, 1, 5)
    SyncBatchNorm().apply(model)
    assert [type(module) for module in model.modules()] != kinds
    for layer, same in zip(model[:2], twin[:2], strict=True):
        assert torch.equal(layer(x, keep), same(x, keep))
    assert torch.equal(model[2].eval()(x[..., 0, 0]), twin[2].eval()(x[..., 0, 0]))
    SyncBatchNorm().revert(model)
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.state_dict()) == names


def test_on_gpus_they_are_those_of_pytorch():
    model = nn.ModuleList([BatchNorm(4), nn.BatchNorm1d(4)]).to("meta")  # any device but the processor
    SyncBatchNorm().apply(model)
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in model)
    assert type(model[0]).__mro__.index(BatchNorm) < type(model[0]).__mro__.index(nn.SyncBatchNorm)
    assert model[0].train()(torch.empty(2, 4, 3, 5, device="meta"), None).shape == (2, 4, 3, 5)
