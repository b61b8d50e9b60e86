"""The GPU check's set-up: wheels in parts, whole again or refused, and which packages are asked for."""

from __future__ import annotations

import hashlib
import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def setup() -> ModuleType:
    return importlib.import_module("gpu_setup")


def test_a_large_wheel_is_split_and_joined_again(setup: ModuleType, tmp_path: Path) -> None:
    large, small = bytes(range(25)), b"small"
    (tmp_path / "large.whl").write_bytes(large)
    (tmp_path / "small.whl").write_bytes(small)
    setup.split_wheels(tmp_path, part_bytes=10)
    assert {file.name: file.stat().st_size for file in tmp_path.glob("*.whl*")} == {
        "large.whl.part-000": 10,
        "large.whl.part-001": 10,
        "large.whl.part-002": 5,
        "small.whl": 5,
    }
    assert setup.read_sums(tmp_path / "SHA256SUMS") == {
        "large.whl": hashlib.sha256(large).hexdigest(),
        "small.whl": hashlib.sha256(small).hexdigest(),
    }
    joined = setup.join_wheels(tmp_path, tmp_path / "joined")
    assert {file.name: file.read_bytes() for file in joined.iterdir()} == {"large.whl": large}


def test_parts_that_are_not_the_listed_wheel_are_refused(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "large.whl").write_bytes(bytes(25))
    setup.split_wheels(tmp_path, part_bytes=10)
    (tmp_path / "large.whl.part-001").unlink()
    with pytest.raises(SystemExit, match=r"large.whl: its parts are not the wheel that SHA256SUMS lists"):
        setup.join_wheels(tmp_path, tmp_path / "joined")
    assert list((tmp_path / "joined").iterdir()) == []


def test_parts_without_a_list_are_joined_all_the_same(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.whl.part-000").write_bytes(b"a")
    joined = setup.join_wheels(tmp_path, tmp_path / "joined")
    assert (joined / "a.whl").read_bytes() == b"a"


def test_what_the_base_asks_for_is_the_project_s_own_list(setup: ModuleType) -> None:
    asked = setup.base_requirements()
    assert asked[0].startswith("numpy")
    assert {"pydantic>=2.7", "PyYAML>=6.0", "pytest-timeout"} <= set(asked)


def test_torch_and_what_it_brings_are_never_packed_but_what_it_needs_is(setup: ModuleType) -> None:
    found = setup.closure(["timm", "peft"])
    assert {"timm", "peft", "safetensors", "numpy", "jinja2"} <= set(found)  # the last is asked for by torch
    assert not {name for name in found if name.startswith(("torch", "nvidia", "triton"))}
