"""Poolings against naive loops over unpadded examples."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from tonnetz.models import length_mask, pooling

FOLDER = Path(__file__).parents[2] / "config" / "pooling"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DIM, LENGTHS, SIZE = 6, (9, 4, 1), 9


def make(name: str, dim: int = DIM) -> nn.Module:
    """Build the pooling of a YAML file."""
    torch.manual_seed(0)
    return instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"), _partial_=True, _convert_="all")(dim=dim)


def naive_mean(module: nn.Module, h: Tensor) -> list[float]:
    return [sum(h[t, d].item() for t in range(len(h))) / len(h) for d in range(DIM)]


def naive_max(module: nn.Module, h: Tensor) -> list[float]:
    return [max(h[t, d].item() for t in range(len(h))) for d in range(DIM)]


def naive_gem(module: pooling.GeM, h: Tensor) -> list[float]:
    p = module.p.item()
    return [(sum(max(value, 1e-6) ** p for value in h[:, d].tolist()) / len(h)) ** (1 / p) for d in range(DIM)]


def naive_attention(module: pooling.Attention, h: Tensor) -> list[float]:
    scores = [
        (module.score.weight[0] @ torch.tanh(module.hidden.weight @ frame + module.hidden.bias)).item() / math.sqrt(DIM)
        for frame in h
    ]
    total = sum(math.exp(score) for score in scores)
    return [
        sum(math.exp(score) / total * frame[d].item() for score, frame in zip(scores, h, strict=True))
        for d in range(DIM)
    ]


def naive_attentive_stats(module: pooling.AttentiveStatistics, h: Tensor) -> list[float]:
    mean = [sum(h[:, d].tolist()) / len(h) for d in range(DIM)]
    std = [math.sqrt(max(sum((x - mean[d]) ** 2 for x in h[:, d].tolist()) / len(h), 1e-12)) for d in range(DIM)]
    scores = []
    for frame in h:
        joined = torch.tensor(frame.tolist() + mean + std)
        scores.append((module.score(torch.tanh(module.hidden(joined)))).tolist())
    result, spread = [], []
    for d in range(DIM):
        weights = [math.exp(score[d]) for score in scores]
        weights = [weight / sum(weights) for weight in weights]
        centre = sum(weight * x for weight, x in zip(weights, h[:, d].tolist(), strict=True))
        result.append(centre)
        spread.append(sum(weight * (x - centre) ** 2 for weight, x in zip(weights, h[:, d].tolist(), strict=True)))
    joined = torch.tensor(result + [math.sqrt(max(value, 1e-12)) for value in spread])
    return (module.output.weight @ joined).tolist()


NAIVE = {
    "mean": naive_mean,
    "max": naive_max,
    "gem": naive_gem,
    "attention": naive_attention,
    "attentive_stats": naive_attentive_stats,
}


def test_every_pooling_has_a_reference() -> None:
    assert set(NAMES) == set(NAIVE)


@pytest.mark.parametrize("name", NAMES)
def test_yaml_holds_every_keyword_with_its_default(name: str) -> None:
    cfg: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    parameters = inspect.signature(get_class(cfg.pop("_target_"))).parameters
    assert cfg == {key: value.default for key, value in parameters.items() if key != "dim"}


@pytest.mark.parametrize("padding", [0.0, 1e4, torch.nan])
@pytest.mark.parametrize("name", NAMES)
def test_equals_a_naive_loop(name: str, padding: float) -> None:
    module = make(name)
    mask = length_mask(torch.tensor(LENGTHS), SIZE)
    h = torch.randn(3, SIZE, DIM)
    with torch.no_grad():
        result = module(h.masked_fill(~mask[..., None], padding), mask)
        expected = torch.tensor([NAIVE[name](module, h[index, :n]) for index, n in enumerate(LENGTHS)])
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module(h), module(h, torch.ones(3, SIZE, dtype=torch.bool)))
    assert result.shape == (3, module.out_dim)


@pytest.mark.parametrize("name", NAMES)
def test_empty_rows_give_no_nan(name: str) -> None:
    module, h = make(name), torch.randn(3, SIZE, DIM, requires_grad=True)
    result = module(h, length_mask(torch.tensor([5, 0, 1]), SIZE))
    result.sum().backward()
    assert result.isfinite().all()
    assert h.grad is not None
    assert h.grad.isfinite().all()
    assert (h.grad[1] == 0).all()
    assert (h.grad[0] != 0).any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name: str) -> None:
    module, h = make(name, 64), torch.randn(4, 200, 64)
    mask = length_mask(torch.tensor([200, 100, 3, 0]), 200)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = module(h.bfloat16(), mask).float()
    with torch.no_grad():
        torch.testing.assert_close(low[:3], module(h, mask)[:3], rtol=0.1, atol=0.05)


def test_attentive_statistics_parameter_count_and_size() -> None:
    assert sum(p.numel() for p in pooling.AttentiveStatistics(128, 128).parameters()) == 98_560
    module = pooling.AttentiveStatistics(16, embed_dim=5)
    assert module.out_dim == 5
    assert module(torch.randn(2, 7, 16)).shape == (2, 5)


def test_attention_hidden_size() -> None:
    module = pooling.Attention(16, hidden=3)
    assert module.out_dim == 16
    assert module.score.weight.shape == (1, 3)
