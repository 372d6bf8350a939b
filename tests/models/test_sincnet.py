"""SincNet's filters against SciPy's windowed-sinc design, and what they answer to a tone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.signal import firwin

from tonnetz.errors import UserError
from tonnetz.models import SincNet


def test_filters_are_scipys():
    filters = SincNet(1, 1).stem.filters
    low, high = (edge.detach().double().numpy() for edge in filters.edges())
    assert np.all(np.diff(low) > 0)
    assert low[0] * 22050 == pytest.approx(80, abs=0.1)  # 30 Hz and the least edge
    made = filters.impulse_responses().detach().numpy()
    for k in (0, 7, 40, 78):
        expected = firwin(251, [low[k], high[k]], fs=1.0, window="hamming", pass_zero=False, scale=False)
        np.testing.assert_allclose(made[k], expected / (2 * (high[k] - low[k])), atol=2e-4)


def test_the_filter_of_a_tone_answers_most():
    network = SincNet(1, 1).eval()
    t = torch.arange(8000) / 22050
    low, high = network.stem.filters.edges()
    for hertz in (300.0, 1000.0, 5000.0):
        heard = (
            network.stem.filters(torch.sin(6.283185 * hertz * t).view(1, 1, 1, -1))[0, :, 0, 500:-500].square().mean(1)
        )
        assert ((low * 22050 < hertz * 1.1) & (high * 22050 > hertz / 1.1))[heard.argmax()]


def test_parameters_and_frames():
    network = SincNet(1, 1)
    count = sum(p.numel() for p in network.parameters())
    widths = [80, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512]
    layers = sum(3 * a * b + 3 * b for a, b in itertools.pairwise(widths))
    assert count == 2 * 80 + 2 * 80 + layers
    assert network.eval()(torch.randn(1, 1, 1, 59049)).shape == (1, 1, 512)
    assert len(network.taps) == 11


def test_edges_learn():
    network = SincNet(1, 1, widths=(4, 4), filters=6, kernel=31)
    network(torch.randn(2, 1, 1, 600)).square().sum().backward()
    for parameter in (network.stem.filters.low, network.stem.filters.band):
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kernel": 10}, "model.kernel=10"),
        ({"widths": ()}, "model.widths"),
        ({"sample_rate": 100}, "model.sample_rate"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        SincNet(1, 1, **words)
