"""What a second of sound costs the default network and that of Music Trees, as docs/fewshot.md says."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.test_config import composed
from tonnetz.build import connect

PAPER = ["model=conv4", "frontend=mel_magnitude", "pooling=max", "task.dim=128"]


def cost(*words):
    """Multiplications for one second, in millions, and trained weights with projection."""
    config = composed("task=fewshot", *words)
    frontend = connect(config.frontend)
    sizes = {"channels": frontend.channels, "bins": frontend.bins, "bins_per_octave": 12}
    network = connect(config.model, **sizes).eval()
    pooled = connect(config.pooling, dim=network.dim).out_dim
    projection = (pooled + 1) * config.task.dim if config.task.dim else 0
    features = frontend(torch.zeros(1, 1, frontend.sample_rate))  # (1, C, F, T)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(features, torch.ones(1, features.shape[-1], dtype=torch.bool))
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad) + projection
    return counter.get_total_flops() / 2e6, weights


def test_the_default_network_costs_a_fraction_of_the_papers():
    millions, weights = cost()
    assert (millions, weights) == (pytest.approx(0.91, abs=0.01), 29032)
    paper, many = cost(*PAPER)
    assert paper == pytest.approx(710, abs=1)
    assert many == pytest.approx(0.58e6, rel=0.02)
    assert millions < paper / 100
