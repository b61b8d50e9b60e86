"""ONNX graphs of a bundle and their weights, checked; ONNX Runtime sessions with our settings.

What a graph refers to is read from its own bytes, without the package onnx. Layout: onnx.proto of onnx/onnx,
in Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding). Tensors are looked for wherever a
model may hold one; what such a tensor tells as `location` is what ONNX Runtime and OpenVINO would open. A
node of the type EPContext holds a program of a provider, or names a file with one: such graphs are refused.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from velora_edge.errors import BundleError, EngineError, MissingExtraError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from velora_edge.bundle import Bundle

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# Where shapes are known the first makes a Gemm of a MatMul and its Add, and ONNX Runtime has none for int8:
# weights would be dequantized at every run. The second merges the QuantizeLinear of layers that have an input
# in common, whose products then stay in floats. fp32 is as fast without them.
_HINDERS_INT8 = ["MatMulAddFusion", "CommonSubexpressionElimination"]
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"

SPIN_US = 50
"""Longer than most operators wait for each other, shorter than to fall asleep and be woken would take."""
_BOUNDED_SPIN = (1, 26)
"""The first version that is sure to know `spin_duration_us`; one that does not would spin without a bound."""

Provider = tuple[str, dict[str, str]]
"""A provider's name and its options."""


class GraphError(EngineError):
    """ONNX Runtime does not take a graph."""


class GraphBytes(NamedTuple):
    """A graph and the weights' files that it refers to, by name, as they were checked."""

    model: bytes
    weights: dict[str, bytes]


def load_graph(bundle: Bundle, name: str) -> GraphBytes:
    """One of a bundle's graphs: rgb, event, diff, head or clip.

    Raises:
        BundleError: if a file differs from its SHA-256, or the graph refers to one that the manifest does not
            list, or holds a compiled program.
    """
    file = f"{name}.onnx"
    model = bundle.read(file)
    try:
        needed = external_files(model)
    except ValueError as error:
        raise BundleError(
            f"no graph that is run here: {error}",
            path=bundle.path,
            place=file,
            remedy="export the model again",
        ) from error
    for unlisted in sorted(needed - bundle.manifest.files.keys()):
        raise BundleError(
            f"refers to {printable(unlisted)}, which the manifest does not list",
            path=bundle.path,
            place=file,
            remedy="export the model again",
        )
    return GraphBytes(model, {weights: bundle.read(weights) for weights in needed})


@contextlib.contextmanager
def checked_copy(bundle: Bundle, name: str) -> Iterator[Path]:
    """The path of a copy of a graph, its weights beside it, made of the bytes that were checked.

    For libraries that read files alone: nobody else can write to the folder, which is removed at the end.

    Raises:
        BundleError: as `load_graph`.
        EngineError: if there is no room for it.
    """
    graph = load_graph(bundle, name)
    with tempfile.TemporaryDirectory(prefix="velora-") as folder:
        _write_files(Path(folder), {f"{name}.onnx": graph.model, **graph.weights})
        yield Path(folder, f"{name}.onnx")


def load_runtime(purpose: str, extra: str = "cpu") -> Any:
    """The onnxruntime module.

    Raises:
        MissingExtraError: naming the extra to install, if it is not there.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", extra, purpose) from error
    return onnxruntime


def session_options(threads: int = 0) -> Any:
    """Options for short latencies on a machine that has other things to do.

    Args:
        threads: for the arithmetic on the CPU; 0: as many as it has cores.
    """
    runtime = load_runtime("inference")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in _waiting(runtime.__version__).items():
        options.add_session_config_entry(f"session.{key}", value)
    return options


def _waiting(version: str) -> dict[str, str]:
    """How threads wait for the next operator: awake for a moment, asleep from then on and between graphs.

    The graphs run one after the other: pools that spun for longer would take the cores from decoding.
    """
    major, minor = (int(number) for number in version.split(".")[:2])
    if (major, minor) < _BOUNDED_SPIN:
        return {"intra_op.allow_spinning": "0"}
    return {"intra_op.spin_duration_us": str(SPIN_US), "force_spinning_stop": "1"}


def open_session(
    model: Path | bytes | GraphBytes,
    options: Any,
    providers: Sequence[Provider] = ((CPU, {}),),
    *,
    weights: Path | None = None,
) -> Any:
    """A session on the first of `providers`.

    Args:
        model: the graph's file, or the graph, or the graph with its weights.
        options: see `session_options`.
        providers: the one that is wanted, then those that may take what it cannot.
        weights: folder of the weights' file, for a graph that is no file.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
        GraphError: if it does not take the graph.
        EngineError: if it cannot start on the provider, or fell back to another.
    """
    runtime = load_runtime("inference")
    wanted = providers[0][0]
    if weights is not None:
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(weights))
    content = model.model if isinstance(model, GraphBytes) else model
    with contextlib.ExitStack() as stack:
        if isinstance(model, GraphBytes):
            _add_weights(options, model.weights, stack)
        try:
            session = runtime.InferenceSession(
                content if isinstance(content, bytes) else str(content),
                options,
                providers=list(providers),
                disabled_optimizers=_HINDERS_INT8 if wanted == CPU else None,
            )
        except Exception as error:  # onnxruntime raises types of its own, all of them straight from Exception
            kind = GraphError if wanted == CPU else EngineError
            raise kind(f"onnxruntime cannot load the graph: {first_line(error)}") from error
    found = session.get_providers()
    if found[:1] != [wanted]:
        raise EngineError(
            f"expected onnxruntime on {wanted}, got {', '.join(found)}; velora doctor tells more"
        )
    return session


def _add_weights(options: Any, weights: dict[str, bytes], stack: contextlib.ExitStack) -> None:
    """Give the contents of weights' files, which ONNX Runtime copies when it makes the session."""
    if not weights:
        return
    if hasattr(options, "add_external_initializers_from_files_in_memory"):
        names, contents = list(weights), list(weights.values())
        options.add_external_initializers_from_files_in_memory(names, contents, list(map(len, contents)))
        return
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="velora-"))  # older versions
    _write_files(Path(folder), weights)
    options.add_session_config_entry(_FOLDER_OF_WEIGHTS, folder)


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    try:
        for file, data in files.items():
            place = folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    except OSError as error:
        raise EngineError(f"{folder}: the graphs cannot be copied: {error.strerror}; set TMPDIR") from error


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_TENSOR, _ENTRY = "TensorProto", "StringStringEntryProto"
_MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR, 6: "GraphProto", 10: _TENSOR, 11: "GraphProto", 22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}  # fmt: skip
"""Fields that lead to a tensor, by message and field number."""
_LOCATION = b"location"
_OP_TYPE, _PROGRAM = 4, b"EPContext"
_DEEPEST = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(model: bytes) -> set[str]:
    """The names of files that the model's tensors lie in, as the model tells them.

    Raises:
        ValueError: if these bytes are no ONNX model, or one that holds a compiled program.
    """
    found: set[str] = set()
    stack = [("ModelProto", memoryview(model), 0)]
    while stack:
        kind, data, depth = stack.pop()
        if depth > _DEEPEST:
            raise ValueError("graphs nested too deeply")
        known = _MESSAGES[kind]
        for number, body in _fields(data):
            if kind == "NodeProto" and number == _OP_TYPE and bytes(body) == _PROGRAM:
                raise ValueError("a graph with a compiled program in it (EPContext)")
            inner = known.get(number)
            if inner == _ENTRY:
                found.update(_location(body))
            elif inner is not None:
                stack.append((inner, body, depth + 1))
    return found


def _location(entry: memoryview) -> Iterator[str]:
    """The value of a key and value, where the key is `location`."""
    fields = dict(_fields(entry))
    if bytes(fields.get(1, b"")) == _LOCATION:
        yield bytes(fields.get(2, b"")).decode("utf-8", "surrogateescape")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message: number and content."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _BYTES:
            size, at = _varint(data, at)
            yield key >> 3, data[at : at + size]
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}, which ONNX does not use")
        if at > len(data):
            raise ValueError("a field reaches past the end of its message")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number is cut off")
