"""Distances and reductions against loops over cells, and what padding must not change."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.reductions import KINDS, check_distance, check_reduction, distances, reduce

NAMES = ["min", "max", "mean", "meanmin", "minmean", "maxmean"]
NAMES += [f"{name}-{k}" for name in ("best", "bestmin", "worst", "bpwr") for k in (1, 2, 3, 50)]
ALL = NAMES + [f"s{name}" for name in NAMES]


def naive(d: np.ndarray, how: str) -> float:
    """One matrix, plain Python."""
    if how.startswith("s"):
        return (naive(d, how[1:]) + naive(d.T, how[1:])) / 2
    name, _, k = how.partition("-")
    k = int(k or 0)
    cells = sorted(float(x) for x in d.flatten())
    rows = [[float(x) for x in row] for row in d]
    if name == "bpwr":
        left = {(i, j): rows[i][j] for i, j in itertools.product(*map(range, d.shape))}
        taken = []
        while left and len(taken) < k:
            (i, j), value = min(left.items(), key=lambda item: item[1])
            taken.append(value)
            left = {(p, q): x for (p, q), x in left.items() if p != i and q != j}
        return sum(taken) / len(taken)
    chosen = {
        "min": cells[:1],
        "max": cells[-1:],
        "mean": cells,
        "meanmin": [min(row) for row in rows],
        "maxmean": [min(row) for row in rows],
        "minmean": [min(sum(row) / len(row) for row in rows)],
        "best": cells[:k],
        "worst": cells[-k:] if k else [],
        "bestmin": sorted(min(row) for row in rows)[:k],
    }[name]
    return sum(chosen) / len(chosen)


def masked(seed: int = 0, batch: tuple[int, ...] = (4, 3), sides: tuple[int, int] = (5, 4)):
    """Random distances, and masks with at least one valid segment, at any place."""
    g = torch.Generator().manual_seed(seed)
    d = torch.rand(*batch, *sides, generator=g, dtype=torch.float64)
    a = torch.rand(*batch, sides[0], generator=g) < 0.6
    b = torch.rand(*batch, sides[1], generator=g) < 0.6
    a[..., 1] |= ~a.any(-1)
    b[..., 2] |= ~b.any(-1)
    return d, a, b


@pytest.mark.parametrize("how", ALL)
@pytest.mark.parametrize("sides", [(5, 4), (1, 4), (6, 1), (1, 1)])
def test_every_reduction_equals_a_loop(how: str, sides: tuple[int, int]) -> None:
    d = torch.rand(3, 2, *sides, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = reduce(d, how)
    assert value.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        assert value[i, j].item() == pytest.approx(naive(d[i, j].numpy(), how), abs=1e-12)


@pytest.mark.parametrize("how", ALL)
def test_masked_segments_are_as_if_absent(how: str) -> None:
    d, a, b = masked()
    d = torch.where(a[..., None] & b[..., None, :], d, torch.nan)  # nothing of the padding may be read
    value = reduce(d, how, a, b)
    for i, j in itertools.product(range(4), range(3)):
        assert value[i, j].item() == pytest.approx(naive(d[i, j][a[i, j]][:, b[i, j]].numpy(), how), abs=1e-12)


@pytest.mark.parametrize("how", ALL)
def test_one_mask_and_none(how: str) -> None:
    d, a, b = masked(2)
    ones = torch.ones_like
    assert torch.equal(reduce(d, how, a), reduce(d, how, a, ones(b)))
    assert torch.equal(reduce(d, how, None, b), reduce(d, how, ones(a), b))
    torch.testing.assert_close(reduce(d, how), reduce(d, how, ones(a), ones(b)))


@pytest.mark.parametrize("how", ALL)
def test_gradients_are_right_finite_and_spare_padding(how: str) -> None:
    d, a, b = masked(3)
    a[0, 0] = False  # a track without segments
    d = d.requires_grad_()
    value = reduce(d, how, a, b)
    assert value[0, 0] == math.inf
    known = value.isfinite()
    assert known.sum() == known.numel() - 1
    value.masked_fill(~known, 0.0).sum().backward()
    cells = a[..., None] & b[..., None, :]
    assert d.grad.isfinite().all()
    assert not d.grad[~cells].any()
    torch.testing.assert_close(d.grad.sum((-1, -2)), known.double())  # a mean of cells: the weights sum to 1
    flat = torch.zeros(2, 3, 3, requires_grad=True)
    reduce(flat, how).sum().backward()
    assert flat.grad.isfinite().all()


def test_bpwr_one_is_min_and_the_symmetric_ones_are_symmetric() -> None:
    d, a, b = masked(4)
    assert torch.equal(reduce(d, "bpwr-1", a, b), reduce(d, "min", a, b))
    assert torch.equal(reduce(d, "bpwr-1"), reduce(d, "min"))
    for how in (name for name in ALL if name.startswith("s")):
        torch.testing.assert_close(reduce(d, how, a, b), reduce(d.mT, how, b, a))


def test_qmaxmin_tells_a_copy_of_three_segments_from_a_stranger() -> None:
    """Few segments of anything have a common stretch with a long track; how near they are is left to tell."""
    d, a, b = masked(5)
    near = torch.minimum(reduce(d, "meanmin", a, b), reduce(d.mT, "meanmin", b, a))
    torch.testing.assert_close(reduce(d, "qmaxmin-20", a, b), reduce(d, "qmax-20", a, b) + near)
    assert torch.equal(reduce(d, "qmaxmin-20", a, b), reduce(d.mT, "qmaxmin-20", b, a))
    g = torch.Generator().manual_seed(0)
    track, strangers = torch.randn(200, 8, generator=g), torch.randn(50, 3, 8, generator=g)
    copy = distances(track[50:53], track)
    others = distances(strangers, track)
    assert reduce(copy, "qmax-10") == reduce(others, "qmax-10").min() == 0
    assert reduce(copy, "qmaxmin-10") < 1e-6
    assert reduce(others, "qmaxmin-10").min() > 0.05


def test_bpwr_takes_whole_diagonal_of_an_aligned_pair() -> None:
    d = 1 - torch.eye(5)
    assert reduce(d, "bpwr-5").item() == 0
    d[0, 1] = -1.0  # the greedy pick strikes out row 0 and column 1
    assert reduce(d, "bpwr-5").item() == pytest.approx((-1 + 0 * 3 + 1) / 5)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_equal_a_loop(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 7, generator=g), torch.randn(2, 4, 7, generator=g)
    value = distances(a, b, kind)
    assert value.shape == (2, 5, 4)
    for n, i, j in itertools.product(range(2), range(5), range(4)):
        x, y = a[n, i].double().numpy(), b[n, j].double().numpy()
        expected = {
            "cosine": 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y),
            "euclidean": np.linalg.norm(x - y),
            "squared": ((x - y) ** 2).mean(),
        }[kind]
        assert value[n, i, j].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-3])
def test_equal_vectors_are_not_negative_and_have_finite_gradients(kind: str, value: float) -> None:
    a = torch.full((3, 6), value, requires_grad=True)
    d = distances(a, a, kind)
    d.sum().backward()
    assert (d >= 0).all()
    assert a.grad.isfinite().all()
    if not (kind == "cosine" and value == 0):  # a zero vector has no direction
        assert d.max() <= 1e-6


def test_unclamped_cosine_may_be_negative() -> None:
    a = torch.randn(300, 128, generator=torch.Generator().manual_seed(0))
    assert distances(a, a, clamp=False).min() < 0
    torch.testing.assert_close(distances(a, a, clamp=False).clamp(min=0), distances(a, a))


def test_double_precision_is_kept() -> None:
    a: Tensor = torch.randn(3, 4, dtype=torch.float64)
    assert distances(a, a, "squared").dtype == torch.float64


@pytest.mark.parametrize("how", ["minn", "best", "best-0", "best-x", "min-3", "bpwr", "ss", "", "s", "best--1", None])
def test_unknown_reductions_are_user_errors(how: str) -> None:
    with pytest.raises(UserError, match="reduction"):
        check_reduction(how)


def test_messages_name_what_there_is() -> None:
    with pytest.raises(UserError, match="did you mean 'bpwr-K'"):
        reduce(torch.zeros(1, 1), "bpw-5")
    with pytest.raises(UserError, match=r"meanmin, .*bpwr-K"):
        check_reduction("zzzz")
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        check_distance("cosinus")
    check_reduction("sbpwr-10")
    check_distance("squared")
