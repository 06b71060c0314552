"""The house of DESIGN: an import only ever points down, so there is no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Ground floor first: each room imports only from those before it.
FLOORS = (
    "errors", "storage", "stats", "images", "figures", "checkpoint", "hub", "direction", "editing",
    "model", "direction_set", "data", "perception", "models", "interop", "discovery", "mapping",
    "inversion", "publish", "evaluation", "demo", "cli", "__main__", "training",
)  # fmt: skip


def import_graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """Module -> the modules it imports when it runs, be it inside a function."""
    paths = [path for package in packages for path in (root / package).rglob("*.py")]
    names = {_module_name(root, path): path for path in paths}
    return {name: _imports(path, set(names)) - {name} for name, path in names.items()}


def _module_name(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path, known: set[str]) -> set[str]:
    found: set[str] = set()
    for node in _running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & known) or {node.module}
    return found & known


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _running(node)


def test_no_circle_of_imports() -> None:
    graph = import_graph(ROOT, ("hublatent", "training"))
    assert {"hublatent.direction", "hublatent.model", "training.recipes"} <= set(graph)
    TopologicalSorter(graph).prepare()


def test_arrows_only_point_down() -> None:
    upwards = [
        (module, imported)
        for module, imports in import_graph(ROOT, ("hublatent", "training")).items()
        for imported in imports - {"hublatent"}  # which loads what it offers when it is asked for
        if module != "hublatent" and floor(imported) > floor(module)
    ]
    assert upwards == []


def floor(module: str) -> int:
    """Of a module's room."""
    package, *inner = module.split(".")
    return FLOORS.index(package if package == "training" else inner[0])


def test_the_top_two_levels_fit_on_one_screen() -> None:
    rooms = [
        path.stem
        for package in ("hublatent", "training")
        for path in (ROOT / package).iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem[0] != "_"
    ]
    assert len(rooms) <= 36, sorted(rooms)


def test_a_circle_is_seen_even_inside_a_function(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "a.py").write_text("from house import b\n")
    (tmp_path / "house" / "b.py").write_text("def f():\n    from house.a import g\n    return g\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path, ("house",))).prepare()
