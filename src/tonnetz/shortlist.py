"""An approximate index of many vectors (FAISS): inverted lists of 8-bit codes, to be judged exactly afterwards."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.errors import UserError

THRESHOLD = 200_000  # vectors from which on the shortlist is worth its making
SHARE = 8  # a query looks into one list of so many
TRAINING = 48  # vectors a list to train with


def load_faiss() -> Any:
    """The package. Raises UserError without it."""
    try:
        import faiss
    except ImportError:
        raise UserError(
            "job.faiss=true, job.vectors: FAISS is not installed; pip install 'tonnetz[faiss]', or leave them"
        ) from None
    return faiss


@cache
def _note_absence() -> None:
    """Say once that a large index is searched slowly."""
    logging.getLogger(__name__).warning(
        "FAISS is not installed, so all of the index is searched; pip install 'tonnetz[faiss]' to search it faster"
    )


class Shortlist:
    """Neighbours of vectors by inner product (cosine, of unit vectors) or Euclidean distance."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.index.nprobe = max(index.nlist // SHARE, min(index.nlist, 16))

    @staticmethod
    def wanted(choice: bool | None, vectors: int) -> bool:
        """Whether to take a shortlist: as chosen, or for many vectors where FAISS is there."""
        if choice is not None:
            return choice
        if vectors < THRESHOLD:
            return False
        if not Shortlist.installed():
            _note_absence()
            return False
        return True

    @staticmethod
    def installed() -> bool:
        """Whether FAISS is there, and can be loaded: a broken one is none."""
        try:
            load_faiss()
        except UserError:
            return False
        return True

    @classmethod
    def build(cls, vectors: Tensor, distance: str = "cosine") -> Shortlist:
        """Make it from vectors (M, D): about 4 sqrt(M) lists, found by k-means of a part of the vectors."""
        faiss = load_faiss()
        data = np.ascontiguousarray(vectors.numpy(), np.float32)
        lists = int(np.clip(4 * np.sqrt(len(data)), 1, max(len(data) // 39, 1)))
        metric = faiss.METRIC_INNER_PRODUCT if distance == "cosine" else faiss.METRIC_L2
        coarse = faiss.IndexFlatIP(data.shape[1]) if distance == "cosine" else faiss.IndexFlatL2(data.shape[1])
        index = faiss.IndexIVFScalarQuantizer(coarse, data.shape[1], lists, faiss.ScalarQuantizer.QT_8bit, metric)
        index.cp.niter, index.cp.seed = 10, 1234
        chosen = np.random.default_rng(0).permutation(len(data))[: TRAINING * lists]
        index.train(data[np.sort(chosen)])
        index.add(data)
        return cls(index)

    @classmethod
    def load_or_build(cls, path: Path, vectors: Tensor, distance: str) -> Shortlist:
        """Read the file, or build and write it."""
        faiss = load_faiss()
        if path.is_file():
            return cls(faiss.read_index(str(path)))
        made = cls.build(vectors, distance)
        with replacing(path) as part:
            faiss.write_index(made.index, str(part))
        return made

    def search(self, queries: Tensor, neighbours: int) -> np.ndarray:
        """Numbers (n, k) of the vectors nearest to queries (n, D), -1 where there are fewer."""
        return self.index.search(np.ascontiguousarray(queries.numpy(), np.float32), neighbours)[1]
