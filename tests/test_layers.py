"""The rooms: no two files and no two folders import each other, and none is crowded.

import-linter checks that calls go down the floors that `pyproject.toml` lists; this holds for every file and
folder there is, listed or not. Imports that only a type checker sees count, and those within functions.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {
    "velora_edge": ROOT,
    "velora_cli": ROOT,
    "velora_export": ROOT / "export",
    "velora_runtime": ROOT / "runtime",
}
FACADES = ("velora_edge", "velora_runtime")
"""Their `__init__` name what each offers, wherever that lies."""
MOST_FILES = 14
MOST_MODULES, MOST_LINES = 290, 400
"""Files in all, and lines of one. The first grows with subjects (archives, labelling), never to split one."""


def find_modules() -> dict[str, Path]:
    """Our modules by their dotted names; a package's name is that of its `__init__`."""
    found = {}
    for package, home in HOMES.items():
        for path in (home / package).rglob("*.py"):
            parts = path.relative_to(home).with_suffix("").parts
            found[".".join(parts[:-1] if path.name == "__init__.py" else parts)] = path
    return found


MODULES = find_modules()


def imported(tree: ast.AST, known: set[str] | dict[str, Path]) -> set[str]:
    """The known modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found & set(known)


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of the graph, its first node again at its end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def folder_of(module: str) -> str:
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


@pytest.fixture(scope="module")
def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {module: imported(tree, MODULES) - {module} for module, tree in trees.items()}


def test_no_two_files_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    assert 200 < len(imports) <= MOST_MODULES
    assert find_circle(imports) == []


def test_no_two_folders_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    graph: dict[str, set[str]] = {}
    for module, targets in imports.items():
        if module not in FACADES:
            here = folder_of(module)
            graph.setdefault(here, set()).update({folder_of(target) for target in targets} - {here})
    assert len(graph) > 30
    assert find_circle(graph) == []


def test_no_folder_is_crowded() -> None:
    files: dict[Path, int] = {}
    for path in MODULES.values():
        if path.name != "__init__.py":
            files[path.parent] = files.get(path.parent, 0) + 1
    assert {str(folder.relative_to(ROOT)): n for folder, n in files.items() if n > MOST_FILES} == {}


def test_no_file_is_too_long_to_read() -> None:
    long = {path.name: n for path in MODULES.values() if (n := path.read_bytes().count(b"\n")) > MOST_LINES}
    assert long == {}


def test_no_two_test_files_have_one_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("velora_edge", ("velora_runtime", "velora_export", "velora_cli")),
        ("velora_runtime", ("velora_export", "velora_cli")),
        ("velora_export", ("velora_runtime", "velora_cli")),
    ],
)
def test_what_lies_below_names_no_module_above_it_not_even_for_importlib(
    trees: dict[str, ast.Module], lower: str, upper: tuple[str, ...]
) -> None:
    above = {module for module in MODULES if module.split(".")[0] in upper}
    guilty = {}
    for module, tree in trees.items():
        if module.split(".")[0] == lower:
            strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            if named := (imported(tree, MODULES) | strings) & above:
                guilty[module] = named
    assert guilty == {}


def test_imports_are_found_within_functions_and_for_type_checkers() -> None:
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "from a import b\n"
        "if TYPE_CHECKING:\n    from a.c import Name\n"
        "def f():\n    import a.d\n"
    )
    assert imported(tree, {"a", "a.b", "a.c", "a.d", "a.e"}) == {"a.b", "a.c", "a.d"}


def test_a_circle_of_three_is_found_and_a_chain_is_none() -> None:
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert find_circle({"a": {"b"}, "b": {"c"}, "d": {"a"}}) == []
