"""Where classes stand in a tree, and what an answer that is only sure of a family is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy


@dataclass(frozen=True)
class Place:
    """A class: its name, the node of the taxonomy it is, or (when `attached`) hangs below; None stands alone."""

    name: str
    node: str | None = None
    attached: bool = False


def place_of(name: str, tree: Taxonomy | None) -> Place:
    """The place of a class by its name or an alias; alone when the tree has none."""
    try:
        return Place(name, tree.resolve(name) if tree else None)
    except UserError:
        return Place(name)


def lines(places: Sequence[Place], tree: Taxonomy | None) -> list[tuple[str, ...]]:
    """The nodes above each class, nearest first. A class's own node is among them where another class is under it."""
    if tree is None:
        return [() for _ in places]
    own = [(p.node, *tree.ancestors(p.node)) if p.node else () for p in places]
    found = []
    for i, (place, line) in enumerate(zip(places, own, strict=True)):
        others = {node for j, other in enumerate(own) if j != i for node in other}
        found.append(line if place.attached or (line and line[0] in others) else line[1:])
    return found


def table(above: Sequence[Sequence[str]]) -> tuple[Tensor, list[str]]:
    """Nodes (C, L) of each class from itself upwards, and the names of nodes from C on; classes are 0 ... C - 1.

    Padded like `Taxonomy.levels`: families in the last column, a short line repeats its lowest node.
    """
    names = list(dict.fromkeys(node for line in above for node in line))
    code = {name: len(above) + i for i, name in enumerate(names)}
    depth = 1 + max((len(line) for line in above), default=0)
    rows = []
    for i, line in enumerate(above):
        codes = [code[node] for node in line]
        rows.append([i, *[(codes or [i])[0]] * (depth - 1 - len(codes)), *codes])
    return torch.tensor(rows, dtype=torch.long).view(len(above), depth), names


def families(places: Sequence[Place], tree: Taxonomy) -> dict[str, list[int]]:
    """The classes of each family, of those that have a place of their own."""
    found: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        if place.node and not place.attached and (family := tree.family(place.node)):
            found.setdefault(family, []).append(i)
    return found


def nearest_family(name: str, distances: Mapping[str, float]) -> Place:
    """The class under the family whose prototype is nearest; alone when there is none."""
    return Place(name, min(distances, key=lambda key: distances[key]), attached=True) if distances else Place(name)


def some(node: str) -> str:
    """What is said of something that is surely a node and not more: "some bowed lute"."""
    words = node.replace("_", " ").split(" and ")
    return "some " + " and ".join(word if word.endswith("ss") else word.removesuffix("s") for word in words)
