"""The documents: links lead somewhere; files, modules and names of the code that they give exist.

Decisions are history: they may name files that are no more, but their links hold.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.test_guides import PAGES, anchors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
OTHERS = sorted(DOCS.glob("*.md"))
for _folder in ("guides", "tutorials", "explanations", "reference"):
    OTHERS += sorted((DOCS / _folder).glob("*.md"))
OTHERS += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "runtime/README.md")]
CODE = ("velora_edge", "velora_cli", "velora_export", "velora_runtime")
HOMES = (ROOT, ROOT / "export", ROOT / "runtime", ROOT / "runtime" / "velora_runtime")
"""Where a path in a document may begin; CONTRIBUTING says `runtime/` for `runtime/velora_runtime/`."""
TOPS = (*CODE, "runtime", "export", "tests", "benchmarks", "configs", "docs", "examples")
WRITTEN = {"benchmarks/results/gpu.md"}
"""Files that a command of the document makes."""
NAMES_CODE = ["docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md"]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def files() -> frozenset[str]:
    """All files of the checkout but those of environments and caches, by their paths."""
    found = set()
    for top in (*TOPS, "."):
        paths = (ROOT / top).glob("*") if top == "." else (ROOT / top).rglob("*")
        found |= {str(path.relative_to(ROOT)) for path in paths if path.is_file()}
    return frozenset(found)


def exists(path: str, page: Path) -> bool:
    """A file or folder in the checkout, from one of the homes or from beside the page.

    A word in capitals between dots, as in `requirements.IMAGE.txt`, stands for any.
    """
    names = [re.sub(r"(?<=\.)[A-Z]+(?=\.)", "*", name) for name in (path, path.removeprefix("runtime/"))]
    return any(any(start.glob(name)) for start in (*HOMES, page.parent) for name in names)


def text_of(page: Path) -> str:
    """The page; of the changelog its first section, for those below are history."""
    text = page.read_text(encoding="utf-8")
    return "## ".join(text.split("\n## ")[:2]) if page.name == "CHANGELOG.md" else text


def lost_links(page: Path) -> list[str]:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, fragment = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        if "://" in target:
            continue
        if not goal.exists() or (fragment and fragment not in anchors(goal)):
            lost.append(target)
    return lost


def lost_paths(text: str, page: Path) -> list[str]:
    """Paths from a known folder on, anywhere; and file names within backticks, which end a file's path."""
    tops = "|".join(TOPS)
    given = set(re.findall(rf"(?<![\w/.~:-])((?:{tops})/[\w./-]*\w/?)", text)) - WRITTEN
    lost = {path for path in given if not exists(path, page)}
    for name in re.findall(r"`([\w-]+(?:/[\w-]+)*\.py)`", text):
        if not exists(name, page) and not any(f"/{path}".endswith(f"/{name}") for path in files()):
            lost.add(name)
    return sorted(lost)


def find_module(name: str) -> tuple[Path, list[str]] | None:
    """The file of the longest part of a dotted name that is a module, and what is left of the name."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        for home in HOMES[:3]:
            path = home.joinpath(*parts[:n])
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    return file, parts[n:]
    return None


def defined_in(file: Path) -> set[str]:
    """Names of classes, functions and values at the top of a module."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }
    return found


def lost_modules(text: str, *, attributes: bool = True) -> list[str]:
    """Dotted names that are no module, nor, with `attributes`, a name in one."""
    lost = []
    for name in sorted(set(re.findall(rf"\b(?<![/.-])((?:{'|'.join(CODE)})(?:\.\w+)+)", text))):
        found = find_module(name)
        if found is None or name.endswith((".py", ".md")):
            lost.append(name)
            continue
        file, rest = found
        strings = set(re.findall(r'"(\w+)"', file.read_text(encoding="utf-8")))
        if attributes and rest and rest[0] not in defined_in(file) | strings:
            lost.append(name)
    return lost


@cache
def defined_names() -> frozenset[str]:
    """Every class, function and assigned name of the code, within classes too."""
    found: set[str] = set()
    for file in files():
        if file.endswith(".py") and file.split("/")[0] in ("velora_edge", "velora_cli", "export", "runtime"):
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    found.add(node.name)
                elif isinstance(node, ast.Name | ast.Attribute):
                    found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(found)


def layers_of(contract: str) -> list[set[str]]:
    """Layers of an import-linter contract, the upper ones first, by the last parts of their names."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition(f'name = "{contract}')[2]
    layers = text.partition("layers = [")[2].partition("]")[0]
    return [
        {name.split(".")[-1].strip() for name in layer.split("|")}
        for layer in re.findall(r'"([^"]+)"', layers)
    ]


def test_the_architecture_page_lists_the_layers_that_are_checked() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    drawn = page.partition("```\n")[2].partition("```")[0].split("\n      |\n")
    layers = layers_of("Floors")
    assert len(drawn) == len(layers) > 5
    for text, layer in zip(drawn, layers, strict=True):
        names = re.findall(r"(?:velora_edge)?\.(\w+)|(velora_(?!edge)\w+)", text.partition("   ")[0])
        assert {name for pair in names for name in pair if name} == layer


@pytest.mark.parametrize(
    ("package", "contract"),
    [
        ("velora_cli", "Rooms of the command line"),
        ("velora_runtime", "Rooms of the runtime"),
        ("velora_export", "Rooms of the export"),
        ("velora_edge.data", "Rooms of data"),
        ("velora_edge.events", 'Rooms of events"'),
    ],
)
def test_the_architecture_page_lists_the_rooms_of_a_package(package: str, contract: str) -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{re.escape(package)}` \| (.+) \|$", page, re.MULTILINE)
    assert row is not None
    assert [set(re.findall(r"`(\w+)`", layer)) for layer in row[1].split(";")] == layers_of(contract)


@pytest.mark.parametrize("page", sorted({*OTHERS, *DECISIONS} - set(PAGES)), ids=page_name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert lost_links(page) == []


@pytest.mark.parametrize("page", OTHERS, ids=page_name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    assert lost_paths(text_of(page), page) == []


@pytest.mark.parametrize("page", OTHERS, ids=page_name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    # The changelog says by what a function is replaced that is no more.
    assert lost_modules(text_of(page), attributes=page.name != "CHANGELOG.md") == []


@pytest.mark.parametrize("name", NAMES_CODE)
def test_every_class_that_a_page_names_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w*)(?:\.\w+)*`", text))
    assert len(named) > 5
    assert named - defined_names() == set()


def test_numbers_of_decisions_are_unique() -> None:
    numbers = [page.name[:4] for page in DECISIONS]
    assert sorted(set(numbers)) == numbers


def test_a_path_that_is_not_there_is_found() -> None:
    page = ROOT / "CONTRIBUTING.md"
    text = "see runtime/app/session.py, `packer.py`, tests/no_such.py, `no_such_module.py` and docs/none/"
    assert lost_paths(text, page) == ["docs/none/", "no_such_module.py", "tests/no_such.py"]


def test_a_module_or_a_name_in_it_that_is_not_there_is_found() -> None:
    text = "velora_edge.open_events velora_edge.events.base.EventStream velora_edge.events.base.Nothing"
    assert lost_modules(text + " velora_edge.no") == ["velora_edge.events.base.Nothing", "velora_edge.no"]
