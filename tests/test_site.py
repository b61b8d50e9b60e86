"""The documentation as a site: it builds without a warning, links lead somewhere, the reference is whole."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import velora_runtime

import velora_edge
from tests.cli.help_texts import all_commands

if TYPE_CHECKING:
    from types import ModuleType

pytest.importorskip("mkdocs", reason="needs MkDocs (the extra docs)")

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what the hooks do ------------------------------------------------------------------------------------

pages, navigation, reference = map(load, ("repository_pages", "navigation", "reference_pages"))


@pytest.mark.parametrize(
    ("text", "source", "uri", "expected"),
    [
        ("[a](docs/guides/bench.md#x)", "README.md", "index.md", "[a](guides/bench.md#x)"),
        (
            "[a](../../README.md#install)",
            "docs/guides/bench.md",
            "guides/bench.md",
            "[a](../index.md#install)",
        ),
        ("[a](docs/decisions)", "README.md", "index.md", "[a](decisions/index.md)"),
        ("[`a.py`](../velora_edge/vision.py)", "docs/architecture.md", "architecture.md", "`a.py`"),
        ("[a](https://b.org)", "README.md", "index.md", "[a](https://b.org)"),
        ("[a](#b)", "README.md", "index.md", "[a](#b)"),
        ("[a](no.md)", "README.md", "index.md", "[a](no.md)"),
    ],
)
def test_links_lead_to_pages_of_the_site(text: str, source: str, uri: str, expected: str) -> None:
    assert pages.rewrite_links(text, source, uri) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n- b\n- c", "a:\n\n- b\n- c"),
        ("a:\n1. b\n   c", "a:\n\n1. b\n   c"),
        ("a:\n| b |\n|---|", "a:\n\n| b |\n|---|"),
        ("- a\n  b\n- c", "- a\n  b\n- c"),
        ("a\nb", "a\nb"),
        ("| `a \\| b` | c \\| d |", "| `a | b` | c \\| d |"),
    ],
)
def test_lists_and_tables_are_as_python_markdown_reads_them(text: str, expected: str) -> None:
    assert pages.adapt_blocks(text) == expected


def test_a_folder_in_the_navigation_stands_for_its_pages() -> None:
    nav = ["a.md", {"B": ["b/one.md", "b/"]}, {"C": "c/"}, {"D": "d/"}]
    uris = ["b/two.md", "c/x.md", "c/index.md"]
    assert navigation._expand(nav, uris) == [
        "a.md",
        {"B": ["b/one.md", "b/two.md"]},
        {"C": ["c/index.md", "c/x.md"]},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\nDoes [this](b.md). And that.", "Does this."),
        ("# A\n```sh\nvelora\n```\nDoes this:\n\n- b", "Does this"),
        ("# A\n\n| b |\n|---|\n\nFor e.g. this.", "For e.g. this."),
        ("# A\n", ""),
    ],
)
def test_a_page_is_described_by_its_first_sentence(text: str, expected: str) -> None:
    assert navigation.describe(text) == expected


def test_examples_of_a_help_text_are_commands() -> None:
    assert reference.examples_of("Examples:  velora a  |  velora b c") == ["velora a", "velora b c"]
    assert reference.examples_of("\b\nExamples, in D:\n  velora a\n  velora b") == [
        "# in D",
        "velora a",
        "velora b",
    ]
    assert reference.examples_of("Needs no model.") == []


def keys_of(kind: type[Any], prefix: str = "") -> set[str]:
    """Dotted names of all keys that hold a value."""
    found = set()
    for name, field in kind.model_fields.items():
        inner = reference.section_of(field.annotation)
        found |= keys_of(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("name", ["training", "pretraining", "cameras", "decisions"])
def test_every_key_of_a_configuration_has_a_row_with_its_meaning(name: str) -> None:
    text = reference.configuration_pages()[f"reference/configuration/{name}.md"]
    rows = {row[1]: row[2] for row in re.finditer(r"^\| `([\w.]+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE)}
    assert keys_of(reference.KINDS[name].schema) - set(rows) == set()
    assert [key for key, meaning in rows.items() if not meaning.strip()] == []


def test_a_key_is_told_with_its_bounds_and_default() -> None:
    text = reference.configuration_pages()["reference/configuration/decisions.md"]
    assert "| `enter` | number, ≥ 0, ≤ 1 | `0.6` | an action starts only at this score" in text
    text = reference.configuration_pages()["reference/configuration/cameras.md"]
    assert "| `rgb.transport` | `tcp`, `udp` | `tcp` |" in text


def test_every_option_of_every_command_has_a_row() -> None:
    made = reference.command_pages()
    for words, context in all_commands().items():
        if words == "velora":
            continue
        text = made[f"reference/cli/{words.split()[1]}.md"]
        assert f" {words}\n" in text
        options = {name for p in context.command.params for name in p.opts if name.startswith("--")}
        assert [name for name in options if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [("library", set(velora_edge.__all__) - {"__version__"}), ("runtime", set(velora_runtime.__all__))],
)
def test_every_public_name_is_in_the_reference(page: str, names: set[str]) -> None:
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert names - set(re.findall(r"^::: [\w.]+\.(\w+)$", text, re.MULTILINE)) == set()


# ---- the site ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Links, anchors and what else a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag in ("img", "script", "source") and "src" in given:
            self.loaded.add(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon") and "href" in given:
            self.loaded.add(given["href"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make check` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> dict[Path, Page]:
    """Every page by its file."""
    return {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in built.rglob("*.html")}


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site: dict[Path, Page]) -> None:
    lost = []
    for path, page in site.items():
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_there = goal.is_file() and (goal not in site or unquote(parts.fragment) in site[goal].anchors)
            if not is_there:
                lost.append((path.name, link))
    assert lost == []


@pytest.mark.slow
def test_no_page_names_a_file_of_another_site_to_load(site: dict[Path, Page]) -> None:
    assert {link for page in site.values() for link in page.loaded if urlsplit(link).netloc} == set()


@pytest.mark.slow
def test_llms_txt_leads_to_the_text_of_every_page(built: Path, site: dict[Path, Page]) -> None:
    text = (built / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# VELoRA-edge\n\n> Recognise what happens")
    named = [built / uri for uri in re.findall(r"^- \[.+?\]\((.+?)\)", text, re.MULTILINE)]
    assert [path for path in named if not path.is_file()] == []
    whole = {path for path in site if path.name != "404.html"}
    assert {path.with_suffix(".html").resolve() for path in named} == whole


@pytest.mark.slow
def test_no_comment_or_directive_is_left_on_a_page(built: Path, site: dict[Path, Page]) -> None:
    assert [path.name for path in site if ":::" in path.read_text(encoding="utf-8")] == []
