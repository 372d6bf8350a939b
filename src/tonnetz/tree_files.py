"""Trees of classes as YAML files: where they are, what may be in them, and the files of aliases beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tonnetz.errors import UserError, suggest

if TYPE_CHECKING:
    from tonnetz.taxonomy import Taxonomy

FOLDER = Path(__file__).parent / "taxonomies"
ALIASES = "aliases.yaml"  # lies beside trees: virtual groups, general aliases, tables of corpora; or NAME.aliases.yaml
SPECIAL = ("groups", "places", "alt_parent")  # tables of such a file that hold no aliases


def slug(name: str) -> str:
    """Lower case, without apostrophes, "_" for spaces, hyphens and slashes."""
    return re.sub(r"[\s\-/_]+", "_", re.sub("['\u2019]", "", str(name)).strip().lower())


def packaged() -> dict[str, Path]:
    """The trees of the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if not path.name.endswith(ALIASES)}


def find_tree(name_or_path: str | Path) -> Path:
    """The file of a tree of the package, or of the user's. Raises UserError when it is not there."""
    known = packaged()
    path = known.get(str(name_or_path), Path(name_or_path).expanduser())
    if not path.is_file():
        raise UserError(f"data.taxonomy={name_or_path}: no such taxonomy or file{suggest(str(name_or_path), known)}")
    return path


def sides(path: Path) -> tuple[Path, Path]:
    """Where the aliases of a tree may lie: its own first, then those of all trees in the folder."""
    return path.with_name(f"{path.stem}.{ALIASES}"), path.with_name(ALIASES)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that holds a key twice, which plain YAML loading would merge in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"'{key}' is in line {node.start_mark.line + 1} and following twice; remove one")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises UserError when that is no YAML, or a mapping holds a key twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def walk(tree: Any, path: Path) -> Iterator[tuple[str, str | None]]:
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
            if not isinstance(name, str) or not slug(name).strip("_"):
                raise UserError(f"{path}: '{name}' {place} is not a name; give it letters, in quotes if need be")
            if name != name.strip():
                raise UserError(f"{path}: '{name}' {place} has spaces around it; remove them")
            if slug(name) in seen:
                twin = seen[slug(name)]
                raise UserError(f"{path}: '{name}' is there twice ({twin} and {place}); names must be unique")
            seen[slug(name)] = place
            yield name, parent
            if isinstance(branch, dict):
                yield from visit(branch[name], name)
        open_branches.pop()

    return visit(tree, None)


def pop_like(tables: Any, path: Path) -> str | None:
    """Take out of a file of aliases which tree's names it also takes. Raises UserError for an unknown one."""
    name = tables.pop("like", None) if isinstance(tables, dict) else None
    if name is not None and name not in packaged():
        raise UserError(f"{path}: like: '{name}' is no tree of the package{suggest(str(name), packaged())}")
    return name


def borrowed(
    base: Taxonomy,
    parents: Mapping[str, str | None],
    groups: Mapping[str, Sequence[str]],
    aliases: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, Sequence[str]], dict[str, dict[str, str]]]:
    """Groups and aliases of a tree, and with them what the names of another tree mean in it.

    A leaf of `base` that the tree does not name is what the nearest node above it is there, by name or general alias;
    an inner node or group is the group of what its leaves are, or the one thing that they are. What is nothing there
    stays unknown. The tree's own names and aliases go first.
    """
    own = {slug(name): name for name in (*parents, *groups)}
    known = {slug(label): node for label, node in aliases.get("", {}).items()} | own
    meaning, more = _meanings(base, known)
    own |= {slug(name): name for name in more}
    theirs = {slug(name) for name in base.nodes}
    found = {"": {slug(name): node for name, node in meaning.items() if slug(name) not in own}}
    for corpus, table in base.aliases.items():
        named = {label: meaning[node] for label, node in table.items() if node in meaning}
        kept = {label: node for label, node in named.items() if label not in own or (corpus and label in theirs)}
        found[corpus] = {**found.get(corpus, {}), **kept}
    for corpus, mine in aliases.items():
        found[corpus] = {**found.get(corpus, {}), **{slug(label): node for label, node in mine.items()}}
    return {**groups, **more}, {corpus: table for corpus, table in found.items() if table}


def _meanings(base: Taxonomy, known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What the nodes of `base` are among `known` names (slug -> node), and the groups that this takes."""
    meaning: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for leaf in base.leaves():
        nearest = next((name for name in (leaf, *base.ancestors(leaf)) if slug(name) in known), None)
        if nearest is not None:
            meaning[leaf] = known[slug(nearest)]
    for name in (*base.inner, *base.groups):
        members = list(dict.fromkeys(meaning[leaf] for leaf in base.leaves(name) if leaf in meaning))
        if slug(name) in known:
            meaning[name] = known[slug(name)]
        elif len(members) == 1:
            meaning[name] = members[0]
        elif members:
            meaning[name], groups[name] = name, members
    return meaning, groups


def _check_others(table: Any, parents: Mapping[str, str | None], path: Path) -> None:
    """Raises UserError for another parent of what is no leaf, or that is no inner node and not named above it."""
    inner = {up for up in parents.values() if up is not None}
    for name, up in table.items():
        if name in inner or up not in inner:
            raise UserError(f"{path}: alt_parent.{name}: must be a leaf or a new node below an inner node, not '{up}'")
        inner |= {name} - set(parents)


def check_aliases(tables: Any, parents: Mapping[str, str | None], path: Path) -> None:
    """Raises UserError for aliases that are no tables, or that name something outside the tree."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"{path}: must hold tables: groups, general, and one for each corpus")
    _check_others(tables.get("alt_parent", {}), parents, path)
    groups = tables.get("groups", {})
    for name, members in groups.items():
        if name in {**parents, **tables.get("alt_parent", {})} or not isinstance(members, list) or not members:
            raise UserError(f"{path}: groups.{name} must be a new name with a list of nodes")
    targets = {**parents, **groups}
    for title, table in tables.items():
        for label, value in table.items() if title != "alt_parent" else ():
            if title == "places" and label in groups and value in (None, *parents):
                continue
            for target in value if title == "groups" else [value]:
                if target not in (parents if title == "groups" else targets):
                    raise UserError(
                        f"{path}: {title}.{label} means '{target}', not in the tree{suggest(target, targets)}"
                    )
