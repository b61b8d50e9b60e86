"""TensorRT and TensorRT for RTX: one API, two products, their messages, and their engine files ("plans").

The header is read as trtexec reads it (`--getPlanVersionOnly`): a tag of 4 bytes, "ftrt" or, of TensorRT for
RTX, "vtrt"; the version of the form in the next 4, 0 so far; and the library's version in bytes 24 to 27.
Seen in engines of TensorRT 10 and 11 and of TensorRT for RTX 1.7.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from velora_edge.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


LOG = logging.getLogger("velora.tensorrt")
KEPT = 8
LAYERS = "Layers:\n"
"""How the builder's message that lists what it compiled begins (TensorRT for RTX 1.7, severity VERBOSE)."""


class Messages:
    """Log of TensorRT: to a file where one is given; otherwise warnings and errors to `logging`.

    Callable from any thread: a builder logs from several.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file, self._lock = file, threading.Lock()
        self._errors: list[str] = []
        self._layers = ""

    def add(self, level: str, text: str) -> None:
        """Take one message; `level` is a name of tensorrt.ILogger.Severity."""
        with self._lock:
            if text.startswith(LAYERS):
                self._layers = text
            if level in ("ERROR", "INTERNAL_ERROR"):
                self._errors = [*self._errors, text][-KEPT:]
            if self._file is not None and not self._file.closed:
                self._file.write(f"[{level}] {text}\n")
                self._file.flush()
        if self._file is None and level in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            LOG.log(logging.WARNING if level == "WARNING" else logging.ERROR, text)

    def take_errors(self) -> Sequence[str]:
        """The errors since the last call, oldest first; at most the last eight."""
        with self._lock:
            errors, self._errors = self._errors, []
        return errors

    def take_layers(self) -> str:
        """The builder's list of compiled layers since the last call; empty where it printed none."""
        with self._lock:
            layers, self._layers = self._layers, ""
        return layers

    def explain(self) -> str:
        """The first of those errors as the tail of a sentence; empty where TensorRT said nothing."""
        errors = self.take_errors()
        return f": {errors[0].strip().splitlines()[0]}" if errors and errors[0].strip() else ""


_LOGGERS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def create_logger(trt: Any, messages: Messages) -> Any:
    """The process's one tensorrt.ILogger, which from now on hands everything to `messages`.

    TensorRT keeps the first logger that it is given and ignores every later one, with a warning.
    """
    if trt not in _LOGGERS:

        class Logger(trt.ILogger):
            messages: Messages

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                self.messages.add(severity.name, msg)

        _LOGGERS[trt] = Logger()
    logger = _LOGGERS[trt]
    logger.messages = messages
    return logger


@dataclass(frozen=True, slots=True)
class Kind:
    """One of NVIDIA's two inference libraries.

    Attributes:
        name: in the manifest and on the command line.
        title: for people.
        modules: names of its Python module, in the order in which they are tried.
        extra: the extra of velora-edge that installs it.
        magic: the first four bytes of its engine files, as a little-endian number.
        build: the arguments of `velora build` that build its engines.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    extra: str
    magic: int
    build: str


TENSORRT = Kind("tensorrt", "TensorRT", ("tensorrt",), "tensorrt", 0x74727466, "")
RTX = Kind(
    "tensorrt-rtx",
    "TensorRT for RTX",
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "rtx",
    0x74727476,
    " --for rtx",
)
KINDS = {kind.name: kind for kind in (TENSORRT, RTX)}

RTX_TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT for RTX 1.7 builds for (members of its enum ComputeCapability)."""
RTX_DEFAULT = ("8.6", "8.9", "12.0")
"""GeForce RTX 30, 40 and 50, and the workstation cards of those generations."""
FP8_FROM = (8, 9)
"""The first compute capability with arithmetic in fp8."""
_NOT_RTX = {"8.7": "Jetson Orin", "9.0": "H100, H200", "10.0": "B200", "10.3": "B300", "11.0": "Jetson Thor"}


def why_not_rtx(compute_capability: str) -> str | None:
    """Why TensorRT for RTX does not serve a GPU, with what to use there; None if it does."""
    if compute_capability in RTX_TARGETS:
        return None
    known = _NOT_RTX.get(compute_capability)
    return (
        f"TensorRT for RTX does not serve compute capability {compute_capability}"
        f"{f' ({known})' if known else ''}: use TensorRT there (velora build MODEL, --backend tensorrt)"
    )


def parse_targets(text: str) -> tuple[str, ...]:
    """Compute capabilities out of names such as "sm89,sm120": ("8.9", "12.0"), each once, in their order.

    Raises:
        InputError: naming the targets that there are.
    """
    names = {target_label(capability): capability for capability in RTX_TARGETS}
    asked = [name.strip().lower() for name in text.split(",")]
    for name in asked:
        if name in names:
            continue
        found = re.fullmatch(r"sm(\d{1,2})(\d)", name)
        reason = None if found is None else why_not_rtx(f"{found[1]}.{found[2]}")
        raise InputError(
            reason or f"expected GPUs such as sm89, got {name!r}",
            place="--for rtx",
            remedy=f"TensorRT for RTX builds for {', '.join(names)}",
        )
    return tuple(dict.fromkeys(names[name] for name in asked))


def target_label(compute_capability: str) -> str:
    """A compute capability as NVIDIA's compilers call it: "8.9" is sm89."""
    return f"sm{compute_capability.replace('.', '')}"


def default_targets(precision: str) -> tuple[str, ...]:
    """The GPUs that an engine is built for where none was named: those that have the precision."""
    if precision != "fp8":
        return RTX_DEFAULT
    return tuple(capability for capability in RTX_DEFAULT if version_of(capability) >= FP8_FROM)


def version_of(compute_capability: str) -> tuple[int, ...]:
    """A compute capability as numbers, to be compared: "12.0" is (12, 0)."""
    return tuple(int(part) for part in compute_capability.split("."))


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
    first, second = version_numbers(one), version_numbers(other)
    shorter = min(len(first), len(second))
    return shorter >= 2 and first[:shorter] == second[:shorter]


def runs_version(built_by: str, here: str) -> bool:
    """Whether TensorRT `here` loads a version-compatible engine: of the same major version, and not older."""
    built, running = version_numbers(built_by), version_numbers(here)
    return built[:1] == running[:1] and running[:3] >= built[:3]


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 10.3.0.30-1+cuda12.5 is (10, 3, 0, 30)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def target_name(tensorrt: str, gpu: str, compute_capability: str) -> str:
    """Return an engine's target as a part of a file name: `trt10.3.0-orin-sm87`."""
    device = re.sub(r"[^a-z0-9]+", "-", gpu.lower().replace("nvidia", "")).strip("-") or "gpu"
    return f"trt{tensorrt}-{device}-{target_label(compute_capability)}"


def rtx_target_name(version: str, targets: Sequence[str]) -> str:
    """The same of TensorRT for RTX, which builds for kinds of GPUs: `rtx1.7.1.116-sm89-sm120`."""
    return "-".join((f"rtx{version}", *map(target_label, targets)))
