"""Networks for cover songs against published sizes and naive re-implementations of their parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from tonnetz.errors import UserError
from tonnetz.models import CLEWS, ByteCover, CQTNet, DVINet, RotaryConformer, length_mask
from tonnetz.models.conformer_rotary import RotaryAttention, RotaryBlock, rotate, rotations
from tonnetz.models.parts import IBN, InstanceNorm


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_bytecover_has_the_parameters_of_resnet50() -> None:
    network, reference = ByteCover(channels=3, bins=84, last_stride=2), resnet50()
    assert count(network) - count(network.input_norm) - 1 == count(reference) - count(reference.fc)  # 1: of GeM
    assert (network.dim, network.stride) == (2048, 32)
    assert ByteCover(1, 84, width=8).stride == 16


def test_cqtnet_has_the_layers_of_the_paper() -> None:
    kernels = [layer.conv.weight.shape for layer in CQTNet(1, 84).blocks]
    assert [shape[0] for shape in kernels] == [32, 64, 64, 64, 128, 128, 256, 256, 512, 512]
    assert [tuple(shape[2:]) for shape in kernels[:4]] == [(12, 3), (13, 3), (13, 3), (3, 3)]
    assert [layer.conv.dilation for layer in CQTNet(1, 84).blocks] == [(1, 1), (1, 2)] * 5
    assert count(CQTNet(1, 84)) == sum(math.prod(shape) + 2 * shape[0] for shape in kernels) + 2 * 84 == 4_926_696
    assert count(DVINet(1, 84)) == 7_696_080 + 2 * 84
    assert DVINet(1, 84).dim == 640


def test_clews_layout() -> None:
    network = CLEWS(1, 84)
    assert count(network) == 24_672_275
    assert [len(stage) for stage in network.blocks] == [3, 4, 6, 3]
    assert [stage[-1].conv3.out_channels for stage in network.blocks] == [256, 512, 1024, 2048]
    assert network.stem1.conv.weight.shape == (128, 1, 12, 3)
    assert network.stem2.conv.weight.shape == (256, 128, 12, 3)
    norms = [isinstance(stage[0].norm1, IBN) for stage in network.blocks]
    assert norms == [True, True, True, False]
    assert not any(block.gain.detach() for stage in network.blocks for block in stage)


def test_clews_blocks_start_as_their_skip() -> None:
    block = CLEWS(1, 84, width=16).blocks[0][1].eval()
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(block(x, None, None), x)
    block.gain.data.fill_(1.0)
    assert not torch.equal(block(x, None, None), x)


def test_clews_noise_is_for_training_only() -> None:
    network, x = CLEWS(1, 24, width=16), torch.rand(2, 1, 24, 70)
    torch.manual_seed(0)
    first = network.train()(x)
    assert not torch.equal(network(x), first)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize("valid", [9, 6, 1])
def test_instance_norm_equals_torchs_on_the_valid_frames(valid: int) -> None:
    norm, reference = InstanceNorm(3), nn.GroupNorm(3, 3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 5, 9)
    keep = (torch.arange(9) < valid).float().expand(2, 1, 1, 9)
    result = norm(x * keep, keep)[..., :valid]
    torch.testing.assert_close(result, reference(x[..., :valid]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm(x), reference(x), rtol=1e-4, atol=1e-5)


def test_ibn_joins_instance_and_batch_norm() -> None:
    norm, x = IBN(5), torch.randn(3, 5, 4, 6)
    h = norm(x)
    torch.testing.assert_close(h[:, :2], nn.InstanceNorm2d(2)(x[:, :2]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(h[:, 2:], nn.BatchNorm2d(3)(x[:, 2:]), rtol=1e-4, atol=1e-5)


def test_rotations_turn_each_pair_by_its_angle() -> None:
    x = torch.randn(1, 1, 6, 8)
    result = rotate(x, rotations(6, 8))
    for t in range(6):
        for i in range(4):
            angle = t / 10000 ** (2 * i / 8)
            turned = torch.complex(x[0, 0, t, i], x[0, 0, t, i + 4]) * complex(math.cos(angle), math.sin(angle))
            torch.testing.assert_close(torch.complex(result[0, 0, t, i], result[0, 0, t, i + 4]), turned)


def test_rotary_attention_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    module, x, valid = RotaryAttention(12, 3), torch.randn(2, 7, 12), 5
    rotation = rotations(7, 4)
    result = module(x, rotation, (torch.arange(7) < valid).expand(2, 7))
    q, k, v = module.project(x).split(12, -1)
    expected = torch.zeros(2, 7, 12)
    for example in range(2):
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            turned_q, turned_k = (rotate(z[example, :, part][None, None], rotation)[0, 0] for z in (q, k))
            weights = (turned_q @ turned_k[:valid].T / 2).softmax(-1)
            expected[example, :, part] = weights @ v[example, :valid, part]
    torch.testing.assert_close(result, module.output(expected), rtol=1e-4, atol=1e-5)


def test_rotary_block_does_not_know_where_it_is() -> None:
    """The same frames, far from the ends of zeros, give the same result wherever they stand."""
    torch.manual_seed(0)
    attention, x = RotaryAttention(16, 2), torch.randn(1, 9, 16)
    late = rotations(109, 8)[:, 100:]
    torch.testing.assert_close(attention(x, late, None), attention(x, rotations(9, 8), None), rtol=1e-4, atol=1e-5)
    block = RotaryBlock(16, 2, 24, 5, 0.0).eval()
    mask = length_mask(torch.tensor([6]), 9)
    torch.testing.assert_close(
        block(x, rotations(9, 8), mask)[:, :6], block(x[:, :6], rotations(6, 8), None), rtol=1e-4, atol=1e-5
    )


def test_rotary_conformer_size_and_mistakes() -> None:
    assert count(RotaryConformer(1, 96)) == 2_410_048
    for wrong in ({"heads": 3}, {"kernel": 4}, {"dim": 12, "heads": 4}):
        with pytest.raises(UserError, match="model: dim"):
            RotaryConformer(1, 96, **wrong)
