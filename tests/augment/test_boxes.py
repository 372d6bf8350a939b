"""Boxes and curves over the features: sizes, places and values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonnetz.augment import EraseBoxes, SpectralEqualizer
from tonnetz.errors import UserError


@pytest.mark.parametrize(("bins", "frames"), [(96, 375), (64, 51), (3, 5)])
def test_boxes_are_what_was_drawn(bins: int, frames: int) -> None:
    x, member = torch.rand(50, 2, bins, frames), EraseBoxes(p=1.0)
    params = member.draw(x)
    y = member.transform(x, **params)
    height, width = max(1, round(0.1 * bins)), max(1, round(0.25 * frames))
    for row in range(50):
        expected = x[row].clone()
        for bottom, left in zip(params["bottom"][row].long(), params["left"][row].long(), strict=True):
            assert 0 <= bottom <= bins - height
            assert 0 <= left <= frames - width
            expected[:, bottom : bottom + height, left : left + width] = params["value"][row]
        torch.testing.assert_close(y[row], expected, rtol=0, atol=0)


def test_every_box_is_whole_and_every_place_is_reached() -> None:
    """CoverHunter's own geometry leaves a fifth of its boxes empty and never reaches the ends."""
    member, x = EraseBoxes(p=1.0, count=1), torch.ones(4000, 1, 20, 40)
    hidden = (member({"features": x})["features"] != 1)[:, 0]  # (B, F, T)
    assert (hidden.sum((1, 2)) == 2 * 10).all()
    assert hidden.any(0).all()
    assert hidden[:, 0].any()
    assert hidden[:, -1].any()
    first = hidden.any(1).int().argmax(1)  # first frame of each box, uniform over 31 places
    share = np.bincount(first, minlength=31) / 4000
    assert len(share) == 31
    assert np.abs(share - 1 / 31).max() < 4.5 * (1 / 31 / 4000) ** 0.5


def test_values_are_uniform() -> None:
    value = EraseBoxes().draw(torch.zeros(4000, 1, 4, 4))["value"]
    assert value.min() >= -128
    assert value.max() <= 0
    assert abs(value.mean() + 64) < 4
    quartiles = value.quantile(torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([-96.0, -32.0]), rtol=0, atol=5)


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_equalizer_is_numpy_interp(bands: int) -> None:
    x, member = torch.rand(5, 2, 33, 7), SpectralEqualizer(p=1.0, bands=bands)
    params = member.draw(x)
    y = member.transform(x, **params)
    for row in range(5):
        curve = np.interp(np.linspace(0, max(bands - 1, 1), 33), np.arange(bands), params["gains"][row].numpy())
        np.testing.assert_allclose(y[row], x[row].numpy() + curve[None, :, None], atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EraseBoxes(count=0),
        lambda: EraseBoxes(time=1.5),
        lambda: EraseBoxes(low=1.0, high=0.0),
        lambda: SpectralEqualizer(bands=0),
    ],
)
def test_wrong_parameters(wrong) -> None:
    with pytest.raises(UserError, match=r"^augment"):
        wrong()
