"""What an engine's first bytes and its version say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from velora_edge.errors import BundleError
from velora_edge.gpu.kinds import (
    RTX,
    TENSORRT,
    is_plan,
    is_same_version,
    read_plan_header,
    runs_version,
    target_name,
)

if TYPE_CHECKING:
    from pathlib import Path

# A header by hand: the tag, form 0, sixteen bytes of no concern, then 10.13.3.9.
HEADER = bytes.fromhex("66747274 00000000 0102030405060708090a0b0c0d0e0f10 0a0d0309")


def test_the_version_is_in_bytes_24_to_27(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(HEADER + b"program")
    assert read_plan_header(tmp_path / "a.engine") == (TENSORRT, "10.13.3.9")
    assert is_plan(tmp_path / "a.engine")


def test_an_engine_of_tensorrt_for_rtx_is_told_by_its_first_letter(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"v" + HEADER[1:24] + bytes([1, 7, 1, 116]))
    assert read_plan_header(tmp_path / "a.engine") == (RTX, "1.7.1.116")
    assert is_plan(tmp_path / "a.engine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short for a TensorRT engine: 0 bytes"),
        (HEADER[:27], "too short for a TensorRT engine: 27 bytes"),
        (b"ptrt" + HEADER[4:], "expected it to begin with 0x74727466 or 0x74727476, got 0x74727470"),
        (HEADER[:4] + b"\x01" + HEADER[5:], "a TensorRT engine of the unknown form 1"),
    ],
)
def test_what_is_no_engine_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.engine").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_plan_header(tmp_path / "a.engine")


def test_a_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.engine: cannot be read: No such file"):
        read_plan_header(tmp_path / "absent.engine")
    assert not is_plan(tmp_path / "absent.engine")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.3.0", "10.3.0.26", True),
        ("10.3.0.26", "10.3.0", True),
        ("10.3.0.26", "10.3.0.30", False),
        ("10.3.0", "10.3.1", False),
        ("10.13.3.9.post1", "10.13.3.9", True),
        ("10.1.0", "10.10.0", False),
        ("10", "10.3.0", False),
        ("", "10.3.0", False),
    ],
)
def test_versions_are_compared_as_far_as_both_are_given(one: str, other: str, same: bool) -> None:
    assert is_same_version(one, other) is same


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("10.3.0.26", "10.3.0", True),
        ("10.3.0.26", "10.13.3.9", True),
        ("10.13.3.9", "10.3.0", False),
        ("10.16.1.11", "11.0.0.114", False),
    ],
)
def test_a_version_compatible_engine_runs_on_newer_releases_of_one_major_version(
    built: str, here: str, runs: bool
) -> None:
    assert runs_version(built, here) is runs


@pytest.mark.parametrize(
    ("gpu", "capability", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "8.9", "trt10.3.0-geforce-rtx-4090-sm89"),
        ("Orin", "8.7", "trt10.3.0-orin-sm87"),
        (
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "12.0",
            "trt10.3.0-rtx-pro-6000-blackwell-server-edition-sm120",
        ),
        ("???", "9.0", "trt10.3.0-gpu-sm90"),
    ],
)
def test_targets_have_names_that_files_can_have(gpu: str, capability: str, name: str) -> None:
    assert target_name("10.3.0", gpu, capability) == name
