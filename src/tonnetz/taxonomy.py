"""A tree of classes, usually of instruments: names, families, distances, and the aliases of corpora."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tonnetz.errors import UserError, suggest

if TYPE_CHECKING:
    import numpy as np

FOLDER = Path(__file__).parent / "taxonomies"
ALIASES = "aliases.yaml"  # lies beside a tree: its virtual groups, general aliases and tables of corpora


class Taxonomy:
    """A tree of named nodes under one nameless root, which is no node itself.

    Args:
        parents: the parent of each node, None right under the root; parents come before their children.
        groups: virtual nodes (organs, ...) and their members. A group hangs below the nearest node that holds
            all of its members, and is no child of it.
        aliases: tables of other names: under "" those for every corpus, under a corpus's name its own.
    """

    def __init__(
        self,
        parents: Mapping[str, str | None],
        groups: Mapping[str, Sequence[str]] | None = None,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.groups = {name: tuple(members) for name, members in (groups or {}).items()}
        self.aliases = {corpus: {_slug(k): v for k, v in table.items()} for corpus, table in (aliases or {}).items()}
        self.nodes = (*parents, *self.groups)
        self._parent = dict(parents)
        self._slugs = {_slug(name): name for name in self.nodes}
        above = set(parents.values())
        self.inner = tuple(name for name in parents if name in above)
        self._leaves = tuple(name for name in parents if name not in above)
        self._parent.update({name: self._common(members) for name, members in self.groups.items()})

    @classmethod
    def load(cls, name_or_path: str | Path) -> Taxonomy:
        """Load a tree of the package by name, or a YAML file: mappings hold inner nodes, lists hold leaves.

        A file ``aliases.yaml`` beside the tree gives its groups and aliases. Raises UserError for a tree that
        is missing, has cycles, repeated or empty names, and for aliases that point nowhere.
        """
        path = _find(name_or_path)
        parents = dict(_walk(_read(path), path))
        side = path.with_name(ALIASES)
        tables = _read(side) if side.is_file() and side != path else {}
        _check_aliases(tables, parents, side)
        groups = tables.pop("groups", None)
        return cls(parents, groups, {"" if name == "general" else name: table for name, table in tables.items()})

    def resolve(self, label: str, corpus: str | None = None) -> str:
        """The node that a label means, in a corpus when named. Raises UserError with the nearest name."""
        slug = _slug(label)
        for table in (self.aliases.get(corpus or "", {}), self._slugs, self.aliases.get("", {})):
            if slug in table:
                return table[slug]
        known = {*self._slugs, *self.aliases.get("", {}), *self.aliases.get(corpus or "", {})}
        raise UserError(f"label '{label}' is not in the taxonomy{suggest(slug, known)}")

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
        if node in self.groups:
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

    def _common(self, members: Sequence[str]) -> str | None:
        """The nearest node above all members."""
        first, *others = (self.ancestors(member) for member in members)
        return next((node for node in first if all(node in line for line in others)), None)


def _slug(name: str) -> str:
    """Lower case, without apostrophes, "_" for spaces, hyphens and slashes."""
    return re.sub(r"[\s\-/_]+", "_", re.sub("['\u2019]", "", str(name)).strip().lower())


def _find(name_or_path: str | Path) -> Path:
    packaged = {path.stem: path for path in FOLDER.glob("*.yaml") if path.name != ALIASES}
    path = packaged.get(str(name_or_path), Path(name_or_path).expanduser())
    if not path.is_file():
        raise UserError(f"data.taxonomy={name_or_path}: no such taxonomy or file{suggest(str(name_or_path), packaged)}")
    return path


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that holds a key twice, which plain YAML loading would merge in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"'{key}' is in line {node.start_mark.line + 1} and following twice; remove one")
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def _walk(tree: Any, path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (node, parent) from the top. Raises UserError for whatever is not a tree of unique names."""
    seen: dict[str, str] = {}
    open_branches: list[int] = []  # identities of the containers above: YAML anchors can make a branch its own child

    def visit(branch: Any, parent: str | None) -> Iterator[tuple[str, str | None]]:
        place = f"under '{parent}'" if parent else "at the top"
        if not isinstance(branch, (dict, list)) or not branch:
            raise UserError(f"{path}: nothing {place}; a mapping holds inner nodes, a list holds leaves")
        if id(branch) in open_branches:
            raise UserError(f"{path}: '{parent}' contains itself; a taxonomy has no cycles")
        open_branches.append(id(branch))
        for name in branch:
            if not isinstance(name, str) or not _slug(name).strip("_"):
                raise UserError(f"{path}: '{name}' {place} is not a name; give it letters, in quotes if need be")
            if _slug(name) in seen:
                twin = seen[_slug(name)]
                raise UserError(f"{path}: '{name}' is there twice ({twin} and {place}); names must be unique")
            seen[_slug(name)] = place
            yield name, parent
            if isinstance(branch, dict):
                yield from visit(branch[name], name)
        open_branches.pop()

    return visit(tree, None)


def _check_aliases(tables: Any, parents: Mapping[str, str | None], path: Path) -> None:
    """Raises UserError for aliases that are no tables, or that name something outside the tree."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"{path}: must hold tables: groups, general, and one for each corpus")
    groups = tables.get("groups", {})
    for name, members in groups.items():
        if name in parents or not isinstance(members, list) or not members:
            raise UserError(f"{path}: groups.{name} must be a new name with a list of nodes")
    targets = {**parents, **groups}
    for title, table in tables.items():
        for label, value in table.items():
            for target in value if title == "groups" else [value]:
                if target not in (parents if title == "groups" else targets):
                    raise UserError(
                        f"{path}: {title}.{label} means '{target}', not in the tree{suggest(target, targets)}"
                    )
