"""Label-aware augmentations against double loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tonnetz.augment import ConcatN, Mixup, SumN
from tonnetz.augment.partner import draw_count, draw_partners, join_labels

NAN = float("nan")


def make_batch(size: int = 8, samples: int = 600) -> dict[str, Any]:
    """Example b is a sine of b + 2 periods; label b and one that is unknown for every third."""
    n = torch.arange(samples) / samples
    audio = torch.stack([0.1 * (b + 1) * torch.sin(2 * torch.pi * (b + 2) * n) for b in range(size)])[:, None]
    label = torch.cat([torch.eye(size), torch.zeros(size, 1)], 1)
    label[::3, -1] = NAN
    return {"audio": audio, "label": label, "lengths": torch.full((size,), samples)}


def amplitudes(audio: torch.Tensor, size: int) -> torch.Tensor:
    """Amplitude of each example's sine in each row, (B, size)."""
    return torch.fft.rfft(audio[:, 0]).abs()[:, 2 : size + 2] * 2 / audio.shape[-1]


@pytest.mark.parametrize(("size", "most"), [(8, 3), (8, 8), (3, 5), (1, 4)])
def test_partners_are_different_others(size: int, most: int) -> None:
    partners = draw_partners(torch.zeros(size, 1), most)
    assert partners.shape == (size, min(size, most))
    assert partners[:, 0].tolist() == list(range(size))
    assert all(len(set(row)) == len(row) for row in partners.tolist())


def test_partners_and_counts_are_uniform() -> None:
    x = torch.zeros(5, 1)
    torch.manual_seed(0)
    second = torch.stack([draw_partners(x, 2)[:, 1] for _ in range(2000)])  # (2000, 5)
    for row in range(5):
        share = torch.bincount(second[:, row], minlength=5) / 2000
        assert share[row] == 0
        assert (share[torch.arange(5) != row] - 0.25).abs().max() < 0.04
    counts = torch.bincount(draw_count(torch.zeros(6000, 1), 3), minlength=4) / 6000
    assert counts[0] == 0
    assert (counts[1:] - 1 / 3).abs().max() < 0.02


def test_join_labels_is_the_naive_or() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice([0.0, 1.0, NAN], size=(9, 6))
    partners = np.stack([rng.permutation(9)[:4] for _ in range(30)])
    used = rng.random((30, 4)) < 0.6
    used[:, 0] = True
    ours = join_labels(torch.from_numpy(label), torch.from_numpy(partners), torch.from_numpy(used)).numpy()
    for r in range(30):
        for k in range(6):
            values = [label[partners[r, s], k] for s in range(4) if used[r, s]]
            expected = 1.0 if 1.0 in values else NAN if any(np.isnan(v) for v in values) else 0.0
            np.testing.assert_equal(ours[r, k], expected)


def test_sum_holds_what_its_label_says() -> None:
    batch = make_batch()
    torch.manual_seed(0)
    out = SumN(p=1.0, n=3, low=-6.0, high=6.0)(batch)
    level = amplitudes(out["audio"], 8)
    assert torch.equal(level > 0.01, out["label"][:, :8] == 1)
    sources = out["label"][:, :8].sum(1)
    assert sources.min() >= 1
    assert sources.max() == 3
    assert (out["label"][:, :8].diagonal() == 1).all()
    assert out["audio"].abs().max() <= 1 + 1e-6
    third = torch.tensor([b % 3 == 0 for b in range(8)])
    expected = ((out["label"][:, :8] == 1) & third).any(1)  # unknown if any source is unknown
    assert torch.equal(out["label"][:, -1].isnan(), expected)


def test_sum_is_normalised_sources_times_gains() -> None:
    x = torch.rand(4, 1, 50) - 0.5
    partners, used = torch.tensor([[2, 0, 1]]), torch.tensor([[True, False, True]])
    y = SumN().transform(x, partners=partners, used=used, gain=torch.tensor([[-6.0, 0.0, -12.0]]))
    expected = x[2] / x[2].abs().max() * 10 ** (-6 / 20) + x[1] / x[1].abs().max() * 10 ** (-12 / 20)
    torch.testing.assert_close(y[0], expected / max(1.0, float(expected.abs().max())))


def test_sum_lengths_are_the_longest() -> None:
    batch = make_batch(2) | {"lengths": torch.tensor([100, 600])}
    out = SumN(p=1.0, n=2)(batch)
    both = out["label"][:, :2].sum(1) == 2
    assert out["lengths"].tolist() == [600 if both[0] else 100, 600]


def test_concat_is_the_naive_concatenation() -> None:
    x, size = torch.rand(5, 2, 31), 31
    lengths = torch.tensor([31, 31, 20, 5, 31])
    partners = torch.tensor([[0, 1, 2], [1, 3, 0], [2, 4, 1], [4, 2, 3]])
    count, place = torch.tensor([3, 2, 1, 3]), torch.rand(4, 3)
    y = ConcatN().transform(x, partners=partners, count=count, place=place, lengths=lengths)
    for r in range(4):
        pieces = np.array_split(np.arange(size), 1) if count[r] == 1 else None
        starts = [-(-part * size // int(count[r])) for part in range(int(count[r]) + 1)]
        assert pieces is None or starts == [0, size]
        for part in range(int(count[r])):
            source, width = int(partners[r, part]), -(-size // int(count[r]))
            length = int(lengths[source])
            offset = int(place[r, part] * max(length - width + 1, 1))
            for n in range(starts[part], starts[part + 1]):
                assert torch.equal(y[r, :, n], x[source, :, (n - starts[part] + offset) % length])


def test_concat_labels_and_lengths() -> None:
    batch = make_batch() | {"lengths": torch.full((8,), 300)}
    torch.manual_seed(0)
    out = ConcatN(p=1.0, n=4)(batch)
    sources = out["label"][:, :8].sum(1)
    assert sources.min() == 1
    assert sources.max() == 4
    assert (out["label"][:, :8].diagonal() == 1).all()
    alone = sources == 1
    assert torch.equal(out["audio"][alone], batch["audio"][alone])
    assert (out["lengths"][alone] == 300).all()
    assert (out["lengths"][~alone] == 600).all()


@pytest.mark.parametrize("key", ["audio", "features"])
def test_mixup_is_the_formula(key: str) -> None:
    batch = make_batch()
    x = batch.pop("audio")
    batch[key] = x if key == "audio" else x.view(8, 1, 20, 30)
    mixup = Mixup(p=1.0, key=key)
    torch.manual_seed(0)
    params = mixup.draw(batch[key])
    torch.manual_seed(0)
    out = mixup(batch)
    for b in range(8):
        other, share = int(params["partner"][b]), params["share"][b]
        assert other != b
        assert 0.5 <= share <= 1
        torch.testing.assert_close(out[key][b], share * batch[key][b] + (1 - share) * batch[key][other])
        label = share * batch["label"][b] + (1 - share) * batch["label"][other]
        torch.testing.assert_close(out["label"][b], label, equal_nan=True)
        unknown = batch["label"][b].isnan() | batch["label"][other].isnan()
        assert torch.equal(out["label"][b].isnan(), unknown)


def test_mixup_share_is_beta() -> None:
    share = Mixup(alpha=0.4).draw(torch.zeros(5000, 1, 1))["share"]
    beta = np.random.default_rng(0).beta(0.4, 0.4, 20000)
    expected = np.quantile(np.maximum(beta, 1 - beta), [0.1, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(np.quantile(share, [0.1, 0.25, 0.5, 0.75]), expected, atol=0.02)
