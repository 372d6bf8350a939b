"""Distances as a picture: points in the plane, near where tracks are near."""

from __future__ import annotations

import numpy as np

from tonnetz.errors import UserError

METHODS = ("tsne", "umap", "pca")


def project(distance: np.ndarray, method: str = "tsne", seed: int = 0, dims: int = 2) -> np.ndarray:
    """Points (N, dims) for symmetric distances (N, N), N at least 1; raises UserError for an unknown method.

    t-SNE (van der Maaten & Hinton 2008) or UMAP (McInnes et al. 2018, extra `umap`), both on the distances
    themselves. ``pca`` is classical scaling, which for Euclidean distances is what principal components are; fewer than
    five tracks are always laid out so: the other methods make no sense of them.
    """
    if method not in METHODS:
        raise UserError(f"task.projection={method}: known are {', '.join(METHODS)}")
    count = len(distance)
    if count < 5 or method == "pca":
        return _classical(distance, dims)
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise UserError("task.projection=umap: is not installed; pip install 'tonnetz[umap]'") from None
        near = min(15, count - 1)
        umap = UMAP(metric="precomputed", n_neighbors=near, n_components=dims, random_state=seed)
        return umap.fit_transform(distance)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (count - 1) / 3)
    tsne = TSNE(dims, metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    return tsne.fit_transform(distance)


def _classical(distance: np.ndarray, dims: int) -> np.ndarray:
    """Classical multidimensional scaling (Torgerson 1952)."""
    centre = np.eye(len(distance)) - 1 / len(distance)
    values, vectors = np.linalg.eigh(-0.5 * centre @ distance**2 @ centre)
    points = vectors[:, ::-1] * np.sqrt(values[::-1].clip(min=0))
    return np.pad(points, ((0, 0), (0, dims - 1)))[:, :dims]
