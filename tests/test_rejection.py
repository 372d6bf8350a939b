"""Yes or no to "is the work there?": rates against scikit-learn and counts, pictures with their marks."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from tonnetz.rejection import accepted, area, curves, equal_error, picture, roc


@pytest.mark.parametrize("seed", range(5))
def test_roc_against_scikit_learn(seed):
    random = np.random.default_rng(seed)
    genuine, impostor = random.normal(0.4, 0.2, 60).round(2), random.normal(0.8, 0.2, 90).round(2)
    truth, score = np.r_[np.ones(60), np.zeros(90)], -np.r_[genuine, impostor]
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    ours = roc(genuine, impostor)
    np.testing.assert_allclose(ours[0], false)
    np.testing.assert_allclose(ours[1], true)
    assert area(genuine, impostor) == pytest.approx(roc_auc_score(truth, score))
    threshold, rate = equal_error(genuine, impostor)
    refused, accepted = (genuine > threshold).mean(), (impostor <= threshold).mean()
    assert abs(refused - accepted) == pytest.approx(np.abs(false - 1 + true).min())
    assert rate == pytest.approx((refused + accepted) / 2)


def test_no_kin_no_error_rate():
    assert np.isnan(equal_error(np.zeros(0), np.ones(3))).all()
    assert np.isnan(area(np.ones(3), np.zeros(0)))


def test_shares_are_counts():
    distance = np.array([0.3, 0.1, 0.2, 0.2])
    np.testing.assert_allclose(accepted(distance, np.array([0.0, 0.1, 0.2, 0.25, 9.0])), [0, 0.25, 0.75, 0.75, 1])


def test_the_marks_lie_on_the_curves():
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(0.4, 0.1, 300), random.normal(0.8, 0.1, 200)
    figure = curves(genuine, impostor, {"p = 0.01": 0.55, "equal error": 0.6}, "some")
    plain, normal = figure.axes
    line, *_ = plain.lines
    for limit, mark in zip((0.55, 0.6), plain.lines[2:], strict=True):
        x, y = (impostor <= limit).mean(), (genuine <= limit).mean()
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((x, y))
        assert np.hypot(line.get_xdata() - x, line.get_ydata() - y).min() < 1e-9
    det = normal.lines[0].get_xydata()
    assert (np.diff(det[:, 0]) >= 0).all()
    assert (np.diff(det[:, 1]) <= 0).all()
    assert [text.get_text() for text in plain.get_legend().get_texts()] == [
        f"p = 0.01: distance 0.550, {(genuine <= 0.55).mean():.0%} of the versions",
        f"equal error: distance 0.600, {(genuine <= 0.6).mean():.0%} of the versions",
    ]


def test_without_kin_or_strangers_there_is_no_picture():
    assert picture(np.zeros(0), np.ones(3), 0.5, "p", "index") is None
    assert picture(np.ones(3), np.zeros(0), 0.5, "p", "index") is None
    one = picture(np.array([0.1]), np.array([0.9]), None, "p", "index")
    assert "1 versions, 1 strangers; area 1.000, equal error 0.000" in one.get_suptitle()
