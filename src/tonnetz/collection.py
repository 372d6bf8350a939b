"""Recordings by the unit vectors of their windows, in memory: what is searched, averaged and calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tonnetz.centroids import Centroids, average
from tonnetz.matching import Matching
from tonnetz.shortlist import Shortlist
from tonnetz.windows import Windows, gather, own_tempo, part_of, stacked

COLUMNS: dict[str, Any] = {
    "id": pl.String,
    "path": pl.String,
    "work": pl.String,
    "duration": pl.Float64,
    "mark": pl.String,  # changes when the file does
    "corpus": pl.String,  # that names the id and the work; null: they are named by hand, and mean what they say
    "windows": pl.Int64,  # at all tempi
}


class Collection:
    """Recordings by their vectors: `windows` are those that answer, `asked` those that ask, at each of the `tempi`.

    Args:
        facts: what the vectors have in common: distance and reduction, `tempi` at which queries are read and, for
            vectors with the pitch class innermost, in how many keys (`transpositions`) a query is tried.
        name: what errors call it.
    """

    def __init__(self, facts: dict[str, Any], name: str = "collection") -> None:
        self.facts, self.name = facts, name
        self.tempi = [float(tempo) for tempo in facts.get("tempi", (1.0,))]
        self.tempo = own_tempo(self.tempi)
        self.match_by(facts["reduction"])
        self.hold(pl.DataFrame(schema=COLUMNS), _nothing(int(facts.get("dim", 0))))

    def match_by(self, reduction: str) -> None:
        """Choose the reduction of the distances between the windows of two recordings."""
        self.facts = {**self.facts, "reduction": reduction}
        self.matching = Matching(self.facts["distance"], reduction, self.facts.get("transpositions", 1))

    def hold(self, table: pl.DataFrame, arrays: Mapping[str, Tensor]) -> None:
        """Take these recordings, with `windows` in the table, and the arrays of all of their windows."""
        self.table = table
        self.works = table["work"].drop_nulls().unique().sort().to_list()
        codes = table["work"].rank("dense").cast(pl.Int64) - 1
        self.work = codes.fill_null(-1).to_numpy()  # (R,) place in `works`, -1 unknown
        self.arrays = {k: v for k, v in arrays.items() if not k.startswith("null_")}
        self.row = np.repeat(np.arange(table.height), table["windows"].to_numpy())  # (M,) of windows at all tempi
        self.asked = [Windows.of(self.arrays, self.row, table.height, tempo) for tempo in self.tempi]
        self.windows = self.asked[self.tempi.index(self.tempo)]
        self._centroids: Centroids | None = None
        self._shortlist: Shortlist | None = None

    def __len__(self) -> int:
        return self.table.height

    def raw(self, vectors: Tensor, norms: Tensor) -> Tensor:
        """What distances are taken of: unit vectors for cosine, the embeddings themselves otherwise."""
        return vectors if self.facts["distance"] == "cosine" else vectors * norms[..., None]

    def cut(self, first: np.ndarray, count: np.ndarray, windows: Windows | None = None) -> tuple[Tensor, Tensor]:
        """Runs of windows, of those at the own tempo unless others are given, as (R, S, D) with their mask."""
        windows = windows or self.windows
        vectors, valid = gather(windows.vectors, first, count)
        return self.raw(vectors, gather(windows.norms, first, count)[0]), valid

    def asking(self, row: np.ndarray, first: np.ndarray, count: np.ndarray) -> tuple[Tensor, Tensor]:
        """What recordings `row` (Q,) ask with a run of their windows: (T, Q, S, D) at all tempi, and the mask.

        `first`, `count` (Q,) say which, at the own tempo; at others the same part of the recording is taken.
        """
        own = self.windows
        begin, share = (first - own.first[row]) / own.count[row], count / own.count[row]
        parts = []
        for there in self.asked:
            offset, size = part_of(there.count[row], begin, share)
            parts.append(self.cut(there.first[row] + offset, size, there))
        vectors, real = zip(*parts, strict=True)
        return stacked(vectors), stacked(real)

    def shortlist(self) -> Shortlist:
        """The approximate index of all windows, made when it is first needed."""
        if self._shortlist is None:
            self._shortlist = self._make_shortlist(self.raw(self.windows.vectors, self.windows.norms))
        return self._shortlist

    def _make_shortlist(self, vectors: Tensor) -> Shortlist:
        return Shortlist.build(vectors, self.facts["distance"])

    def centroids(self) -> Centroids:
        """The works' spherical means, computed once."""
        if self._centroids is None:
            self._centroids = average(self.works, self.work, self.windows, self.matching.turns)
        return self._centroids


def _nothing(dim: int) -> dict[str, Tensor]:
    empty = {name: torch.zeros(0) for name in ("norms", "start", "length", "tempo")}
    return {"vectors": torch.zeros(0, dim), **empty}
