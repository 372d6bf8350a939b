"""The Conformer against the published structure: counts and naive re-implementations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tonnetz.models import Conformer
from tonnetz.models.conformer import Attention, Block, Convolution, sinusoids


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_every_stage() -> None:
    network = Conformer(channels=1, bins=96)
    assert count(network.norm) == 192
    assert count(network.subsampling) == 525_824
    assert [count(block) for block in network.blocks] == [267_648] * 6
    assert count(network.output) == 256
    assert count(network) == 192 + 525_824 + 6 * 267_648 + 256 == 2_132_160


@pytest.mark.parametrize(("frames", "expected"), [(1125, 280), (900, 224), (675, 168), (7, 1), (10, 1), (11, 2)])
def test_frame_counts(frames: int, expected: int) -> None:
    network = Conformer(channels=1, bins=96, dim=8, depth=1, heads=2, ffn=8).eval()
    assert int(network.frames(torch.tensor([frames]))) == expected
    assert network(torch.randn(1, 1, 96, frames)).shape == (1, expected, 8)


@pytest.mark.parametrize("valid", [9, 6])
def test_attention_equals_a_naive_loop(valid: int) -> None:
    torch.manual_seed(0)
    dim, heads, frames = 12, 3, 9
    size = dim // heads
    module = Attention(dim, heads)
    x, position = torch.randn(2, frames, dim), torch.randn(1, frames, dim)
    mask = (torch.arange(frames) < valid).expand(2, frames)
    result = module(x, position, None if valid == frames else mask)
    q, k, v, p = module.query(x), module.key(x), module.value(x), module.position(position)[0]
    expected = torch.zeros(2, frames, dim)
    for example in range(2):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            u, w = module.content_bias[head], module.position_bias[head]
            for i in range(frames):
                query = q[example, i, part]
                scores = [
                    ((query + u) @ k[example, j, part] + (query + w) @ p[j, part]) / math.sqrt(size)
                    for j in range(valid)
                ]
                weights = torch.stack(scores).exp()
                expected[example, i, part] = (weights / weights.sum()) @ v[example, :valid, part]
    torch.testing.assert_close(result, module.output(expected), rtol=1e-4, atol=1e-5)


def test_convolution_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    dim, kernel, frames, valid = 6, 5, 11, 8
    module = Convolution(dim, kernel).eval()
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, frames, dim)
    mask = torch.arange(frames)[None] < valid
    h = x[0, :valid] @ module.expand.weight.T + module.expand.bias
    gated = h[:, :dim] * torch.sigmoid(h[:, dim:])
    deep = torch.zeros(valid, dim)
    for t in range(valid):
        for d in range(dim):
            total = module.depthwise.bias[d].clone()
            for tap in range(kernel):
                source = t + tap - kernel // 2
                if 0 <= source < valid:
                    total = total + module.depthwise.weight[d, 0, tap] * gated[source, d]
            deep[t, d] = total
    norm = module.norm
    deep = (deep - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    expected = (deep * torch.sigmoid(deep)) @ module.output.weight.T + module.output.bias
    result = module(x, mask)[0]
    torch.testing.assert_close(result[:valid], expected, rtol=1e-4, atol=1e-5)
    assert (result[valid:] == 0).all()


def test_block_is_a_macaron() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, 16, 3, 0.1).eval()
    x, position = torch.randn(2, 5, 8), torch.randn(1, 5, 8)
    h = x + block.before(block.norm_before(x)) / 2
    h = h + block.attention(block.norm_attention(h), position, None)
    h = h + block.convolution(block.norm_convolution(h), None)
    h = h + block.after(block.norm_after(h)) / 2
    torch.testing.assert_close(block(x, position, None), block.norm_output(h))


def test_sinusoids_follow_the_definition() -> None:
    table = sinusoids(7, 6)
    for t in range(7):
        for pair in range(3):
            angle = t / 10000 ** (2 * pair / 6)
            assert float(table[t, 2 * pair]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[t, 2 * pair + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_subsampling_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    module = Conformer(channels=2, bins=9, dim=4, depth=0, heads=1, ffn=4).subsampling
    x = torch.randn(1, 2, 9, 13)

    def convolve(image: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
        """Convolve an image (C, T, F) with stride 2, then ReLU."""
        rows, columns = (image.shape[1] - 1) // 2, (image.shape[2] - 1) // 2
        result = torch.zeros(layer.out_channels, rows, columns)
        for row in range(rows):
            for column in range(columns):
                patch = image[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                result[:, row, column] = (layer.weight * patch).sum((1, 2, 3)) + layer.bias
        return result.clamp(min=0)

    deep = convolve(convolve(x[0].transpose(1, 2), module.conv[0]), module.conv[2])  # (D, T', F')
    expected = torch.stack([module.linear(deep[:, t].flatten()) for t in range(deep.shape[1])])
    torch.testing.assert_close(module(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_positions_belong_to_keys_and_are_absolute() -> None:
    """Equal queries at different places get equal rows (no relative shift), yet key order matters."""
    torch.manual_seed(0)
    module = Attention(8, 2)
    x, position = torch.randn(1, 6, 8), sinusoids(6, 8)[None]
    x[:, 4] = x[:, 1]
    result = module(x, position, None)
    torch.testing.assert_close(result[:, 4], result[:, 1])
    assert (result - module(x, position.roll(1, 1), None)).abs().max() > 1e-3
