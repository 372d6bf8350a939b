"""timm networks: layouts, image sizes, and loading of weights from files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tonnetz.errors import UserError
from tonnetz.models import Timm, length_mask

STRIDES = {
    "resnet18": 32,  # (B, D, H, W)
    "convnext_tiny": 32,
    "mobilenetv3_large_100": 32,  # its last convolution belongs to the classifier
    "efficientnet_b0": 32,
    "swin_tiny_patch4_window7_224": 32,  # (B, H, W, D)
    "vit_tiny_patch16_224": 16,  # tokens
}


@pytest.mark.parametrize("name", STRIDES)
def test_networks(name: str) -> None:
    torch.manual_seed(0)
    network = Timm(channels=1, bins=40, name=name)
    assert network.stride == STRIDES[name]
    assert network.training
    assert network.network.training
    lengths = torch.tensor([70, 33])
    x, mask = torch.randn(2, 1, 40, 70), length_mask(lengths, 70)
    h = network(x, mask)
    assert h.shape == (2, int(network.frames(lengths).max()), network.dim)
    h.sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    network.eval()
    with torch.no_grad():
        h, layers = network(x, mask), network.layers(x, mask)
        other = network(x.masked_fill(~mask[:, None, None], 7.0), mask)
    assert tuple(layers) == network.taps
    assert len(layers) > 3
    assert {value.shape[:2] for value in layers.values()} == {h.shape[:2]}
    torch.testing.assert_close(layers["output"], h)
    torch.testing.assert_close(other, h)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_output_is_the_frequency_mean_of_timms_features(name: str) -> None:
    """The same image through timm's own model with the same weights, averaged by hand."""
    torch.manual_seed(0)
    network = Timm(channels=3, bins=224, name=name).eval()
    reference = timm.create_model(name, num_classes=0).eval()
    reference.load_state_dict(network.network.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        h, features = network(x)[0], reference.forward_features(network.norm(x))[0]
    cells = 224 // network.stride
    if name.startswith("resnet"):
        features = features.permute(1, 2, 0)  # (H, W, D)
    elif name.startswith("vit"):
        features = features[1:].reshape(cells, cells, -1)  # (H, W, D), class token dropped
    for column in range(cells):
        expected = sum(features[row, column] for row in range(cells)) / cells
        torch.testing.assert_close(h[column], expected, rtol=1e-4, atol=1e-5)


def test_time_runs_along_the_columns() -> None:
    torch.manual_seed(0)
    network = Timm(channels=1, bins=32, name="vit_tiny_patch16_224").eval()
    x = torch.randn(1, 1, 32, 64)
    changed = x.clone()
    changed[..., 48:] = 5.0
    with torch.no_grad():
        change = (network.layers(x)["block1"] - network.layers(changed)["block1"])[0].norm(dim=-1)  # (4,)
    assert change.argmax() == 3


def test_unknown_and_unfit_networks() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        Timm(1, 64, name="resnet_18")
    with pytest.raises(UserError, match=r"mixer_s16_224.*does not take images"):
        Timm(1, 64, name="mixer_s16_224")
    with pytest.raises(UserError, match="bins"):
        Timm(1, 1)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "safetensors"])
def test_pretrained_file(tmp_path: Path, wrap: str) -> None:
    torch.manual_seed(1)
    source = timm.create_model("resnet10t", num_classes=7)
    state = source.state_dict()
    path = tmp_path / ("weights.safetensors" if wrap == "safetensors" else "weights.pt")
    if wrap == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if wrap == "state_dict" else state, path)
    torch.manual_seed(2)
    mono = Timm(1, 64, name="resnet10t", pretrained=str(path)).network.state_dict()
    colour = Timm(3, 64, name="resnet10t", pretrained=str(path)).network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in colour.items())
    assert torch.equal(mono["layer4.0.conv2.weight"], state["layer4.0.conv2.weight"])
    torch.testing.assert_close(mono["conv1.0.weight"], state["conv1.0.weight"].sum(1, keepdim=True))


def test_pretrained_file_of_one_channel(tmp_path: Path) -> None:
    source = Timm(1, 64, name="resnet10t").network.state_dict()
    torch.save(source, tmp_path / "mono.pt")
    loaded = Timm(1, 64, name="resnet10t", pretrained=str(tmp_path / "mono.pt")).network.state_dict()
    assert all(torch.equal(value, source[key]) for key, value in loaded.items())


class Attack:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pt", ".pkl", ".safetensors"])
def test_code_in_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path, trace = tmp_path / f"bad{suffix}", tmp_path / "executed"
    if suffix == ".pt":
        torch.save({"conv1.weight": Attack(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"conv1.weight": Attack(trace)}))
    with pytest.raises(UserError, match=r"model\.pretrained"):
        Timm(1, 64, name="resnet10t", pretrained=str(path))
    assert not trace.exists()


def test_unfit_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        Timm(1, 64, pretrained=str(tmp_path / "missing.pt"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="lacks 60 of 60 parameters of 'resnet18'"):
        Timm(1, 64, pretrained=str(tmp_path / "other.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"model\.pretrained"):
        Timm(1, 64, pretrained=str(tmp_path / "list.pt"))
    state = timm.create_model("resnet10t").state_dict()
    state["layer4.0.conv2.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "size.pt")
    with pytest.raises(UserError, match="cannot load the file"):
        Timm(1, 64, name="resnet10t", pretrained=str(tmp_path / "size.pt"))
