"""RollPitch against loops over examples and bins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonnetz.augment import RollPitch
from tonnetz.augment.roll import tonal_centre
from tonnetz.errors import UserError


def image(size: int = 60, channels: int = 2, bins: int = 48, frames: int = 20) -> torch.Tensor:
    return -80 * torch.rand(size, channels, bins, frames)


def roll(method: str, x: torch.Tensor, **options: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    member = RollPitch(p=1.0, method=method, **options)
    params = member.draw(x)
    return member.transform(x, **params), params


@pytest.mark.parametrize(("octave", "factor"), [(12, 1), (24, 2), (36, 3)])
def test_default_is_a_circular_octave_or_nothing(octave: int, factor: int) -> None:
    x = image(600)
    y, params = roll("default", x, bins_per_octave=octave)
    values, counts = params["shift"].unique(return_counts=True)
    assert values.tolist() == [-12 * factor, 0, 12 * factor]
    assert (counts / 600 - 1 / 3).abs().max() < 0.08
    for row in range(40):
        np.testing.assert_array_equal(y[row], np.roll(x[row].numpy(), int(params["shift"][row]), 1))


def test_circular_is_any_shift() -> None:
    x = image(800)
    y, params = roll("circular", x, shift=5)
    values, counts = params["shift"].unique(return_counts=True)
    assert values.tolist() == list(range(-5, 6))
    assert (counts / 800 - 1 / 11).abs().max() < 0.04
    for row in range(40):
        np.testing.assert_array_equal(y[row], np.roll(x[row].numpy(), int(params["shift"][row]), 1))


@pytest.mark.parametrize("method", ["zero_fill", "flex_melody"])
def test_transposed_and_filled(method: str) -> None:
    x = image()
    y, params = roll(method, x)
    assert params["shift"].min() < -6
    assert params["shift"].max() > 6
    for row, shift in enumerate(params["shift"].tolist()):
        for channel in range(2):
            fill = float(x[row, channel].min()) if method == "zero_fill" else -128.0
            for f in range(48):
                expected = x[row, channel, f - shift] if 0 <= f - shift < 48 else torch.full((20,), fill)
                torch.testing.assert_close(y[row, channel, f], expected, rtol=0, atol=0)


def test_flex_melody_keeps_the_tonal_centre_inside() -> None:
    x = torch.full((400, 1, 40, 10), -80.0)
    x[:200, :, 3:7] = 0.0  # a tenth of all cells
    x[200:, :, 34:38] = 0.0
    assert tonal_centre(x)[[0, 399]].tolist() == [4.5, 35.5]
    shift = roll("flex_melody", x)[1]["shift"]
    assert (int(shift[:200].min()), int(shift[:200].max())) == (-4, 12)
    assert (int(shift[200:].min()), int(shift[200:].max())) == (-12, 3)


def naive_low_melody(x: np.ndarray, shift: int, noise: np.ndarray) -> np.ndarray:
    """One example (C, F, T), frame by frame and bin by bin."""
    channels, bins, frames = x.shape
    y = np.empty_like(x)
    for c in range(channels):
        quietest = min(x[c, f].mean() for f in range(bins))
        for t in range(frames):
            if (x[c, :, t] == x[c, 0, t]).all():
                y[c, :, t] = x[c, :, t]
                continue
            mean, deviation = x[c, :8, t].mean(), x[c, :8, t].std()
            y[c, shift:, t] = x[c, : bins - shift, t]
            for f in range(shift):
                below = shift - 1 - f
                weight = 0.5 + 0.5 * np.cos(np.pi * (below + 1) / (shift + 1))
                value = quietest + weight * (mean + 0.5 * deviation * noise[c, f, t] - quietest)
                value = np.clip(value, mean - deviation, mean + deviation)
                share = max(0.0, 1 - (below + 1) / 6)
                y[c, f, t] = (1 - share) * value + share * x[c, below, t]
    return y


def test_low_melody_is_the_naive_one() -> None:
    x = image(12)
    x[:, :, :, 17:] = -100.0  # padding
    y, params = roll("low_melody", x)
    assert params["shift"].min() >= 1
    for row, shift in enumerate(params["shift"].tolist()):
        expected = naive_low_melody(x[row].numpy().astype(float), shift, params["noise"][row].numpy())
        np.testing.assert_allclose(y[row], expected, atol=1e-3)
    assert (y[:, :, :, 17:] == -100).all()


def test_low_melody_shifts_one_to_twelve() -> None:
    shift = roll("low_melody", image(600, 1, 20, 2))[1]["shift"]
    assert shift.unique().tolist() == list(range(1, 13))


@pytest.mark.parametrize("method", ["default", "circular", "zero_fill", "low_melody", "flex_melody"])
@pytest.mark.parametrize("bins", [1, 2, 7, 64])
def test_few_bins(method: str, bins: int) -> None:
    x = image(6, 1, bins, 3).half()  # as stored
    y = RollPitch(p=1.0, method=method)({"features": x})["features"]
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.isfinite().all()


@pytest.mark.parametrize("wrong", [{"method": "up"}, {"shift": 0}, {"bins_per_octave": 30}])
def test_wrong_parameters(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"augment RollPitch"):
        RollPitch(**wrong)
