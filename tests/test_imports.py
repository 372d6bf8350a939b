"""Modules stand in layers: none imports, at its top or within a function, what imports it."""

import ast
from graphlib import TopologicalSorter

from tests.conftest import ROOT

SOURCE = ROOT / "src"


def imports():
    """Module -> modules of ours that it imports, at its top or within a function; not what it names for types alone."""
    files = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {}
    for name, path in files.items():
        found = set()
        tree = ast.parse(path.read_text())
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parts = {f"{node.module}.{alias.name}" for alias in node.names} & files.keys()
                found |= parts or {node.module}
        graph[name] = found & files.keys()
    return graph


def test_no_module_imports_what_imports_it():
    graph = imports()
    assert "tonnetz.collection" in graph["tonnetz.index"]
    assert "tonnetz.data.sets" in graph["tonnetz.build"]
    TopologicalSorter(graph).prepare()  # raises an error that names the circle
