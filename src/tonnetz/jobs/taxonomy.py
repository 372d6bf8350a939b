"""job=taxonomy: a tree of instruments on the screen, as a picture and as a file; its aliases and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import yaml
from omegaconf import DictConfig

from tonnetz.atomic import replacing
from tonnetz.errors import UserError
from tonnetz.figures import save
from tonnetz.manifest import Run, write_json
from tonnetz.taxonomy import DEFAULT, Taxonomy
from tonnetz.tree_figure import draw_tree
from tonnetz.tree_files import ALIASES, packaged

if TYPE_CHECKING:
    from rich.tree import Tree

FEW = 12  # names in a line


def run(cfg: DictConfig, run: Run) -> None:
    """Show a tree: print it, draw it, check its aliases, measure two labels, write it."""
    name = str(cfg.job.tree or cfg.data.taxonomy or DEFAULT)
    tree = _load(cfg, name)
    tables = check_aliases(tree)
    counts = _counts(cfg, name) if cfg.job.counts else None
    classes = sorted(counts, key=tree.nodes.index) if counts else list(tree.leaves())
    facts = describe(tree, classes) | {"tree": name, "aliases": tables, "lacking": lacking(tree)}
    if cfg.job.between:
        facts["between"] = between(tree, list(cfg.job.between))
        print(_sentence(facts["between"]))
    else:
        show_tree(tree, classes, {node: f"{count:,}" for node, count in (counts or {}).items()}, name)
        show(facts)
    if cfg.job.out:
        write(tree, Path(cfg.job.out), name)
    write_json(run.folder / "taxonomy.json", facts | ({"counts": counts} if counts else {}))
    save(draw_tree(tree, classes, title=name), run.folder / "figures" / "taxonomy.png")
    run.facts["taxonomy"] = facts


def _load(cfg: DictConfig, name: str) -> Taxonomy:
    """The tree. Raises UserError that names the key which asked for it."""
    try:
        return Taxonomy.load(name)
    except UserError as error:
        key = "job.tree" if cfg.job.tree else "data.taxonomy"
        raise UserError(str(error).replace("data.taxonomy=", f"{key}=", 1)) from None


def _counts(cfg: DictConfig, name: str) -> dict[str, int]:
    """Tracks of every class of the corpus, its labels read by this tree."""
    from tonnetz.build import build_data, connect

    cfg = cfg.copy()
    cfg.data.taxonomy = name
    return class_counts(build_data(cfg, connect(cfg.frontend)).everything)


def class_counts(frame: pl.DataFrame) -> dict[str, int]:
    """Tracks that carry each label, in the order of the names."""
    return dict(frame["labels"].explode().drop_nulls().value_counts().sort("labels").iter_rows())


def check_aliases(tree: Taxonomy) -> dict[str, int]:
    """The number of aliases in each table. Raises UserError for one that does not lead where it says."""
    for corpus, table in tree.aliases.items():
        for label, node in table.items():
            found = tree.resolve(label, corpus or None)
            if found != node:
                raise UserError(f"{corpus or 'general'}.{label}: means '{node}', but '{found}' comes first; remove it")
    return {corpus or "general": len(table) for corpus, table in tree.aliases.items()}


def lacking(tree: Taxonomy) -> dict[str, list[str]]:
    """By corpus, the labels in the alias tables of the package's trees, and their leaves, that this tree lacks."""
    labels: dict[str, set[str]] = {}
    for other in map(Taxonomy.load, packaged()):
        for corpus, table in (*other.aliases.items(), ("leaves", other.leaves())):
            labels.setdefault(corpus, set()).update(table)
    found = {
        corpus or "general": sorted(label for label in names if not tree.knows(label, corpus))
        for corpus, names in sorted(labels.items())
    }
    return {corpus: names for corpus, names in found.items() if names}


def describe(tree: Taxonomy, classes: Sequence[str]) -> dict[str, Any]:
    """Numbers of a tree over some classes: groups at each height, mean height of two different classes' ancestor."""
    groups = [len(np.unique(column)) for column in tree.levels(classes).T]
    apart = ~np.eye(len(classes), dtype=bool)
    means = {}
    for key, padded in (("padded", True), ("natural", False)):
        heights = tree.lca_heights(classes, padded)[apart]
        means[key] = round(float(heights.mean()), 4) if heights.size else None
    return {
        "classes": len(classes),
        "leaves": len(tree.leaves()),
        "inner": len(tree.inner),
        "groups": len(tree.groups),
        "depth": tree.depth,
        "groups_at_height": groups,  # on the padded tree; 0 is the classes
        "chance_severity": means,  # of a uniformly wrong answer
    }


def between(tree: Taxonomy, labels: Sequence[str]) -> dict[str, Any]:
    """How far two labels are apart: edges between them, and both heights of their lowest common ancestor."""
    if len(labels) != 2:
        raise UserError(f"job.between={labels}: needs two labels, e.g. [violin,viola]")
    nodes = [tree.resolve(label) for label in labels]
    lines = [(node, *tree.ancestors(node)) for node in nodes]
    return {
        "nodes": nodes,
        "common": next((node for node in lines[0] if node in lines[1]), None),
        "edges": tree.distance(*nodes),
        "padded": int(tree.lca_heights(nodes)[0, 1]),
        "natural": int(tree.lca_heights(nodes, padded=False)[0, 1]),
    }


def _sentence(found: Mapping[str, Any]) -> str:
    a, b = found["nodes"]
    place = f"both under {found['common']}" if found["common"] else "only the root is above both"
    heights = f"height of the common ancestor {found['padded']} padded, {found['natural']} natural"
    return f"{a} and {b}: {place}; {found['edges']} edges apart; {heights}"


def write(tree: Taxonomy, path: Path, name: str) -> None:
    """Write a tree as YAML, and its groups and aliases beside it as NAME.aliases.yaml; `Taxonomy.load` reads both."""
    if path.suffix != ".yaml":
        raise UserError(f"job.out={path}: a tree is a YAML file, give it the ending .yaml")
    side = path.with_name(f"{path.stem}.{ALIASES}")
    for place, content in ((path, tree.tree()), (side, tree.tables())):
        if content:
            with replacing(place) as part:
                text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
                part.write_text(f"# Written by job=taxonomy from {name}\n{text}", encoding="utf-8")
    print(f"written: {path}" + (f" and {side.name}" if tree.tables() else ""))


def show(facts: Mapping[str, Any]) -> None:
    """Print the numbers of a tree."""
    tables = ", ".join(f"{name} {count}" for name, count in facts["aliases"].items())
    severity = ", ".join(f"{key} {value}" for key, value in facts["chance_severity"].items())
    print(f"{facts['leaves']} leaves, {facts['inner']} inner nodes, {facts['groups']} groups, depth {facts['depth']}")
    print(f"groups of {facts['classes']} classes from height 0 up: {', '.join(map(str, facts['groups_at_height']))}")
    print(f"mean height of the common ancestor of two different classes (chance severity): {severity}")
    print(f"aliases, all resolve: {tables or 'none'}")
    for corpus, labels in facts["lacking"].items():
        few = ", ".join(labels[:FEW]) + (", ..." if len(labels) > FEW else "")
        kind = "leaves" if corpus == "leaves" else f"names of {corpus}"
        print(f"other trees also have {len(labels)} {kind}: {few}")


def show_tree(
    tree: Taxonomy,
    classes: Sequence[str],
    notes: Mapping[str, str],
    title: str,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print the tree above some classes, a note after a name, nodes in their style."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    pruned, chosen = tree.pruned(classes), set(classes)
    branches: dict[str | None, Tree] = {None: Tree(title, guide_style="dim")}
    for name in sorted(pruned.nodes, key=pruned.level):  # parents first; stable, so as in the tree
        text = Text(name, (styles or {}).get(name, "" if name in chosen else "bold"))
        text.append(f"  {notes[name]}" if name in notes else "", "dim")
        branches[name] = branches[pruned.parent(name)].add(text)
    Console().print(branches[None])
