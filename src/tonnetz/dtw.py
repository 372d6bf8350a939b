"""Dynamic time warping of many pairs at once: which moments of two recordings correspond, also at a changing tempo."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = ((1, 1), (1, 2), (2, 1))  # in a and in b: neither goes more than twice as fast as the other


def dtw(cost: Tensor, begin: Tensor | None = None, end: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Least sum of costs (P, n, m) along a path, (P,), and the path (P, n): the column of each row, -1 for none.

    A path takes the steps `STEPS` (Sakoe & Chiba 1978, slopes 1/2 to 2) and costs the cells that it visits. It begins
    and ends where the masks `begin` and `end` (n, m) allow; None allows all cells, which makes sense for costs that may
    be negative. NaN cells are not visited. The sum is infinite and the path empty when there is none.

    One pass over the rows for all pairs: with these steps a cell depends on the two rows above it alone.
    """
    pairs, rows, columns = cost.shape
    cost = cost.nan_to_num(nan=torch.inf).movedim(1, 0)  # (n, P, m)
    enter = cost.new_zeros(rows, columns) if begin is None else torch.where(begin, 0.0, torch.inf).to(cost)
    totals, steps = torch.empty_like(cost), torch.empty(cost.shape, dtype=torch.int8, device=cost.device)
    before = last = cost.new_full((pairs, columns + 2), torch.inf)  # two places before the first column
    for i in range(rows):
        ways = (last[:, 1:-1], last[:, :-2], before[:, 1:-1], enter[i].expand(pairs, -1))
        least, steps[i] = torch.stack(ways).min(0)
        totals[i] = cost[i] + least
        before, last = last, F.pad(totals[i], (2, 0), value=torch.inf)
    final = totals if end is None else totals.masked_fill(~end[:, None], torch.inf)
    total, cell = final.movedim(1, 0).flatten(1).min(1)  # (P,)
    return total, _back(steps, cell, total.isfinite())


def _back(steps: Tensor, cell: Tensor, found: Tensor) -> Tensor:
    """The path (P, n) from the steps (n, P, m) that led to each cell, back from the last `cell` (P,)."""
    rows, pairs, columns = steps.shape
    down, right = torch.tensor([*STEPS, (0, 0)], device=steps.device).T
    path = torch.full((pairs, rows), -1, device=steps.device)
    i, j, pair = cell // columns, cell % columns, torch.arange(pairs, device=steps.device)
    while found.any():
        some = pair[found]
        path[some, i[found]] = j[found]
        step = steps[i, pair, j].long()
        found = found & (step < len(STEPS))  # the others have come to their beginning
        i, j = i - torch.where(found, down[step], 0), j - torch.where(found, right[step], 0)
    return path
