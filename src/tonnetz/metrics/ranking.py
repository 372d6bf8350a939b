"""Retrieval metrics: every query ranks the references; what belongs to its work should come first.

Standard definitions, per query with R relevant references among N usable ones:

- AP = 1 / R sum over relevant items of (relevant items up to it) / (its rank); MAP is its mean over queries;
- rank1 = rank of the first relevant item: MR1 its mean, MRR the mean of its inverse, hit@k how often it is <= k;
- NAR = 100 / R sum over relevant items of (irrelevant items above it) / (all irrelevant items) (ARP in CLEWS);
- COMP = sqrt(NAR (1 - MAP)): lower is better;
- EER: the rate at which, by a threshold on the nearest distance, as many queries with a version are refused as queries
  would be accepted if their versions were not there.

Queries without a relevant reference are left out and counted. Equal distances keep the order of the references.
`compat` gives the definitions of CoverHunter instead: AP over the hits among the first 10,000, queries without a
positive counted with AP 0 and rank 0, and cells with a negative distance dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.metrics.bootstrap import interval
from tonnetz.rejection import equal_error

DEPTH = 10_000  # ranks that CoverHunter looks at
KEPT = 4_000_000  # distances that are kept for pictures and export


@dataclass
class Retrieval:
    """Scores of a retrieval: means by name, and what each query got (so a bootstrap never ranks again)."""

    values: dict[str, float]
    query: Tensor  # (Q,) rows that asked
    work: Tensor  # (Q,) their works
    per_query: dict[str, Tensor] = field(default_factory=dict)  # ap, rank1, nar, ... (Q,), see `Ranking`
    references: Tensor | None = None  # (R,)
    distance: Tensor | None = None  # (asked, R) of all that asked, when it is small enough to keep
    asked: Tensor | None = None  # (asked,) rows, with those that have nothing to find
    groups: Tensor | None = None  # (tracks,) work of every row

    def square(self) -> tuple[Tensor, np.ndarray]:
        """Rows that are queries and references, and their symmetric distances with a zero diagonal."""
        assert self.distance is not None
        assert self.asked is not None
        assert self.references is not None
        rows = self.asked[torch.isin(self.asked, self.references)].unique()
        first = torch.searchsorted(self.asked, rows) if len(rows) else rows
        second = torch.stack([(self.references == row).nonzero()[0, 0] for row in rows]) if len(rows) else rows
        part = self.distance[first][:, second].double()
        part = ((part + part.T) / 2).fill_diagonal_(0.0).clamp(min=0)
        return rows, part.cpu().numpy()

    def within_between(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of pairs of one work, and of different works."""
        assert self.distance is not None
        assert self.asked is not None
        assert self.references is not None
        work = self.groups
        assert work is not None
        unlike = self.asked[:, None] != self.references
        same = (work[self.asked][:, None] == work[self.references]) & (work[self.asked] >= 0)[:, None]
        return self.distance[same & unlike].cpu().numpy(), self.distance[~same & unlike].cpu().numpy()


class Ranking:
    """Takes distances block by block and keeps what each query got.

    Of each query it keeps `ap`, `rank1`, `nar`, `top10`, and the distances to the nearest `kin` and `stranger`.

    Args:
        work: work of every track, -1 unknown.
        references: rows that answer, (R,).
        exclude: pairs (E, 2) of rows that are not compared, beside every track with itself.
        compat: CoverHunter's definitions.
        keep: whether to keep all distances.
    """

    def __init__(
        self, work: Tensor, references: Tensor, exclude: Tensor | None = None, compat: bool = False, keep: bool = True
    ) -> None:
        self.work, self.references, self.compat, self.keep = work, references, compat, keep
        self.excluded = None if exclude is None else _codes(exclude.to(work.device), len(work)).unique()
        self.parts: list[dict[str, Tensor]] = []
        self.blocks: list[Tensor] = []

    def add(self, rows: Tensor, distance: Tensor) -> None:
        """Rank the distances (q, R) of the queries `rows` (q,). Raises UserError for NaN."""
        if distance.isnan().any():
            raise UserError("a distance is not a number; an embedding is broken")
        usable = self._usable(rows, distance)
        relevant = (self.work[rows][:, None] == self.work[self.references]) & usable & (self.work[rows] >= 0)[:, None]
        near = distance.masked_fill(~usable, torch.inf)
        hit = relevant.gather(1, near.argsort(dim=1, stable=True))  # (q, R)
        unlike = ~relevant & (self.work[self.references] >= 0)  # what is unknown may be kin
        nearest = {"kin": relevant, "stranger": unlike}
        nearest = {name: near.masked_fill(~mine, torch.inf).amin(1) for name, mine in nearest.items()}
        if self.compat:
            hit[:, DEPTH:] = False
        self.parts.append({"row": rows, **nearest, **_per_query(hit, usable.sum(1))})
        if self.keep:
            self.blocks.append(distance)

    def _usable(self, rows: Tensor, distance: Tensor) -> Tensor:
        """Cells that count (q, R)."""
        usable = rows[:, None] != self.references
        if self.excluded is not None:
            pairs = torch.stack(torch.broadcast_tensors(rows[:, None], self.references), -1)  # (q, R, 2)
            usable &= ~torch.isin(_codes(pairs, len(self.work)), self.excluded)
        return usable & (distance >= 0) if self.compat else usable

    def result(self) -> Retrieval:
        """All scores. Raises UserError when no query has anything to find."""
        found = {key: torch.cat([part[key] for part in self.parts]) for key in self.parts[0]} if self.parts else {}
        if not found or not (found["positives"] > 0).any():
            raise UserError("no work has two recordings here, so there is nothing to find; check the column work")
        some = found["positives"] > 0
        asked = found["row"]
        without = int((~some).sum())
        if not self.compat:
            found = {key: value[some] for key, value in found.items()}
        per_query = {key: found[key] for key in ("ap", "rank1", "nar", "top10", "kin", "stranger")}
        rate = equal_error(*nearest(per_query))[1]
        error = {} if np.isnan(rate) else {"eer": rate}
        return Retrieval(
            values=means(per_query) | error | {"queries": len(found["row"]), "without_positive": without},
            query=found["row"],
            work=self.work[found["row"]],
            per_query=per_query,
            references=self.references,
            distance=torch.cat(self.blocks) if self.blocks else None,
            asked=asked,
            groups=self.work,
        )


def _codes(pairs: Tensor, tracks: int) -> Tensor:
    """One number for each pair (..., 2) of rows."""
    return pairs[..., 0].long() * tracks + pairs[..., 1].long()


def _per_query(hit: Tensor, usable: Tensor) -> dict[str, Tensor]:
    """Scores (q,) of hits (q, R) in the order of their distances, of which the first `usable` (q,) count."""
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device, dtype=torch.float64)
    relevant = hit.double()
    above = relevant.cumsum(1)  # relevant items up to each
    positives = relevant.sum(1)
    count = positives.clamp(min=1)
    ap = (above / rank * relevant).sum(1) / count
    first = torch.where(positives > 0, hit.int().argmax(1) + 1.0, 0.0)
    irrelevant = (usable - positives).clamp(min=1)
    nar = 100 * ((rank - above) * relevant).sum(1) / count / irrelevant
    return {"ap": ap, "rank1": first, "nar": nar, "positives": positives, "top10": relevant[:, :10].sum(1)}


def means(per_query: dict[str, Tensor]) -> dict[str, float]:
    """Scores of all queries together from those of each."""
    ap, first = per_query["ap"], per_query["rank1"]
    values = {
        "map": ap.mean(),
        "hit1": (first == 1).double().mean(),
        "hit10": ((first > 0) & (first <= 10)).double().mean(),
        "top10": per_query["top10"].mean() / 10,
        "mr1": first.mean(),
        "mrr": torch.where(first > 0, 1 / first.clamp(min=1), 0.0).mean(),
        "nar": per_query["nar"].mean(),
    }
    values["comp"] = (values["nar"] * (1 - values["map"])).clamp(min=0).sqrt()
    return {name: float(value) for name, value in values.items()}


def nearest(per_query: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Distances (g,) of queries to the nearest version and (k,) to the nearest recording of another work."""
    kin, stranger = (per_query[name].double().cpu().numpy() for name in ("kin", "stranger"))
    return kin[np.isfinite(kin)], stranger[np.isfinite(stranger)]


def intervals(result: Retrieval, rounds: int = 1000, seed: int = 12345) -> dict[str, float]:
    """95 % bootstrap intervals over works, name_low and name_high, for map, hit1, mr1 and nar.

    Works are drawn with replacement, with all their queries; the references stay. A work is its sums over queries, so
    a round ranks nothing again.
    """
    first = result.per_query["rank1"]
    columns = {
        "map": result.per_query["ap"],
        "hit1": (first == 1).double(),
        "mr1": first,
        "nar": result.per_query["nar"],
    }
    _, code = result.work.unique(return_inverse=True)
    found: dict[str, float] = {}
    for name, values in columns.items():
        table = torch.stack([torch.ones_like(values), values], 1).double()  # (Q, 2)
        sums = table.new_zeros(int(code.max()) + 1, 2).index_add(0, code, table)  # (W, 2)
        low, high = interval(sums, lambda s: s[..., 1] / s[..., 0], draws=rounds, seed=seed)
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found
