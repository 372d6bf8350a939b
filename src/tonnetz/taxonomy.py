"""A tree of classes, usually of instruments: names, families, distances, and the aliases of corpora."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonnetz.errors import UserError, suggest
from tonnetz.tree_files import SPECIAL, borrowed, check_aliases, find_tree, pop_like, read_yaml, sides, slug, walk

if TYPE_CHECKING:
    import numpy as np

DEFAULT = "hornbostel_sachs"
VARIANT = re.compile(r"(?:(?P<name>.+)/)?(?P<kind>flat|alt|scrambled|random)(?::(?P<seed>.*))?")  # NAME/scrambled:3


class Taxonomy:
    """A tree of named nodes under one nameless root, which is no node itself.

    Args:
        parents: the parent of each node, None right under the root; parents come before their children.
        groups: virtual nodes (organs, ...) and their members. A group hangs below the nearest node that holds
            all of its members, and is no child of it.
        aliases: tables of other names: under "" those for every corpus, under a corpus's name its own.
        places: the node that a group hangs below instead (None: right under the root), for trees without meaning.
        others: another parent of some leaves, for another reading of the tree; a new node comes before its children.
    """

    def __init__(
        self,
        parents: Mapping[str, str | None],
        groups: Mapping[str, Sequence[str]] | None = None,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        places: Mapping[str, str | None] | None = None,
        others: Mapping[str, str] | None = None,
    ) -> None:
        self.groups = {name: tuple(members) for name, members in (groups or {}).items()}
        self.aliases = {corpus: {slug(k): v for k, v in table.items()} for corpus, table in (aliases or {}).items()}
        self.places, self.others = dict(places or {}), dict(others or {})
        self.nodes = (*parents, *self.groups)
        self._parent = dict(parents)
        self._slugs = {slug(name): name for name in self.nodes}
        above = set(parents.values())
        self.inner = tuple(name for name in parents if name in above)
        self._leaves = tuple(name for name in parents if name not in above)
        self._parent.update({name: self._common(members) for name, members in self.groups.items()} | self.places)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Taxonomy:
        """Load a tree of the package by name, or a YAML file: mappings hold inner nodes, lists hold leaves.

        A file ``NAME.aliases.yaml`` or ``aliases.yaml`` beside the tree gives its groups and aliases; with ``like`` it
        also takes the names of another tree of the package, see `borrowed`. Controls are made of a tree
        (hornbostel_sachs when none is named): ``NAME/scrambled:SEED``, ``NAME/random:SEED``, with groups a level
        ``NAME/random:SEED:5x12x30``, see `scrambled` and `random`, and ``NAME/flat``; ``NAME/alt`` is its other
        reading, see `alternative`. Raises UserError for a tree that is missing, has cycles, repeated or empty names,
        and for aliases that point nowhere.
        """
        variant = VARIANT.fullmatch(str(name_or_path))
        if variant and not Path(name_or_path).expanduser().is_file():
            return _variant(cls.load(variant["name"] or DEFAULT), variant["kind"], variant["seed"], name_or_path)
        path = find_tree(name_or_path)
        parents = dict(walk(read_yaml(path), path))
        side = next((file for file in sides(path) if file.is_file() and file != path), None)
        tables = read_yaml(side) if side else {}
        like = pop_like(tables, side) if side else None
        if side:
            check_aliases(tables, parents, side)
        groups, places, others = (tables.pop(key, {}) for key in SPECIAL)
        aliases = {"" if name == "general" else name: table for name, table in tables.items()}
        if like:
            groups, aliases = borrowed(cls.load(like), parents, groups, aliases)
        return cls(parents, groups, aliases, places, others)

    @property
    def depth(self) -> int:
        """Edges from the root to the deepest leaf; 1 for a flat list."""
        return 1 + max(self.level(leaf) for leaf in self._leaves)

    def resolve(self, label: str, corpus: str | None = None) -> str:
        """The node that a label means, in a corpus when named. Raises UserError with the nearest name."""
        name = slug(label)
        for table in (self.aliases.get(corpus or "", {}), self._slugs, self.aliases.get("", {})):
            if name in table:
                return table[name]
        known = {*self._slugs, *self.aliases.get("", {}), *self.aliases.get(corpus or "", {})}
        raise UserError(f"label '{label}' is not in the taxonomy{suggest(name, known)}")

    def knows(self, label: str, corpus: str | None = None) -> bool:
        """Whether a label means a node."""
        name = slug(label)
        return name in self._slugs or any(name in self.aliases.get(table or "", {}) for table in (corpus, ""))

    def resolve_all(self, labels: Sequence[str], key: str) -> list[str]:
        """The nodes that labels mean; a UserError names the configuration key that chose this tree."""
        try:
            return [self.resolve(label) for label in labels]
        except UserError as error:
            raise UserError(f"{key}: {error}; or take {key}=null") from None

    def parent(self, node: str) -> str | None:
        """The node above, None right under the root. Raises UserError for a name that is no node."""
        try:
            return self._parent[node]
        except KeyError:
            raise UserError(f"'{node}' is not a node of the taxonomy{suggest(node, self.nodes)}") from None

    def ancestors(self, node: str) -> tuple[str, ...]:
        """The nodes above, nearest first."""
        above = self.parent(node)
        return () if above is None else (above, *self.ancestors(above))

    def level(self, node: str) -> int:
        """How many nodes lie above: 0 right under the root."""
        return len(self.ancestors(node))

    def family(self, node: str) -> str:
        """The top node above (or the node itself); "" for a group whose members are of several families."""
        if node in self.groups and node not in self.places:
            families = {self.family(member) for member in self.groups[node]}
            return families.pop() if len(families) == 1 else ""
        return (node, *self.ancestors(node))[-1]

    def leaves(self, node: str | None = None) -> tuple[str, ...]:
        """The leaves under a node, itself when it is one; all of them by default."""
        if node is None:
            return self._leaves
        wanted = {*self.groups.get(node, ()), node}
        self.parent(node)
        return tuple(leaf for leaf in self._leaves if not wanted.isdisjoint((leaf, *self.ancestors(leaf))))

    def edges(self) -> tuple[tuple[str, str], ...]:
        """All (parent, child) pairs of the tree, without groups and without the root."""
        return tuple((up, node) for node, up in self._parent.items() if up is not None and node not in self.groups)

    def distance(self, a: str, b: str) -> int:
        """Edges on the way from a to b through their lowest common ancestor, or the root."""
        line_a, line_b = {a, *self.ancestors(a)}, {b, *self.ancestors(b)}
        return len(line_a ^ line_b)

    def ancestor_matrix(self, nodes: Sequence[str]) -> np.ndarray:
        """Return (len(nodes), len(self.nodes)) bool: node i is, or lies under, column j of `self.nodes`."""
        import numpy as np

        column = {name: j for j, name in enumerate(self.nodes)}
        matrix = np.zeros((len(nodes), len(self.nodes)), bool)
        pairs = [(i, column[up]) for i, node in enumerate(nodes) for up in (*self.ancestors(node), node)]
        matrix[tuple(np.array(pairs, int).reshape(-1, 2).T)] = True
        return matrix

    def distances(self, nodes: Sequence[str]) -> np.ndarray:
        """Return (len(nodes), len(nodes)) int: `distance` of all pairs."""
        import numpy as np

        lines = self.ancestor_matrix(nodes).astype(np.int64)
        depth = lines.sum(1)
        return depth[:, None] + depth - 2 * lines @ lines.T  # symmetric difference of the two lines to the root

    def levels(self, nodes: Sequence[str]) -> np.ndarray:
        """Return (len(nodes), depth) int64: column h is the ancestor at height h, an index into `self.nodes`.

        Column 0 is the node itself, the last its family. The tree is padded evenly: a path that is shorter than
        `depth` repeats its lowest inner node above the class, and a class right under the root repeats itself.
        """
        import numpy as np

        column = {name: j for j, name in enumerate(self.nodes)}
        depth = self.depth
        table = np.empty((len(nodes), depth), np.int64)
        for i, node in enumerate(nodes):
            above = self.ancestors(node)[-depth:]
            padding = depth - 1 - len(above)
            path = (node, *(above[:1] or (node,)) * padding, *above)[:depth]  # from the class up to its family
            table[i] = [column[name] for name in path]
        return table

    def lca_heights(self, nodes: Sequence[str], padded: bool = True) -> np.ndarray:
        """Return (K, K) int64: the height of the lowest common ancestor of every two nodes, 0 for the same.

        padded: the lowest height at which `levels` agree, `depth` where only the root is shared. Otherwise, on the
        tree as it is, the edges from the common ancestor down to its deepest leaf (Bertinetto et al. 2020).
        """
        import numpy as np

        heights = np.full((len(nodes), len(nodes)), self.depth, np.int64)
        if padded:
            for h, column in reversed(list(enumerate(self.levels(nodes).T))):
                heights[column[:, None] == column] = h
            return heights
        lines = self.ancestor_matrix(nodes).astype(np.float32)  # counts below 2**24 are exact
        own = self._heights()
        for h in range(self.depth - 1, -1, -1):
            low = lines[:, own <= h]
            heights[low @ low.T > 0] = h
        names = np.array(nodes, str)
        heights[names[:, None] == names] = 0
        return heights

    def related(self, nodes: Sequence[str]) -> np.ndarray:
        """Return (K, K) bool: the two share a leaf, so one is the other or lies above it; groups hold their members.

        Such classes may not meet in one episode: either name would be right.
        """
        import numpy as np

        column = {name: j for j, name in enumerate(self._leaves)}
        lines = np.zeros((len(nodes), len(column)), np.float32)
        pairs = [(i, column[leaf]) for i, node in enumerate(nodes) for leaf in self.leaves(node)]
        lines[tuple(np.array(pairs, int).reshape(-1, 2).T)] = 1
        return np.asarray(lines @ lines.T > 0)

    def scrambled(self, seed: int) -> Taxonomy:
        """The same tree with its leaves permuted: a control for what a musical tree is worth.

        Inner nodes keep their names and places, a group stands beside the first of its leaves.
        """
        import numpy as np

        order = np.random.default_rng(seed).permutation(len(self._leaves))
        new = dict(zip(self._leaves, (self._leaves[i] for i in order), strict=True))
        parents = {new.get(name, name): up for name, up in self._parent.items() if name not in self.groups}
        return self._replaced(parents)

    def random(self, seed: int, sizes: Sequence[int] | None = None) -> Taxonomy:
        """The same leaves in a random tree: as many groups a level as the padded tree has, give or take one.

        What were inner nodes become groups, so that every name still means something; each stands beside the first
        of its leaves.

        Args:
            seed: of the draw.
            sizes: groups of each level from the families down, exactly so many; the tree gets a level each and one
                for the leaves. Raises UserError for a level with fewer groups than the one above, or more than leaves.
        """
        import numpy as np

        random = np.random.default_rng(seed)
        counts = list(sizes) if sizes else self._jittered(random)
        if counts != sorted(counts) or not 1 <= counts[0] <= counts[-1] <= len(self._leaves):
            most = f"at most {len(self._leaves)}, as there are leaves"
            raise UserError(
                f"random tree of {'x'.join(map(str, counts))}: levels must not get smaller, and have {most}"
            )
        parents: dict[str, str | None] = {}
        above: list[str | None] = [None]
        for tier, count in enumerate(counts, 1):  # from the families down
            names = [f"random_{tier}_{i}" for i in range(count)]
            parents |= _hung(names, above, random)
            above = list(names)
        parents |= _hung(list(self._leaves), above, random)
        return self._replaced(parents)

    def _jittered(self, random: Any) -> list[int]:
        """Groups of each level from the families down, give or take one, never fewer than above."""
        counts: list[int] = []
        for height in range(self.depth - 1, 0, -1):
            count = len(set(self.levels(self._leaves)[:, height])) + int(random.integers(-1, 2))
            counts.append(min(max(count, *counts[-1:], 1), len(self._leaves)))
        return counts

    def flat(self) -> Taxonomy:
        """The leaves right under the root; what were inner nodes become groups."""
        return self._replaced(dict.fromkeys(self._leaves))

    def alternative(self) -> Taxonomy:
        """The tree by its other reading: leaves with another parent (``alt_parent``) hang below that.

        An inner node that loses all of its leaves becomes a group of them.
        """
        rest = {name: up for name, up in self._parent.items() if name not in {**self.groups, **self.others}}
        parents: dict[str, str | None] = {**rest, **self.others}
        empty: dict[str, tuple[str, ...]] = {}
        while bare := [name for name in self.inner if name in parents and name not in parents.values()]:
            empty |= {name: self.leaves(name) for name in bare}
            parents = {name: up for name, up in parents.items() if name not in empty}
        return Taxonomy(parents, self.groups | empty, self.aliases, self.places)

    def pruned(self, nodes: Sequence[str]) -> Taxonomy:
        """The tree above the given nodes, which are its leaves (where none lies below another); groups hang in it."""
        kept = {name for node in nodes for name in (node, *self.ancestors(node))}
        return Taxonomy({name: up for name, up in self._parent.items() if name in kept})

    def tables(self) -> dict[str, Any]:
        """The groups and aliases as a file ``NAME.aliases.yaml`` holds them."""
        named = {name or "general": dict(table) for name, table in self.aliases.items()}
        groups = {"groups": {name: list(members) for name, members in self.groups.items()}} if self.groups else {}
        special = {"places": dict(self.places), "alt_parent": dict(self.others)}
        return groups | {key: table for key, table in special.items() if table} | named

    def tree(self) -> Any:
        """The tree as a YAML file holds it: mappings of inner nodes, lists of leaves.

        Raises UserError for a node that has leaves and inner nodes as children, which a file cannot hold side by side.
        """
        below: dict[str | None, list[str]] = {}
        for name, up in self._parent.items():
            if name not in self.groups:
                below.setdefault(up, []).append(name)

        def branch(node: str | None) -> Any:
            inner = [child for child in below[node] if child in below]
            if inner and len(inner) < len(below[node]):
                raise UserError(f"'{node or 'the root'}' holds leaves beside inner nodes; give the leaves a node")
            return {child: branch(child) for child in inner} if inner else below[node]

        return branch(None)

    def _replaced(self, parents: Mapping[str, str | None]) -> Taxonomy:
        """The leaves in other places. A name that holds no place there is a group of the leaves that it has here."""
        groups = {name: self.leaves(name) for name in self.nodes if name not in parents}
        places = {name: parents[leaves[0]] for name, leaves in groups.items()}  # beside the first, not above all
        return Taxonomy(parents, groups, self.aliases, places)

    def _heights(self) -> np.ndarray:
        """(len(self.nodes),) edges down to the deepest leaf, 0 for leaves and groups."""
        import numpy as np

        column = {name: j for j, name in enumerate(self.nodes)}
        heights = np.zeros(len(column), np.int64)
        for leaf in self._leaves:
            for h, name in enumerate(self.ancestors(leaf), 1):
                heights[column[name]] = max(heights[column[name]], h)
        return heights

    def _common(self, members: Sequence[str]) -> str | None:
        """The nearest node above all members."""
        first, *others = (self.ancestors(member) for member in members)
        return next((node for node in first if all(node in line for line in others)), None)


def _hung(names: Sequence[str], above: Sequence[str | None], random: Any) -> dict[str, str | None]:
    """A random parent for each name; every parent has a child when there are enough."""
    first = random.permutation(len(names))
    chosen = random.integers(len(above), size=len(names))
    chosen[first[: len(above)]] = range(min(len(above), len(names)))
    return {name: above[i] for name, i in zip(names, chosen.tolist(), strict=True)}


def _variant(tree: Taxonomy, kind: str, seed: str | None, name: str | Path) -> Taxonomy:
    if kind == "alt" and not tree.others:
        raise UserError(f"data.taxonomy={name}: has no other reading; its file of aliases names no alt_parent")
    if kind in ("flat", "alt"):
        return tree.flat() if kind == "flat" else tree.alternative()
    number, _, sizes = (seed or "").partition(":")
    wrong = not number.isdecimal() or (
        sizes and (kind == "scrambled" or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes))
    )
    if wrong:
        more = ", or random:0:5x12x30" if kind == "random" else ""
        raise UserError(f"data.taxonomy={name}: needs a seed, a whole number: {kind}:0{more}")
    if kind == "scrambled":
        return tree.scrambled(int(number))
    return tree.random(int(number), [int(size) for size in sizes.split("x")] if sizes else None)
