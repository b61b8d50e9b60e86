"""SECURITY.md: every test that it names to show a promise exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_a_test_that_shows_a_promise_exists(file: str, name: str) -> None:
    nodes: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for part in name.split("::"):
        found = [
            node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part
        ]
        assert len(found) == 1, f"{file} has no {name}"
        nodes = found[0].body


def test_each_promise_names_what_shows_it() -> None:
    table = PAGE.partition("## What is promised")[2].partition("## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert [row for row in rows if "`tests/" not in row and "`make " not in row] == []
