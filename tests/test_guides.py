"""The guides: links lead somewhere, the README leads to every guide, options that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from velora_cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
LED_TO = [
    path for name in ("guides", "tutorials", "explanations") for path in (ROOT / "docs" / name).glob("*.md")
]
"""Pages that the README must lead to."""
PAGES = [*GUIDES, ROOT / "README.md", ROOT / "runtime" / "README.md", ROOT / "CONTRIBUTING.md"]
FOREIGN = {
    "--build-arg",
    "--cap-add",
    "--device-cgroup-rule",
    "--gpus",
    "--group-add",
    "--home-dir",
    "--now",
    "--restart",
    "--ros-args",
}
FOREIGN |= {"--rm", "--runtime", "--shell", "--show", "--system", "--system-site-packages", "--name"}
"""Options of other programs that the guides show."""


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        if not goal.exists() or (fragment and fragment not in anchors(goal)):
            lost.append(target)
    assert lost == []


def test_the_readme_leads_to_every_guide_tutorial_and_explanation() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = [path.relative_to(ROOT).as_posix() for path in LED_TO]
    assert [path for path in paths if f"({path})" not in readme] == []


def options() -> set[str]:
    """All options of all commands, and of benchmarks and tests that the guides name."""
    found: set[str] = set(FOREIGN)
    for extension in COMMANDS:
        pending = [extension.load()]
        while pending:
            command = pending.pop()
            pending += getattr(command, "commands", {}).values()
            found |= {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    for script in (*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests").rglob("__main__.py")):
        found |= set(re.findall(r'add_argument\("(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("name", ["cameras", "decisions", "deployment", "jetson", "published"])
def test_a_guide_names_no_option_that_does_not_exist(name: str) -> None:
    text = (ROOT / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named - options() == set()
