"""The flows keep their shape: imports flow one way, and what the domains share knows nothing of Prefect."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {
    ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"): path
    for path in (ROOT / "flows").rglob("*.py")
}
SHARED = [name for name in FILES if name.startswith("flows.market_data")]


def imports(module: str) -> set[str]:
    """What it imports, at the top and inside of functions, but not only for the types."""
    return {name for node in nodes(ast.parse(FILES[module].read_text())) for name in named(node)}


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from nodes(child)


def named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or node.module is None:
        return []
    inside = [f"{node.module}.{alias.name}" for alias in node.names]
    modules = [name for name in inside if name in FILES]
    return modules if len(modules) == len(inside) else [node.module, *modules]


def test_no_two_modules_import_each_other_not_even_late() -> None:
    graph = {module: {name for name in imports(module) if name in FILES} - {module} for module in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)  # a CycleError names the circle


def test_what_the_domains_share_imports_neither_prefect_nor_a_domain() -> None:
    for module in SHARED:
        foreign = {
            name
            for name in imports(module)
            if name.split(".")[0] == "prefect" or (name.startswith("flows.") and name not in SHARED)
        }
        assert not foreign, module


def test_ingestion_is_not_imported_by_the_domains_after_it() -> None:
    later = [name for name in FILES if name.startswith(("flows.analytics", "flows.maintenance"))]
    assert later
    assert not [name for name in later if any(one.startswith("flows.ingestion") for one in imports(name))]
