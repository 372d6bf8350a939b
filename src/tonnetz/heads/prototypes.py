"""The nearest class mean."""

from __future__ import annotations

from torch import Tensor

from tonnetz.geometry import Flat
from tonnetz.heads.base import Head, chosen, means

DISTANCES = ("euclidean", "squared", "cosine")


class Prototypes(Head):
    """The class whose mean is nearest: prototypical networks (Snell et al. 2017, arXiv:1703.05175).

    Args:
        distance: euclidean (scores -|q - p|), squared (-|q - p|^2, as in the paper), or cosine (cos(q, p)).
        scale: the score's factor, an inverse temperature; it changes probabilities, not decisions.
        normalize: none, l2 or cl2; see `Head`.
    """

    def __init__(self, distance: str = "euclidean", scale: float = 1.0, normalize: str = "none") -> None:
        super().__init__(normalize)
        self.distance, self.scale = chosen("distance", distance, DISTANCES), scale

    def scores(self, support: Tensor, mask: Tensor, query: Tensor, valid: Tensor) -> Tensor:
        """Scaled similarity to class means."""
        return self.scale * similarity(query, means(support, mask), self.distance)


class SimpleShot(Prototypes):
    """Nearest mean of normalised embeddings, by squared distance (Wang et al. 2019, arXiv:1911.04623).

    Args:
        normalize: none, l2 or cl2.
        scale: the score's factor; the paper only takes the nearest, so it is free.
    """

    def __init__(self, normalize: str = "cl2", scale: float = 10.0) -> None:
        super().__init__("squared", scale, normalize)


def similarity(query: Tensor, prototype: Tensor, distance: str = "euclidean") -> Tensor:
    """Similarity (E, M, C) of queries (E, M, D) and prototypes (E, C, D): minus a distance, or a cosine."""
    space = Flat(distance)
    away = space.distance(space.place(query), prototype)
    return 1 - away if distance == "cosine" else -away
