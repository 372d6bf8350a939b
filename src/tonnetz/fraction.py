"""A part of the training tracks: classes in their proportions, recordings whole, the same for one seed."""

from __future__ import annotations

import numpy as np
import polars as pl

from tonnetz.tracks import recordings


def thinned(frame: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """A table with `fraction` of its rows of the split train, and all others.

    Tracks of a group (or of a file) stay together. Of every class there is its share, rounded, and at least one track;
    classes are served in turn, the rarest first. Of one seed, smaller parts lie in larger ones where each track has
    one label. Tracks without labels are a class of their own.
    """
    if fraction == 1:
        return frame
    train = frame.with_row_index("place").filter(split="train")
    keys, owner = np.unique(recordings(train).to_list(), return_inverse=True)
    counts = _counts(train, owner, len(keys))
    order = np.random.default_rng([seed, 1]).permutation(len(keys))
    taken = np.zeros(len(keys), bool)
    for column in np.argsort(counts.sum(0), kind="stable"):
        wanted = max(1, round(fraction * counts[:, column].sum())) - counts[taken, column].sum()
        if wanted > 0:
            members = order[~taken[order] & (counts[order, column] > 0)]
            taken[members[: int(np.searchsorted(counts[members, column].cumsum(), wanted)) + 1]] = True
    keep = np.ones(frame.height, bool)
    keep[train["place"].to_numpy()] = taken[owner]
    return frame.filter(pl.Series(keep))


def _counts(train: pl.DataFrame, owner: np.ndarray, units: int) -> np.ndarray:
    """Tracks of each class by unit (units, classes); the last column stands for tracks without labels."""
    lists = train["labels"].to_list()
    names = sorted({name for found in lists for name in found or ()})
    number = {name: i for i, name in enumerate(names)}
    counts = np.zeros((units, len(names) + 1), np.int64)
    for unit, found in zip(owner.tolist(), lists, strict=True):
        for column in [number[name] for name in found or ()] or [len(names)]:
            counts[unit, column] += 1
    return counts[:, counts.sum(0) > 0]
