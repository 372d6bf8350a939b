"""Calibration against definitions, scikit-learn and naive counts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from tonnetz.calibration import Calibration, _asking, unrelated_pairs
from tonnetz.errors import UserError


@pytest.fixture
def calibration():
    random = np.random.default_rng(0)
    return Calibration(np.sort(random.normal(1, 0.1, 999)), np.sort(random.normal(0.7, 0.05, 99)))


def test_z_and_p(calibration):
    d = np.linspace(-1, 3, 400)
    np.testing.assert_allclose(calibration.z(d), (d - calibration.pairs.mean()) / calibration.pairs.std(ddof=1))
    p = calibration.p(d)
    np.testing.assert_allclose(p, [((calibration.pairs <= x).sum() + 1) / 1000 for x in d])
    assert (np.diff(p) >= 0).all()
    assert (np.diff(calibration.z(d)) > 0).all()
    assert p.min() == pytest.approx(1 / 1000)
    assert p.max() == 1
    assert calibration.chance(np.array([-5.0, 5.0])).tolist() == [0.01, 1]


def test_threshold_agrees_with_chance(calibration):
    for p in (0.01, 0.05, 0.5, 0.99):
        limit = calibration.threshold(p)
        assert calibration.chance(np.array(limit)) <= p
        assert calibration.chance(np.nextafter(limit, np.inf)) > p
    assert calibration.threshold(1.0) == np.inf
    expected = norm(calibration.nearest.mean(), calibration.nearest.std(ddof=1)).ppf(0.001)
    assert calibration.threshold(0.001) == pytest.approx(
        min(expected, calibration.nearest[0])
    )  # finer than 99 recordings tell
    for bad in (0, -1, 1.5):
        with pytest.raises(UserError, match=r"job\.p="):
            calibration.threshold(bad)


@pytest.mark.parametrize("tries", [2.5, 30])
def test_many_tries_need_a_nearer_match(calibration, tries):
    """The nearest of several strangers, by drawing them."""
    long = replace(calibration, tries=tries)
    d = np.linspace(0.5, 0.9, 50)
    each = calibration.chance(d)
    tail = norm(calibration.nearest.mean(), calibration.nearest.std(ddof=1)).cdf(d).clip(1e-6)
    each = np.where(d < calibration.nearest[0], np.minimum(tail, each), each)
    np.testing.assert_allclose(long.chance(d), 1 - (1 - each) ** tries, atol=1e-9)
    assert (np.diff(long.chance(d)) >= 0).all()
    assert long.chance(np.array(0.2)) == pytest.approx(tries * 1e-6, rel=1e-3)
    assert (long.p(d) >= calibration.p(d)).all()
    for p in (0.2, 0.5, 0.99):
        limit = long.threshold(p)
        assert limit < calibration.threshold(p)
        if np.isfinite(limit) and limit >= calibration.nearest[0]:
            assert long.chance(np.array(limit)) <= p < long.chance(np.nextafter(limit, np.inf)) + 1e-9
    random = np.random.default_rng(1)
    nearest = random.choice(calibration.nearest, (4000, int(tries))).min(1)
    share = (nearest <= long.threshold(0.5)).mean()
    assert 0.2 < share <= 0.51  # on the safe side, as ranks of 99 strangers are
    kin = replace(long, kin=np.sort(random.normal(0.55, 0.05, 200)))
    limit = kin.equal()
    missed, accepted = (kin.kin > limit).mean(), 1 - (1 - (kin.nearest <= limit).mean()) ** tries
    assert missed == pytest.approx(accepted, abs=0.25)
    assert limit < replace(kin, tries=1.0).equal()


def test_short_recordings_are_turned_to_answer():
    """Of a pair the longer one asks; two short ones ask nothing, but where there are no others."""
    pairs, long = np.array([[0, 1], [2, 0], [2, 3], [1, 3]]), np.array([True, True, False, False])
    found, able = _asking(pairs, long)
    assert found.tolist() == [[0, 1], [0, 2], [1, 3]]
    assert able.tolist() == [0, 1]
    same, every = _asking(pairs, np.zeros(4, bool))
    assert same.tolist() == pairs.tolist()
    assert every.tolist() == [0, 1, 2, 3]


def test_a_scale_without_spread_accepts_nothing():
    flat = Calibration(np.zeros(9), np.zeros(9))
    assert flat.threshold(0.01) < 0


def test_equal_distances_have_no_deviation():
    flat = Calibration(np.ones(5), np.ones(2))
    assert flat.z(np.array([0.5, 1.0])).tolist() == [0, 0]


def test_pairs_are_distinct_and_of_different_works():
    work = np.random.default_rng(1).integers(0, 30, 200)
    work[:10] = -1
    pairs = unrelated_pairs(work, 5000)
    assert len(pairs) == 5000
    assert len(np.unique(np.sort(pairs, 1), axis=0)) == 5000
    assert (work[pairs[:, 0]] != work[pairs[:, 1]]).all()
    assert (work[pairs] >= 0).all()
    assert 0.4 < (pairs[:, 0] < pairs[:, 1]).mean() < 0.6
    np.testing.assert_array_equal(pairs, unrelated_pairs(work, 5000))
    assert not np.array_equal(pairs, unrelated_pairs(work, 5000, seed=1))


def test_few_recordings_give_all_pairs_there_are():
    assert {tuple(sorted(p)) for p in unrelated_pairs(np.array([0, 0, 1])).tolist()} == {(0, 2), (1, 2)}
    assert len(unrelated_pairs(np.array([0, 0, 0]))) == 0
    assert len(unrelated_pairs(np.array([-1, -1, -1]))) == 0  # the unknown may be covers of each other
    assert len(unrelated_pairs(np.array([4, 4, -1]))) == 0
    assert {tuple(sorted(p)) for p in unrelated_pairs(np.array([0, -1, 1, -1])).tolist()} == {(0, 2)}
    assert unrelated_pairs(np.full(3000, 7)).shape == (0, 2)
    assert len(unrelated_pairs(np.zeros(0, int))) == 0


def test_many_recordings_are_sampled():
    work = np.arange(100_000) // 4
    pairs = unrelated_pairs(work, 20_000)
    assert len(pairs) == 20_000
    assert (work[pairs[:, 0]] != work[pairs[:, 1]]).all()
