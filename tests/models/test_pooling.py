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

from tonnetz.errors import UserError
from tonnetz.models import length_mask, pooling
from tonnetz.models.parts import FrequencyPool

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


def naive_gem_softplus(module: pooling.SoftplusGeM, h: Tensor) -> list[float]:
    p = 1 + math.log1p(math.exp(module.power.free.item()))
    assert p == pytest.approx(3)
    return [(sum(max(value, 1e-6) ** p for value in h[:, d].tolist()) / len(h)) ** (1 / p) for d in range(DIM)]


def naive_softmax(module: nn.Module, h: Tensor) -> list[float]:
    weights = [[math.exp(value) for value in h[:, d].tolist()] for d in range(DIM)]
    return [sum(w * x for w, x in zip(weights[d], h[:, d].tolist(), strict=True)) / sum(weights[d]) for d in range(DIM)]


def naive_mean_std(module: nn.Module, h: Tensor) -> list[float]:
    mean = naive_mean(module, h)
    return mean + [math.sqrt(sum((x - mean[d]) ** 2 for x in h[:, d].tolist()) / len(h)) for d in range(DIM)]


def naive_concat(module: pooling.Concat, h: Tensor) -> list[float]:
    """Eight values a dimension at equal distances, read between the frames; padding counts as zeros."""
    line = torch.zeros(SIZE, DIM)
    line[: len(h)] = h
    frames = []
    for k in range(8):
        place = min(max((k + 0.5) * SIZE / 8 - 0.5, 0.0), SIZE - 1.0)
        left = min(int(place), SIZE - 2)
        frames += (line[left] * (left + 1 - place) + line[left + 1] * (place - left)).tolist()
    return frames


NAIVE = {
    "concat": naive_concat,
    "autopool": naive_softmax,  # starts as softmax with temperature 1
    "gem_softplus": naive_gem_softplus,
    "mean_std": naive_mean_std,
    "softmax": naive_softmax,
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


def test_gem_over_bins_then_frames_is_gem_over_both() -> None:
    h = torch.rand(2, 5, 7, 9)  # (B, C, F, T)
    frames = FrequencyPool("gem")(h)  # (B, T, C)
    expected = h.pow(3).mean((2, 3)).pow(1 / 3)
    torch.testing.assert_close(pooling.SoftplusGeM(5)(frames), expected)


def test_autopool_between_mean_and_max() -> None:
    module, h = pooling.AutoPool(3, alpha=0.0), torch.randn(2, 9, 3)
    torch.testing.assert_close(module(h), h.mean(1))
    torch.testing.assert_close(pooling.AutoPool(3, alpha=1e4)(h), h.amax(1))
    torch.testing.assert_close(pooling.Softmax(3, temperature=1e-4)(h), h.amax(1))


def test_impossible_keywords() -> None:
    with pytest.raises(UserError, match="temperature"):
        pooling.Softmax(3, temperature=0.0)
    with pytest.raises(UserError, match=r"pooling\.p"):
        pooling.SoftplusGeM(3, p=1.0)
    with pytest.raises(UserError, match=r"model\.frequency=sum.*known"):
        FrequencyPool("sum")
