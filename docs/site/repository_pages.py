"""Pages of the site that lie elsewhere in the repository, and links as the site has them.

README, changelog, results of benchmarks and examples are read where they lie; a link to one of them leads to
its page, a link to any other file of the code becomes plain text, for the site does not hold the code.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LOG = logging.getLogger("mkdocs.hooks.repository_pages")
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "runtime/README.md": "runtime.md",
}
"""A page of the site for each of these files; those of folders are added by `find_pages`."""
DEPLOY, DECISIONS = "runtime/deploy", "docs/decisions"
FOLDERS = {DEPLOY: "deploy.md", DECISIONS: "decisions/index.md"}
"""A page of the site that stands for a folder."""
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".service": "ini", ".env": "sh"}


def find_pages() -> dict[str, str]:
    """The page of each file of the repository outside `docs/` that has one, both by their paths."""
    found = dict(PAGES)
    for path in sorted((ROOT / "benchmarks/results").glob("*.md")):
        found[_name(path)] = f"benchmarks/{path.name}"
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix not in {".md", ".py", ".toml"}:
            continue
        name = _name(path.with_name("index.md") if path.name == "README.md" else path)
        found[_name(path)] = name if path.suffix == ".md" else f"{name.replace('.', '_')}.md"
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SITE = find_pages()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for path, uri in SITE.items():
        if path.endswith(".md"):
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
        else:
            files.append(File.generated(config, uri, content=f"# {path}\n{show_file(ROOT / path)}"))
    files.append(File.generated(config, FOLDERS[DECISIONS], content="\n".join(list_decisions())))
    files.append(File.generated(config, FOLDERS[DEPLOY], content="\n".join(list_deploy())))
    return files


def show_file(path: Path) -> str:
    """A file of the repository as a block of code."""
    language = LANGUAGES.get(path.suffix, "dockerfile" if path.name.startswith("Dockerfile") else "text")
    return f"````{language}\n{path.read_text(encoding='utf-8')}````\n"


DECISIONS_PAGE = """# Decisions
Choices that had a real alternative, and what was rejected. They are history: a later one may replace
an earlier one.
"""
DEPLOY_PAGE = """# Files for deployment
What [deployment](guides/deployment.md) copies and builds, from `runtime/deploy`.
"""


def list_decisions() -> Iterator[str]:
    """Lines of the page of decisions: each with its title, in the order of their numbers."""
    yield DECISIONS_PAGE
    for path in sorted((ROOT / DECISIONS).glob("*.md")):
        yield f"- [{title_of(path)}]({path.name})"


def list_deploy() -> Iterator[str]:
    """Lines of the page of the files in `runtime/deploy`; locked requirements are not shown."""
    yield DEPLOY_PAGE
    for path in sorted((ROOT / DEPLOY).iterdir()):
        if path.is_file() and not path.name.startswith("requirements."):
            yield f"## {path.name}\n{show_file(path)}"


def title_of(path: Path) -> str:
    """The first heading of a page."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1] if found else path.stem


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text with links of the site, and with lists that Python-Markdown recognises."""
    source = source_of(page.file.src_uri)
    known = (ROOT / source).is_file()  # pages that are made have links of the site already
    parts = re.split(r"(^ *```.*?^ *```+ *$)", markdown, flags=re.MULTILINE | re.DOTALL)
    for i in range(0, len(parts), 2):
        linked = rewrite_links(parts[i], source, page.file.src_uri) if known else parts[i]
        parts[i] = adapt_blocks(linked)
    return "".join(parts)


def source_of(uri: str) -> str:
    """The file in the repository that a page is read from."""
    return next((path for path, page in SITE.items() if page == uri), f"docs/{uri}")


def rewrite_links(text: str, source: str, uri: str) -> str:
    """Links to files of the repository, as links from the page `uri` to pages of the site."""

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        name, hash_, fragment = target.partition("#")
        if "://" in target or not name or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        goal = page_of(path)
        if goal is None and (ROOT / path).exists():
            return label.removeprefix("[").removesuffix("]")
        goal = goal or path
        return f"{label}({posixpath.relpath(goal, posixpath.dirname(uri) or '.')}{hash_}{fragment})"

    return re.sub(r"(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)", link, text)


def page_of(path: str) -> str | None:
    """The page, picture or other file of the site that a file of the repository is; None if it is none."""
    if path in FOLDERS or path in SITE:
        return FOLDERS.get(path) or SITE[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return None


ITEM = re.compile(r"(?:[-*]|\d+\.) ")


def adapt_blocks(text: str) -> str:
    """Text as Python-Markdown reads what GitHub reads.

    It needs an empty line between a paragraph and a list or table, and takes a | within code as it is.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        if before.strip() and not before.startswith(" ") and not ITEM.match(before) and ITEM.match(line):
            lines.append("")
        if line.startswith("|"):
            line = re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), line)
            if before.strip() and not before.startswith("|"):
                lines.append("")
        lines.append(line)
    return "\n".join(lines)
