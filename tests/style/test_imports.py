"""No module of the package imports itself through others, whatever kind of import ties them.

The contracts in pyproject.toml order whole layers, for imports that run. Here every pair of modules counts, and so does
an import inside a function or for the type checker: either one is needed to read the other.
"""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import triggers

PACKAGE = Path(triggers.__file__).parent
TESTS = Path(__file__).parents[1]


def sources(package: Path) -> dict[str, tuple[str, str]]:
    """The dotted name of every module → the package that it is in, and its source."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        inside = ".".join(parts[:-1])
        name = inside if parts[-1] == "__init__" else ".".join(parts)
        found[name] = (inside, path.read_text("utf-8"))
    return found


def import_graph(modules: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """Every module → the modules of the same package that it imports: at once, later, or for its types alone."""
    return {
        name: {target for node in ast.walk(ast.parse(source)) for target in imported(node, inside, modules)}
        for name, (inside, source) in modules.items()
    }


def imported(node: ast.AST, inside: str, modules: dict[str, tuple[str, str]]) -> set[str]:
    """What a statement imports; `from package import name` means the module of that name, if there is one."""
    match node:
        case ast.Import(names=names):
            targets = {alias.name for alias in names}
        case ast.ImportFrom(module=module, names=names, level=level):
            base = resolve_name("." * level + (module or ""), inside)
            full = {f"{base}.{alias.name}" for alias in names}
            targets = {target if target in modules else base for target in full}
        case _:
            return set()
    return targets & modules.keys()


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """A chain of modules each of which imports the next, from one back to itself; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def test_no_module_imports_itself_through_others():
    """Lazy imports and imports for the type checker count as any other."""
    graph = import_graph(sources(PACKAGE))
    assert len(graph) > 50
    assert any(graph.values())
    cycle = cycle_in(graph)
    assert not cycle, f"these modules import each other: {' → '.join(cycle)}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("import pack.b", "import pack.a"),
        ("from pack import b", "from pack.a import name"),
        ("from pack import b", "from . import a"),
        ("from .b import name", "import pack.a as other"),
        ("def late():\n    from pack.b import name", "from pack.a import name"),
        ("if TYPE_CHECKING:\n    from pack.b import name", "from pack.a import name"),
        ("import pack.b", "import pack.c"),
    ],
)
def test_a_cycle_is_found(first, second):
    """Of two modules or of three, in every spelling of an import."""
    modules = {
        "pack": ("pack", ""),
        "pack.a": ("pack", first),
        "pack.b": ("pack", second),
        "pack.c": ("pack", "def late():\n    import pack.a"),
    }
    cycle = cycle_in(import_graph(modules))
    assert cycle[0] == cycle[-1]
    assert {"pack.a", "pack.b"} <= set(cycle)


def test_a_package_that_is_imported_is_not_its_modules():
    """A module may import a sibling from a package that gathers both."""
    modules = {
        "pack": ("pack", "from pack.a import name"),
        "pack.a": ("pack", "from pack import b"),
        "pack.b": ("pack", "import json"),
    }
    assert import_graph(modules) == {"pack": {"pack.a"}, "pack.a": {"pack.b"}, "pack.b": set()}
    assert cycle_in(import_graph(modules)) == []


def private_imports(source: str) -> list[str]:
    """The names with a leading underscore that a module imports from the library."""
    return [
        f"{module}.{name}"
        for module, names in re.findall(
            r"^\s*from (triggers[\w.]*) import (\([^)]*\)|.*)$", source, re.MULTILINE
        )
        for name in re.findall(r"\b_[a-zA-Z]\w*", names)
    ]


def test_no_test_imports_a_private_name():
    """A test of a private function would have to change with the code. Tests check behavior."""
    found = {path.name: private_imports(path.read_text("utf-8")) for path in TESTS.rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {}
    assert private_imports("from triggers.a import b, _c, __version__\nimport e") == ["triggers.a._c"]
    assert private_imports("def f():\n    from triggers import (\n        b,\n        _c,\n    )\n") == [
        "triggers._c"
    ]
