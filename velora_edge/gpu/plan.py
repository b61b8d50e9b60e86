"""TensorRT engine files ("plans"): what their first bytes and their names say, without TensorRT.

The header is read as trtexec reads it (`--getPlanVersionOnly`): a tag of 4 bytes, 0x74727466 in little-endian
order, the serialization's version in the next 4 (0 so far), and TensorRT's version in bytes 24 to 27.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from velora_edge.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = 0x74727466
HEADER_BYTES = 28


def read_plan_version(path: Path) -> str:
    """The TensorRT version that built the engine at `path`, such as "10.13.3.9".

    Raises:
        BundleError: if the file is not a TensorRT engine, or of a form that we do not know.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", path=path, remedy=REBUILD) from error
    return plan_version(head, path)


def plan_version(plan: bytes | memoryview, path: Path) -> str:
    """The same of an engine in memory; `path` is for the error."""
    if len(plan) < HEADER_BYTES:
        raise BundleError(f"too short for a TensorRT engine: {len(plan)} bytes", path=path, remedy=REBUILD)
    magic, form = struct.unpack_from("<II", plan)
    if magic != MAGIC:
        raise BundleError(
            f"not a TensorRT engine: expected it to begin with {MAGIC:#x}, got {magic:#x}",
            path=path,
            remedy=REBUILD,
        )
    if form != 0:
        raise BundleError(f"a TensorRT engine of the unknown form {form}", path=path, remedy=REBUILD)
    return ".".join(str(part) for part in plan[24:28])


REBUILD = "build it again with velora build"


def is_plan(path: Path) -> bool:
    """Whether a file begins as a TensorRT engine does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == struct.pack("<I", MAGIC)
    except OSError:
        return False


def is_same_version(one: str, other: str) -> bool:
    """Whether two TensorRT versions are one, as far as both are given: 10.3.0 is 10.3.0.26.

    The Python package of some releases leaves the build number out.
    """
    first, second = _numbers(one), _numbers(other)
    shorter = min(len(first), len(second))
    return shorter >= 2 and first[:shorter] == second[:shorter]


def runs_version(built_by: str, here: str) -> bool:
    """Whether TensorRT `here` loads a version-compatible engine: of the same major version, and not older."""
    built, running = _numbers(built_by), _numbers(here)
    return built[:1] == running[:1] and running[:3] >= built[:3]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition("post")[0]))


def target_name(tensorrt: str, gpu: str, compute_capability: str) -> str:
    """What an engine is built for, as a part of a file name: `trt10.3.0-orin-sm87`."""
    device = re.sub(r"[^a-z0-9]+", "-", gpu.lower().replace("nvidia", "")).strip("-") or "gpu"
    return f"trt{tensorrt}-{device}-sm{compute_capability.replace('.', '')}"
