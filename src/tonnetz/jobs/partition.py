"""job=partition: which class goes to which part of a corpus, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tonnetz.errors import UserError
from tonnetz.figures import save
from tonnetz.jobs.taxonomy import class_counts, show_tree
from tonnetz.manifest import Run, write_json
from tonnetz.partition import partition
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import SPLITS
from tonnetz.tree_figure import draw_tree

COLOURS = ("blue", "green", "magenta", "yellow", "cyan", "red")  # of parts, again from the first


def run(cfg: DictConfig, run: Run) -> None:
    """Print the tree of the corpus's classes coloured by part, and write `partition.json`: part -> classes."""
    from tonnetz.build import build_data, connect

    forced = {key: dict(cfg.data[key] or {}) for key in ("held_out", "fixed")}
    cfg = _as_asked(cfg)
    data = build_data(cfg, connect(cfg.frontend))
    counts = class_counts(data.everything)
    tree = Taxonomy.load(data.taxonomy) if data.taxonomy else None
    sizes = _sizes(cfg.job.sizes)
    if sizes:
        counts = {name: count for name, count in counts.items() if name in data.partition}
        found = partition(
            counts, tree, sizes, cfg.data.split_level, data.split_seed, minimum=data.min_classes, **forced
        )
        splits, report = found.splits, found.report
    else:
        splits, report = data.partition, data.notes
    names = list(sizes or [name for name in SPLITS if name in splits.values()])
    parts = {part: sorted(name for name, own in splits.items() if own == part) for part in names}
    ordered = {name: part for part, own in parts.items() for name in own}
    write_json(run.folder / "partition.json", parts)
    shown = tree or Taxonomy(dict.fromkeys(sorted(splits)))
    show(shown, parts, counts)
    for line in report:
        print(line)
    save(draw_tree(shown, list(ordered), title="classes by part", parts=ordered), run.folder / "figures/partition.png")
    run.facts["partition"] = {part: len(own) for part, own in parts.items()}


def _as_asked(cfg: DictConfig) -> DictConfig:
    """The configuration with ``data.split=classes`` and the job's own level and seed."""
    cfg = cfg.copy()
    cfg.data.split = "classes"
    if cfg.job.level is not None:
        cfg.data.split_level = cfg.job.level
    if cfg.job.seed is not None:
        cfg.data.split_seed = cfg.job.seed
    if cfg.job.sizes is not None:  # these may name other parts
        cfg.data.held_out = cfg.data.fixed = None
    return cfg


def _sizes(node: Any) -> dict[str, float] | None:
    """Sizes by part; a list of up to three is for train, valid and test. Raises UserError for anything else."""
    if node is None:
        return None
    values = OmegaConf.to_container(node) if isinstance(node, (DictConfig, ListConfig)) else node
    if isinstance(values, list) and len(values) <= len(SPLITS):
        values = dict(zip(SPLITS, values, strict=False))
    if not isinstance(values, dict) or not all(isinstance(size, (int, float)) for size in values.values()):
        raise UserError(
            f"job.sizes={values}: give three fractions, [0.7,0.2,0.1], or parts by name, {{a: 0.5, b: 0.5}}"
        )
    return {str(part): float(size) for part, size in values.items()}


def show(tree: Taxonomy, parts: Mapping[str, list[str]], counts: Mapping[str, int]) -> None:
    """Print the tree coloured by part, and a table of classes and examples."""
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "classes", "examples", "fewest", "most")
    styles: dict[str, str] = {}
    notes: dict[str, str] = {}
    for i, (part, names) in enumerate(parts.items()):
        own = [counts[name] for name in names if name in counts]
        colour = COLOURS[i % len(COLOURS)]
        table.add_row(
            part, str(len(names)), f"{sum(own):,}", *((f"{min(own):,}", f"{max(own):,}") if own else ("", ""))
        )
        table.rows[-1].style = colour
        styles |= dict.fromkeys(names, colour)
        notes |= {name: f"{part} {counts.get(name, 0):,}" for name in names}
    show_tree(tree, list(styles), notes, "classes by part", styles)
    Console().print(table)
