"""Pictures of distances: near tracks are near, and any number of tracks can be drawn."""

import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tonnetz.errors import UserError
from tonnetz.projection import project


def clusters(count, each):
    centre = np.repeat(np.eye(count) * 10, each, 0)
    points = centre + np.random.default_rng(0).normal(0, 0.3, centre.shape)
    return np.linalg.norm(points[:, None] - points[None], axis=2)


@pytest.mark.parametrize("method", ["tsne", "umap", "pca"])
def test_works_stay_together(method):
    if method == "umap":
        pytest.importorskip("umap", reason="the extra umap is not installed")
    distance = clusters(4, 6)
    points = project(distance, method)
    assert points.shape == (24, 2)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    same = np.kron(np.eye(4), np.ones((6, 6))).astype(bool) & ~np.eye(24, dtype=bool)
    nearest = np.where(np.eye(24, dtype=bool), np.inf, apart).argmin(1)
    assert same[np.arange(24), nearest].all()


@pytest.mark.parametrize("dims", [2, 3])
def test_classical_scaling_is_the_principal_components(dims):
    points = np.random.default_rng(1).normal(0, [4, 3, 2, 1], (30, 4))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    expected = PCA(dims).fit_transform(points)
    found = project(distance, "pca", dims=dims)
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-6)  # but for the sign of each


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_few_tracks_are_drawn_too(count):
    points = project(clusters(count, 1))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()


def test_two_tracks_keep_their_distance():
    points = project(np.array([[0.0, 3.0], [3.0, 0.0]]))
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(3.0)


def test_umap_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"pip install 'tonnetz\[umap\]'"):
        project(clusters(3, 2), "umap")


def test_an_unknown_method_is_refused():
    with pytest.raises(UserError, match="known are"):
        project(clusters(3, 2), "mds")
