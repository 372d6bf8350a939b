"""Modules stand in layers: none imports, anywhere in it or for its types alone, what imports it."""

import ast
from graphlib import TopologicalSorter

from tests.conftest import ROOT

SOURCE = ROOT / "src"


def imports():
    """Module -> modules of ours that it names in an import, at the top, in a function or for type checking."""
    files = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {}
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
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
