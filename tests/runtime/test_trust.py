"""Nothing that the runtime may import can run code that a file brings: no pickle, on any path."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

FORBIDDEN = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "pickletools", "shelve", "torch"}
ENTRIES = ("velora_cli.live.live", "velora_runtime.engines.registry")
OURS = ("velora_cli", "velora_edge", "velora_runtime")


def _file(module: str) -> Path | None:
    """A module's source, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _imported(tree: ast.AST) -> set[str]:
    """Modules that a file may import, at its top or later, and those that it names for importlib."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(OURS):
            found.add(node.value)
    return found


def _reachable() -> dict[str, ast.Module]:
    """Our modules that the runtime may import, with their trees, less what only a type checker sees."""
    home = Path(_file("velora_runtime")).parent
    todo = [
        *ENTRIES,
        *(
            ".".join(path.relative_to(home.parent).with_suffix("").parts)
            for path in home.rglob("*.py")
            if path.name != "__init__.py"
        ),
    ]
    found: dict[str, ast.Module] = {}
    while todo:
        module = todo.pop()
        file = None if module in found else _file(module)
        if file is None or not module.startswith(OURS) or file.suffix != ".py":
            continue
        tree = ast.parse(file.read_text())
        found[module] = _without_type_checking(tree)
        if module == "velora_edge":  # a table of what is imported for whoever asks `velora_edge` for it
            found[module].body = []
        todo += [name for name in _imported(found[module]) if name.startswith(OURS)]
    return found


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        )
    ]
    return tree


@pytest.fixture(scope="module")
def reachable() -> dict[str, ast.Module]:
    return _reachable()


def test_the_walk_reaches_engines_sources_readers_and_the_bundle(reachable: dict[str, ast.Module]) -> None:
    assert {
        "velora_edge.bundle",
        "velora_edge.manifest",
        "velora_edge.gpu.engine",
        "velora_runtime.engines.ort",
        "velora_runtime.engines.ort_cuda",
        "velora_runtime.engines.tensorrt",
        "velora_runtime.pipeline.pipeline",
        "velora_runtime.engines.ring",
    } <= set(reachable)
    assert len(reachable) > 60
    assert not {name for name in reachable if name.startswith("velora_edge.train")}


def test_no_module_on_the_runtime_s_path_imports_what_can_run_a_file(
    reachable: dict[str, ast.Module],
) -> None:
    guilty = {
        name: sorted(used)
        for name, tree in reachable.items()
        if (used := {module.split(".")[0] for module in _imported(tree)} & FORBIDDEN)
    }
    assert guilty == {}


def test_arrays_are_loaded_without_pickles(reachable: dict[str, ast.Module]) -> None:
    """`numpy.load` unpickles where it is told to; a path that does not say stays safe only by a default."""
    guilty = []
    for name, tree in reachable.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            is_load = node.func.attr == "load" and ast.unparse(node.func.value) in ("np", "numpy")
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            says_no = any(isinstance(value, ast.Constant) and value.value is False for value in allowed)
            if (is_load and not says_no) or (not is_load and allowed and not says_no):
                guilty.append(f"{name}:{node.lineno}")
    assert guilty == []


def test_a_module_that_unpickles_would_be_found() -> None:
    tree = ast.parse("def f(p):\n    import pickle\n    return pickle.load(p)\n")
    assert _imported(tree) & FORBIDDEN == {"pickle"}
    assert "pickle" in sys.stdlib_module_names
