"""NoiseMix: ratios block by block, from a folder and without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tonnetz.augment import NoiseMix
from tonnetz.errors import UserError

RATE = 16000


def music(size: int, samples: int) -> torch.Tensor:
    """Each example is loud at first and quiet afterwards."""
    return (torch.rand(size, 1, samples) - 0.5) * torch.linspace(1, 0.05, samples)


@pytest.mark.parametrize("samples", [48000, 40001, 900])
def test_every_block_has_its_ratio(samples: int) -> None:
    x, member = music(8, samples), NoiseMix(p=1.0, snr=[-10.0, 5.0], block=0.5)
    params = member.draw(x)
    y = member.transform(x, **params) / params["gain"].view(-1, 1, 1)
    assert params["snr"].shape == (8, -(-samples // 8000))
    for row in range(8):
        for k, first in enumerate(range(0, samples, 8000)):
            block = x[row, 0, first : first + 8000]
            added = y[row, 0, first : first + 8000] - block
            if not params["used"][row, k]:
                torch.testing.assert_close(added, torch.zeros_like(added), rtol=0, atol=1e-5)
                continue
            ratio = 10 * (block.square().mean() / added.square().mean()).log10()
            assert float(ratio) == pytest.approx(float(params["snr"][row, k]), abs=0.02)


def test_what_is_drawn() -> None:
    params = NoiseMix(snr=[-30.0, 0.0, 10.0], block=0.01, share=0.75).draw(torch.zeros(200, 1, 1600))
    values, counts = params["snr"].unique(return_counts=True)
    assert values.tolist() == [-30.0, 0.0, 10.0]
    assert (counts / 2000 - 1 / 3).abs().max() < 0.05
    assert abs(float(params["used"].float().mean()) - 0.75) < 0.05
    assert params["gain"].min() >= 0.3
    assert params["gain"].max() <= 1.0
    assert abs(float(params["gain"].mean()) - 0.65) < 0.05


def test_noise_of_the_folder(tmp_path: Path) -> None:
    t = np.arange(2 * RATE) / RATE
    soundfile.write(tmp_path / "hum.wav", 0.1 * np.sin(2 * np.pi * 1000 * t), RATE)
    member = NoiseMix(p=1.0, folder=str(tmp_path), snr=[0.0], block=0.5, share=1.0, gain_low=1.0)
    x = music(4, 16000)
    added = (member({"audio": x})["audio"] - x)[:, 0]
    power = torch.fft.rfft(added).abs().square()  # bins of 1 Hz
    assert (power[:, 990:1011].sum(1) / power.sum(1) > 0.9).all()
    assert not member.state_dict()


def test_pink_without_a_folder() -> None:
    member = NoiseMix(p=1.0, snr=[0.0], block=10.0, share=1.0, gain_low=1.0)
    x = music(16, 32000)
    power = torch.fft.rfft((member({"audio": x})["audio"] - x)[:, 0]).abs().square().mean(0)  # bins of 0.5 Hz
    assert float(power[200:400].mean() / power[2000:4000].mean()) == pytest.approx(10, rel=0.2)


def test_silence_stays_silence() -> None:
    x = torch.zeros(3, 1, 9000)
    assert (NoiseMix(p=1.0, block=0.1)({"audio": x})["audio"] == 0).all()


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    member = NoiseMix(p=1.0, folder=str(tmp_path / "none"))  # a restored run that only tests needs no folder
    with pytest.raises(UserError, match=r"none: no recordings for augment NoiseMix\.folder"):
        member({"audio": music(2, 1000)})


@pytest.mark.parametrize("wrong", [{"snr": []}, {"block": 0.0}, {"share": 2.0}, {"gain_low": 2.0}])
def test_wrong_parameters(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^augment NoiseMix"):
        NoiseMix(**wrong)
