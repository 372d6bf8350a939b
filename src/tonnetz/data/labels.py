"""Labels of a corpus in the words of a taxonomy."""

from __future__ import annotations

import polars as pl

from tonnetz.taxonomy import Taxonomy


def name_labels(frame: pl.DataFrame, tree: Taxonomy, corpus: str, unlisted: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """Map the labels of a corpus to nodes of a tree.

    Tracks with a label that the tree lacks are left out when `unlisted` is ``drop``; these labels are returned with
    the number of their tracks. Raises UserError for the first of them when it is ``fail``.
    """

    def listed(name: str) -> bool:
        return unlisted == "fail" or tree.knows(name, corpus)

    counts = dict(frame.select(pl.col("labels").explode()).drop_nulls().group_by("labels").len().iter_rows())
    lacking = {name: counts[name] for name in sorted(counts) if not listed(name)}
    frame = frame.filter(pl.col("labels").list.set_intersection(list(lacking)).list.len().fill_null(0) == 0)
    others = {name for name in frame["unknown"].explode().drop_nulls().unique() if listed(name)}
    nodes = {name: tree.resolve(name, corpus) for name in sorted((counts.keys() - lacking.keys()) | others)}
    kept = pl.element().filter(pl.element().is_in(list(nodes)))
    named = {
        column: pl.col(column).list.eval(kept.replace(nodes)).list.unique(maintain_order=True)
        for column in ("labels", "unknown")
    }
    return frame.with_columns(**named), lacking
