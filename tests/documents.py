"""Blocks of code in the documents, and the marks before those that no test runs.

A mark is a comment of HTML on the lines right before a block:

    <!-- not run: REASON -->            the block is not run
    <!-- not run (TEXT): REASON -->     those of its commands that contain TEXT are not run
    <!-- run by FILE -->                the block is run by another test

Commands are in blocks of the language `sh`, one after the other, or of `console`, where a command begins with
`$ ` and the other lines are what it prints. A block without a language is text: what is printed,
or a drawing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "runtime/README.md", "docs/scope.md")]
PAGES += sorted((ROOT / "examples").rglob("README.md"))
for _folder in ("tutorials", "guides", "explanations"):
    PAGES += sorted((ROOT / "docs" / _folder).glob("*.md"))
_MARK = re.compile(r"<!-- (?:not run(?: \((.+?)\))?: (.+)|run by (\S+)) -->")


@dataclass(frozen=True)
class Mark:
    """Why something is not run.

    Attributes:
        only: commands with this text in them; empty: all.
        reason: why a test cannot run it; empty where another one does.
        run_by: the file of that test, from the repository's root; else empty.
    """

    only: str
    reason: str
    run_by: str


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: the file that it is in.
        line: number of the line that opens it.
        language: behind the opening fence; empty for text.
        text: between the fences.
        marks: right before it.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: tuple[Mark, ...]

    @property
    def name(self) -> str:
        """Page and line, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Commands of a shell, each with the lines that continue it."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]

    def is_left_out(self) -> bool:
        """No part of it is run here."""
        return any(not mark.only for mark in self.marks)

    def commands_to_run(self) -> list[str]:
        """Commands that no mark leaves out."""
        if self.is_left_out():
            return []
        return [line for line in self.commands() if not any(mark.only in line for mark in self.marks)]


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in their order."""
    found, marks, lines = [], [], page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        if mark := _MARK.fullmatch(line):
            marks.append(Mark(mark[1] or "", mark[2] or "", mark[3] or ""))
        elif line.startswith("```"):
            fence = re.match("`+", line)
            assert fence is not None
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == fence[0])
            text = "\n".join(lines[number + 1 : end])
            found.append(Block(page, number + 1, line[len(fence[0]) :], text, tuple(marks)))
            number, marks = end, []
        else:
            marks = []
        number += 1
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
