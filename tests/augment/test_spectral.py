"""Spectral augmentations: sizes, places and values of what is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonnetz.augment import FrequencyMask, RandomErase, RandomPixels, SpectralStretch, TimeMask


def image(size: int = 400, channels: int = 1, bins: int = 40, frames: int = 100) -> torch.Tensor:
    """Random values that no other point and no mean equals; each example has its own level."""
    return torch.rand(size, channels, bins, frames).double() + torch.rand(size, 1, 1, 1).double()


@pytest.mark.parametrize(("kind", "axis"), [(TimeMask, -1), (FrequencyMask, -2)])
@pytest.mark.parametrize("count", [1, 3])
def test_masks(kind, axis: int, count: int) -> None:
    x = image()
    y = kind(p=1.0, width=8, count=count, limit=1.0)({"features": x})["features"]
    hidden = y != x
    whole = hidden.all(-2 if axis == -1 else -1)[:, 0]  # (B, L) a hidden line is hidden throughout
    assert torch.equal(whole, hidden.any(-2 if axis == -1 else -1)[:, 0])
    edges = torch.nn.functional.pad(whole.int(), (1, 1)).diff().clamp(min=0).sum(1)
    assert edges.max() == count
    assert whole.sum(1).max() <= 8 * count
    assert (whole.sum(1) == 0).any() or count > 1
    assert whole[:, 0].any()
    assert whole[:, -1].any()
    expected = x.mean((-2, -1), keepdim=True).expand_as(x)
    torch.testing.assert_close(y[hidden], expected[hidden])


def test_mask_width_is_uniform_up_to_its_limit() -> None:
    mask = TimeMask(width=40, count=1, limit=0.2)  # 0.2 of 100 frames = 20
    params = mask.draw(image(6300))
    counts = np.bincount((params["stop"] - params["start"]).flatten().numpy(), minlength=21)
    assert len(counts) == 21
    assert np.abs(counts - 300).max() < 4.5 * 300**0.5
    assert params["start"].min() == 0
    assert params["stop"].max() == 100


def test_erase_has_the_area_it_drew() -> None:
    x = image(2000, 3, 30, 120)
    torch.manual_seed(0)
    y = RandomErase(p=1.0, low=0.1, high=0.1, aspect_low=0.05, aspect_high=20.0)({"features": x})["features"]
    hidden = (y != x).any(1)  # (B, F, T)
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), rows * columns)  # one rectangle, in all channels
    share = (rows * columns) / (30 * 120)
    assert (share - 0.1).abs().max() < 0.02  # rounding to whole points
    assert hidden[:, 0].any()
    assert hidden[:, -1].any()
    assert hidden[:, :, 0].any()
    assert hidden[:, :, -1].any()
    assert rows.min() <= 4
    assert rows.max() == 30


@pytest.mark.parametrize("fill", ["min", "mean"])
def test_erase_fills_with_the_examples_own_value(fill: str) -> None:
    x = image(50)
    y = RandomErase(p=1.0, fill=fill)({"features": x})["features"]
    value = x.amin((-2, -1)) if fill == "min" else x.mean((-2, -1))
    hidden = y != x
    assert (hidden.float().mean((1, 2, 3)) > 0.01).all()
    assert (hidden.float().mean((1, 2, 3)) < 0.22).all()
    torch.testing.assert_close(y[hidden], value[..., None, None].expand_as(x)[hidden])


def test_pixels_at_the_rate_of_the_example() -> None:
    x = image(300, 2)
    y = RandomPixels(p=1.0, low=0.0, high=0.3)({"features": x})["features"]
    hidden = y != x
    floor = x.amin((-2, -1), keepdim=True)
    lowest = (x == floor).any(1)  # the minimum itself does not show when it is hidden
    assert torch.equal(hidden[:, 0] | lowest, hidden[:, 1] | lowest)  # the same points in all channels
    torch.testing.assert_close(y[hidden], floor.expand_as(x)[hidden], rtol=0, atol=0)
    rate = hidden.float().mean((1, 2, 3))
    assert rate.max() < 0.33
    assert rate.min() < 0.03
    assert abs(rate.mean() - 0.15) < 0.02
    fixed = RandomPixels(low=0.2, high=0.2).draw(x)["hidden"].float().mean()
    assert abs(fixed - 0.2) < 3 * (0.2 * 0.8 / (300 * 40 * 100)) ** 0.5


@pytest.mark.parametrize("rate", [0.6, 1.0, 1.3])
def test_stretch_is_numpy_interp(rate: float) -> None:
    x = image(2, 1, 3, 50)
    y = SpectralStretch().transform(x, rate=torch.tensor([rate, rate])).numpy()
    time = np.arange(50) * np.float32(rate)
    for row in range(2):
        for line in range(3):
            expected = np.interp(time, np.arange(50), x[row, 0, line])
            expected[time > 49] = x[row].min()
            np.testing.assert_allclose(y[row, 0, line], expected, atol=1e-4)


@pytest.mark.parametrize("unit", [1, 320])  # lengths in frames or in samples
def test_stretch_lengths(unit: int) -> None:
    lengths = torch.tensor([50, 20, 40]) * unit
    faster = SpectralStretch(p=1.0, low=2.0, high=2.0)({"features": image(3, frames=50), "lengths": lengths})
    assert faster["lengths"].tolist() == [25 * unit, 10 * unit, 20 * unit]
    slower = SpectralStretch(p=1.0, low=0.5, high=0.5)({"features": image(3, frames=50), "lengths": lengths})
    assert slower["lengths"].tolist() == [50 * unit, 40 * unit, 50 * unit]


def ramp(size: int, frames: int) -> torch.Tensor:
    """Frame t has the value t in every bin, but for the first bin, which is 1000 lower."""
    x = torch.arange(frames, dtype=torch.float32).expand(size, 1, 4, frames).clone()
    x[:, :, 0] -= 1000
    return x


@pytest.mark.parametrize("rate", [0.6, 1.0, 1.4, 1.8])
def test_stretch_to_a_size_reads_rate_times_as_many_frames(rate: float) -> None:
    x, lengths = ramp(3, 181), torch.tensor([181, 170, 181])
    stretch = SpectralStretch(p=1.0, low=rate, high=rate, size=100)
    out = stretch({"features": x, "lengths": lengths})
    read = out["features"][:, 0, 1]  # (B, 100) the frames that were read
    assert read.shape == (3, 100)
    assert out["lengths"].tolist() == [100, 100, 100]
    for row, length in enumerate(lengths.tolist()):
        used = min(rate, (length - 1) / 99)  # as fast as the example allows: no padding
        expected = (length - 1) / 2 + (np.arange(100) - 49.5) * used
        np.testing.assert_allclose(read[row], expected, atol=2e-3)


def test_stretch_to_a_size_crops_what_it_does_not_stretch() -> None:
    x = ramp(200, 150)
    out = SpectralStretch(p=0.5, low=1.4, high=1.4, size=100)({"features": x})
    step = out["features"][:, 0, 1].diff(dim=1).mean(1)
    kept = (step - 1).abs() < 1e-3
    assert 60 < kept.sum() < 140
    torch.testing.assert_close(step[~kept], torch.full_like(step[~kept], 1.4), rtol=0, atol=1e-3)
    torch.testing.assert_close(out["features"][kept], x[kept][..., 25:125], rtol=0, atol=1e-3)
    assert set(out) == {"features"}


def test_stretch_to_a_size_of_short_examples() -> None:
    x, lengths = ramp(2, 120), torch.tensor([40, 100])
    slow = SpectralStretch(p=1.0, low=0.5, high=0.5, size=100)({"features": x, "lengths": lengths})
    assert slow["lengths"].tolist() == [79, 100]  # 39 / 0.5 + 1
    assert (slow["features"][0, 0, 1, 79:] == -1000).all()
    torch.testing.assert_close(slow["features"][0, 0, 1, :79], torch.arange(79) / 2)
    batch = {"features": x, "lengths": lengths}
    assert SpectralStretch(size=100).eval()(batch) is batch
