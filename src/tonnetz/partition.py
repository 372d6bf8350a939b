"""Parts of a set of classes, for learning from few examples: what is tested was never seen in training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from tonnetz.errors import UserError, suggest
from tonnetz.taxonomy import Taxonomy

SIZES = {"train": 0.7, "valid": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Partition:
    """Which class belongs to which part.

    Args:
        splits: the part of every class that has examples; classes in alphabetical order.
        report: what the user should know, one line each.
        names: the parts, in the order in which they were asked for.
    """

    splits: dict[str, str]
    report: list[str]
    names: tuple[str, ...]

    def parts(self) -> dict[str, list[str]]:
        """The classes of every part."""
        return {part: [name for name, own in self.splits.items() if own == part] for part in self.names}


def partition(
    counts: Mapping[str, int],
    tree: Taxonomy | None,
    sizes: Mapping[str, float] = SIZES,
    level: int = 2,
    seed: int = 0,
    minimum: int = 1,
    held_out: Mapping[str, Sequence[str]] | None = None,
    fixed: Mapping[str, Sequence[str]] | None = None,
) -> Partition:
    """Give every class that has examples to one part.

    The classes are dealt out inside every node at tree depth ``level - 1``: with level 1 all at once, with level 2
    inside each family, with level 3 inside each of the groups below, and so on. Of the n classes of such a node
    ``n x size`` go to a part, by largest remainders, and at least one to every part when n allows it. The parts draw
    one after the other, a class with a probability proportional to its examples (Efraimidis & Spirakis 2006), so the
    first part tends to get those with many.

    A node with fewer classes than there are parts cannot be in all of them: each of its classes goes to the part that
    is furthest below its size over all classes, of those that have none of this node yet. So does the class of a node
    that has one. The report names such nodes.

    Classes that lie above one another (`Taxonomy.related`) are dealt as one. The result depends on the seed and the
    classes, never on their order.

    Args:
        counts: examples of every class; names are nodes of the tree. Classes without any are left out.
        tree: None deals all classes out at once.
        sizes: the fraction of the classes for each part, any number of parts; they sum to 1.
        level: see above, from 1 to the depth of the tree. A flat tree has no families: level 1 it is.
        minimum: classes that every part with a size must get, from the largest part where dealing gives it fewer;
            UserError when there are not enough.
        held_out: part -> nodes whose classes it gets, all of them. Such a part gets nothing else, so it asks for
            families that no other part has; the sizes of the other parts share the rest.
        fixed: part -> classes, or nodes above them, put there by hand. They count towards the part's size.
    """
    share, names = _shares(sizes), list(sizes)
    classes = sorted(name for name, count in counts.items() if count > 0)
    if not classes:
        raise UserError("partition: no class has an example")
    held = _chosen(classes, tree, held_out or {}, names, "data.held_out")
    hand = _chosen(classes, tree, fixed or {}, names, "data.fixed")
    share[[names.index(part) for part in set(held.values())]] = 0  # these parts get nothing else
    units = _units(classes, counts, tree, level, seed)
    given = _given(units, held, hand, names)
    places = _fill(units, given, _deal(units, given, share), share, minimum)
    splits = {name: names[i] for unit, i in zip(units, places, strict=True) for name in unit.classes}
    splits = {name: splits[name] for name in classes}
    _check_minimum(splits, sizes, minimum)
    lines = [f"{name}: has no example, left out" for name in sorted(set(counts) - set(classes))]
    return Partition(splits, lines + _report(splits, sizes, units, held), tuple(names))


@dataclass(frozen=True)
class _Unit:
    """Classes that stay together: one, or several that lie above one another; the topmost stands for them."""

    classes: list[str]
    node: str  # inside which it is dealt out, "" for the root
    rank: float  # units of a node are dealt out in descending order


def _shares(sizes: Mapping[str, float]) -> np.ndarray:
    """The sizes as an array that sums to 1. Raises UserError where they do not."""
    shown = ", ".join(f"{name} {size:g}" for name, size in sizes.items())
    share = np.array(list(sizes.values()), float)
    if not len(share) or not (share > -1e-6).all() or abs(math.fsum(share) - 1) > 1e-6:
        raise UserError(
            f"sizes of the parts ({shown}) sum to {math.fsum(share):g}; they must be fractions that sum to 1"
        )
    share = share.clip(0)
    return share / share.sum()


def _chosen(
    classes: Sequence[str], tree: Taxonomy | None, wanted: Mapping[str, Sequence[str]], sizes: Iterable[str], key: str
) -> dict[str, str]:
    """The part of each class that a node of `wanted` names or lies above. Raises UserError for names that are none."""
    found: dict[str, str] = {}
    for part, names in wanted.items():
        if part not in sizes:
            raise UserError(f"{key}.{part}: no such part{suggest(part, sizes)}")
        for name in [names] if isinstance(names, str) else names:
            below = _below(classes, tree, name, f"{key}.{part}")
            for one in below:
                if found.setdefault(one, part) != part:
                    raise UserError(f"{key}: '{one}' is wanted in {found[one]} and in {part}; name it once")
    return found


def _below(classes: Sequence[str], tree: Taxonomy | None, name: str, key: str) -> list[str]:
    """The classes that a name means: itself, or all under it."""
    if tree is None:
        below = [name] if name in classes else []
    else:
        try:
            node = tree.resolve(name)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
        inside = set(tree.leaves(node))
        below = [one for one in classes if inside.issuperset(tree.leaves(one))]
    if not below:
        raise UserError(f"{key}: no class with examples is '{name}' or lies under it{suggest(name, classes)}")
    return below


def _units(
    classes: Sequence[str], counts: Mapping[str, int], tree: Taxonomy | None, level: int, seed: int
) -> list[_Unit]:
    nodes = _nodes(classes, tree, level)
    related = np.eye(len(classes), dtype=bool) if tree is None else tree.related(classes)
    number, label = connected_components(related, directed=False)
    units = []
    for u in range(number):
        own = [classes[i] for i in np.flatnonzero(label == u).tolist()]
        top = own[0] if tree is None else min(own, key=lambda name: (tree.level(name), name))
        rank = math.log(sum(counts[name] for name in own)) + _gumbel(seed, top)
        units.append(_Unit(own, nodes[classes.index(top)], rank))
    return sorted(units, key=lambda unit: unit.rank, reverse=True)


def _nodes(classes: Sequence[str], tree: Taxonomy | None, level: int) -> list[str]:
    """The node at tree depth ``level - 1`` above each class, "" for the root."""
    deepest = 1 if tree is None else tree.depth
    if level < 1 or (level > deepest > 1):
        raise UserError(f"level={level}: must be from 1 (all classes at once) to {deepest}, the depth of the tree")
    if tree is None or level == 1 or deepest == 1:
        return [""] * len(classes)
    return [tree.nodes[i] for i in tree.levels(classes)[:, deepest - level + 1]]


def _gumbel(seed: int, name: str) -> float:
    """A number with the standard Gumbel distribution, of the seed and the name alone.

    Names in descending order of log weight plus this are a draw without replacement, by weight.
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return -math.log(-math.log((int.from_bytes(digest) + 0.5) / 2**64))


def _given(
    units: Sequence[_Unit], held: Mapping[str, str], hand: Mapping[str, str], names: Sequence[str]
) -> np.ndarray:
    """(U,) index of the part that each unit must go to, -1 for none. Raises UserError for two at once."""
    result = np.full(len(units), -1)
    for i, unit in enumerate(units):
        wanted = {part: name for table in (held, hand) for name, part in table.items() if name in unit.classes}
        if len(wanted) > 1:
            (one, a), (other, b) = sorted(wanted.items())[:2]
            why = "name it once" if a == b else "one lies above the other, so they must stay together"
            raise UserError(f"held_out, fixed: '{a}' is wanted in {one} and '{b}' in {other}; {why}")
        for part in wanted:
            result[i] = names.index(part)
    return result


def _deal(units: Sequence[_Unit], given: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(U,) the part of each unit. `share` (P,) is 0 for parts that get nothing but what is given to them."""
    if (given < 0).any() and not share.any():
        left = next(unit.classes[0] for unit, part in zip(units, given, strict=True) if part < 0)
        raise UserError(f"held_out: every part holds something out, so none is left for '{left}'; leave one part open")
    place = given.copy()
    weight = np.array([len(unit.classes) for unit in units])
    share = share / max(share.sum(), 1e-12)
    target = share * weight[(given < 0) | (share[given] > 0)].sum()  # (P,) classes

    def lack() -> np.ndarray:
        return target - np.bincount(place[place >= 0], weight[place >= 0], len(share))

    members: dict[str, list[int]] = {}
    for i, unit in enumerate(units):
        members.setdefault(unit.node, []).append(i)
    small = []
    for _, own in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        free = [i for i in own if place[i] < 0]
        taken = np.bincount(given[own][given[own] >= 0], minlength=len(share))
        if len(free) + taken[share > 0].sum() >= (share > 0).sum():  # what is held out elsewhere does not count
            place[free] = np.repeat(np.arange(len(share)), _apportion(taken, len(free), share, lack()))
        else:
            small.append((own, free))
    for own, free in sorted(small, key=lambda item: item[0][0]):  # in the order of their first units
        for i in free:
            fresh = (share > 0) & ~np.isin(np.arange(len(share)), place[own])  # fewer units than parts: some are
            place[i] = int(np.argmax(np.where(fresh, lack(), -np.inf)))
    return place


def _fill(units: Sequence[_Unit], given: np.ndarray, place: np.ndarray, share: np.ndarray, minimum: int) -> list[int]:
    """Move units to parts of fewer classes than the minimum, from the part that can spare most, if there is one.

    A unit goes whose node keeps another in that part, where there is such a unit; of these the last that was drawn.
    """
    place = place.copy()
    weight = np.array([len(unit.classes) for unit in units])
    for part in np.flatnonzero(share > 0):
        while (have := np.bincount(place, weight, len(share)))[part] < minimum:
            donor = int(np.argmax(np.where(share > 0, have, 0)))
            own = [
                i for i in np.flatnonzero((place == donor) & (given < 0)).tolist() if have[donor] - weight[i] >= minimum
            ]
            if donor == part or not own:
                break
            nodes = [units[i].node for i in np.flatnonzero(place == donor).tolist()]
            place[max(own, key=lambda i: (nodes.count(units[i].node) > 1, i))] = part
    return place.tolist()


def _apportion(taken: np.ndarray, free: int, share: np.ndarray, lack: np.ndarray) -> np.ndarray:
    """(P,) how many of `free` units each part gets: largest remainders, then at least one each where possible.

    `taken` (P,) are there already; equal remainders go to the part that lacks most so far (`lack` (P,)).
    """
    open_ = share > 0
    want = np.clip((free + taken[open_].sum()) * share - taken, 0, None) * open_
    want = (want if want.any() else share) * free / max(want.sum() if want.any() else 1.0, 1e-12)
    counts = np.floor(want + 1e-9).astype(int)
    order = np.lexsort((-lack, -np.round(want - counts, 9)))
    counts[order[: free - counts.sum()]] += 1
    for part in np.flatnonzero(open_ & (taken + counts == 0)):
        donor = int(np.argmax(np.where(counts > 0, taken + counts, 0)))
        if (taken + counts)[donor] < 2:
            break
        counts[donor] -= 1
        counts[part] += 1
    return counts


def _check_minimum(splits: Mapping[str, str], sizes: Mapping[str, float], minimum: int) -> None:
    for part, size in sizes.items():
        got = sum(own == part for own in splits.values())
        if size > 0 and got < minimum:
            raise UserError(
                f"partition: '{part}' gets {got} of {len(splits)} classes, at least {minimum} wanted; "
                "change the sizes, or take more classes"
            )


def _report(
    splits: Mapping[str, str], sizes: Mapping[str, float], units: Sequence[_Unit], held: Mapping[str, str]
) -> list[str]:
    """Sizes, nodes that not every part has, classes that were kept together."""
    lines = []
    for part, size in sizes.items():
        got = sum(own == part for own in splits.values())
        lines.append(f"{part}: {got} of {len(splits)} classes, {got / len(splits):.1%} (asked for {size:.1%})")
    for part in sorted(set(held.values())):
        lines.append(f"{part} holds out: {', '.join(name for name in sorted(held) if held[name] == part)}")
    open_ = [part for part, size in sizes.items() if size > 0 and part not in held.values()]
    members: dict[str, list[str]] = {}
    for unit in units:
        if not held.keys() & set(unit.classes):
            members.setdefault(unit.node, []).extend(unit.classes)
    for node, own in sorted(members.items()):
        has = {splits[name] for name in own}
        lacking = [part for part in open_ if part not in has]
        if lacking and node:
            count = f"{len(own)} class{'es' if len(own) > 1 else ''}"
            lines.append(f"'{node}' ({count}) is not in {', '.join(lacking)}")
    for unit in units:
        if len(unit.classes) > 1:
            lines.append(f"kept together in {splits[unit.classes[0]]}: {', '.join(unit.classes)}")
    return lines
