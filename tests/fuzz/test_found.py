"""Files that fuzzing has found, kept once what they broke is mended; and the targets' own examples."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.registry import DOOR_NAMES, Target, load_targets, names

if TYPE_CHECKING:
    from collections.abc import Iterator

FOUND = sorted((Path(__file__).parent / "found").glob("*.bin"))


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    for module in ("rosbags", "scipy", "uvicorn", "starlette", "paho"):
        pytest.importorskip(module, reason="needs the test extra: pip install -e '.[test]'")
    yield load_targets()
    from tests.fuzz.doors import close_site

    close_site()


def test_each_target_is_known_by_its_name(targets: dict[str, Target]) -> None:
    assert list(targets) == names()


@pytest.mark.parametrize("name", DOOR_NAMES)
def test_the_examples_of_a_target_are_read(name: str, targets: dict[str, Target], tmp_path: Path) -> None:
    path = tmp_path / f"{name}.current"
    for data in targets[name].samples():
        path.write_bytes(data)
        assert targets[name].check(path, random.Random(0)) in ("events", "refused")


@pytest.mark.parametrize("found", FOUND, ids=lambda path: path.stem)
def test_what_was_found_is_read_or_refused_in_one_line(
    found: Path, targets: dict[str, Target], tmp_path: Path
) -> None:
    path = tmp_path / found.name
    path.write_bytes(found.read_bytes())
    assert targets[found.name.partition("-")[0]].run(path) in ("events", "refused")
