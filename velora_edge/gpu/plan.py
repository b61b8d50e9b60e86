"""Engine files ("plans") of TensorRT and TensorRT for RTX: header and file name.

The header is read as trtexec reads it (`--getPlanVersionOnly`): a tag of 4 bytes, "ftrt" or, of TensorRT for
RTX, "vtrt"; the version of the form in the next 4, 0 so far; and the library's version in bytes 24 to 27.
Seen in engines of TensorRT 10 and 11 and of TensorRT for RTX 1.7.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from velora_edge.errors import BundleError
from velora_edge.gpu.kinds import KINDS, target_label

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from velora_edge.gpu.kinds import Kind

HEADER_BYTES = 28


def read_plan_header(path: Path) -> tuple[Kind, str]:
    """Read which library built the engine at `path`, and its version, such as "10.13.3.9".

    Raises:
        BundleError: if the file is not a TensorRT engine, or of a form that we do not know.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", path=path, remedy=REBUILD) from error
    return plan_header(head, path)


def plan_header(plan: bytes | memoryview, path: Path) -> tuple[Kind, str]:
    """The same of an engine in memory; `path` is for the error."""
    if len(plan) < HEADER_BYTES:
        raise BundleError(f"too short for a TensorRT engine: {len(plan)} bytes", path=path, remedy=REBUILD)
    magic, form = struct.unpack_from("<II", plan)
    kind = _BY_MAGIC.get(magic)
    if kind is None:
        known = " or ".join(f"{number:#x}" for number in _BY_MAGIC)
        raise BundleError(
            f"not a TensorRT engine: expected it to begin with {known}, got {magic:#x}",
            path=path,
            remedy=REBUILD,
        )
    if form != 0:
        raise BundleError(f"a {kind.title} engine of the unknown form {form}", path=path, remedy=REBUILD)
    return kind, ".".join(str(part) for part in plan[24:28])


REBUILD = "build it again with velora build"
_BY_MAGIC = {kind.magic: kind for kind in KINDS.values()}


def is_plan(path: Path) -> bool:
    """Whether a file begins as an engine of TensorRT or TensorRT for RTX does."""
    try:
        with path.open("rb") as file:
            return int.from_bytes(file.read(4), "little") in _BY_MAGIC
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
    """Return an engine's target as a part of a file name: `trt10.3.0-orin-sm87`."""
    device = re.sub(r"[^a-z0-9]+", "-", gpu.lower().replace("nvidia", "")).strip("-") or "gpu"
    return f"trt{tensorrt}-{device}-{target_label(compute_capability)}"


def rtx_target_name(version: str, targets: Sequence[str]) -> str:
    """The same of TensorRT for RTX, which builds for kinds of GPUs: `rtx1.7.1.116-sm89-sm120`."""
    return "-".join((f"rtx{version}", *map(target_label, targets)))
