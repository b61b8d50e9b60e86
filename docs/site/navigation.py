"""Navigation with whole folders in it, and llms.txt with the text of every page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.nav import Navigation
    from mkdocs.structure.pages import Page

TEXTS: dict[str, str] = {}
"""Markdown of each page as it was rendered, by its source's path in the site."""
SECTIONS: list[Any] = []
LONGEST = 200
"""Characters of a page's description in llms.txt."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put pages in the place of folders in `nav`."""
    named = set(_named(config.nav or []))
    pages = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    config.nav = _expand(config.nav or [], pages)
    return files


def _named(nav: list[Any]) -> Iterator[str]:
    """All pages and folders that `nav` names."""
    for item in nav:
        for value in item.values() if isinstance(item, dict) else [item]:
            yield from _named(value) if isinstance(value, list) else [value]


def _expand(nav: list[Any], pages: list[str]) -> list[Any]:
    expanded: list[Any] = []
    for item in nav:
        if isinstance(item, str):
            expanded += _pages_in(item, pages) if item.endswith("/") else [item]
            continue
        ((title, value),) = item.items()
        if isinstance(value, list):
            expanded.append({title: _expand(value, pages)})
        elif not value.endswith("/"):
            expanded.append(item)
        elif found := _pages_in(value, pages):
            expanded.append({title: found})
    return expanded


def _pages_in(folder: str, pages: list[str]) -> list[str]:
    """Pages of a folder and of those in it; its index first."""
    found = [uri for uri in pages if uri.startswith(folder)]
    return sorted(found, key=lambda uri: (uri != f"{folder}index.md", uri))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep the page's text for llms.txt."""
    TEXTS[page.file.src_uri] = page.markdown or ""
    return html


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Keep the sections for llms.txt."""
    SECTIONS[:] = nav.items
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt, and each page's text beside its HTML."""
    site = Path(config.site_dir)
    for uri, text in TEXTS.items():
        path = site / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    lines += _listed(SECTIONS, [])
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _listed(items: list[Any], above: list[str]) -> Iterator[str]:
    """A heading for each section of the navigation, and a line for each of its pages."""
    pages = [item for item in items if item.is_page]
    if pages:
        yield from ["", f"## {': '.join(above) or 'Start'}", ""]
        yield from map(_line, pages)
    for item in items:
        if item.is_section:
            yield from _listed(item.children, [*above, item.title])


def _line(page: Page) -> str:
    told = describe(TEXTS.get(page.file.src_uri, ""))
    return f"- [{page.title}]({page.file.src_uri})" + (f": {told}" if told else "")


def describe(markdown: str) -> str:
    """The first sentence of a page's first paragraph, without marks of Markdown."""
    blocks = re.split(r"\n\s*\n", re.sub(r"(````*).*?\1", "", markdown, flags=re.DOTALL))
    for block in blocks:
        text = re.sub(r"^#+ .*\n?", "", block.strip(), flags=re.MULTILINE).strip()
        if not text or text.startswith(("|", "!", "<", "-", ":::")):
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(text.split()))
        sentence = re.split(r"(?<=[^.][.:])\s(?=[A-Z`])", text, maxsplit=1)[0].rstrip(":")
        return sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST].rsplit(' ', 1)[0]} ..."
    return ""
