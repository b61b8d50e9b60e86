"""Files that an ONNX graph keeps its weights in, read from the graph's own bytes without the package onnx.

Layout: onnx.proto of onnx/onnx, in Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding).
Tensors are looked for wherever a model may hold one: initializers, sparse ones, attributes, subgraphs,
functions. What such a tensor tells as `location` is what ONNX Runtime and OpenVINO would open. A node of the
type EPContext holds a program of a provider, or names a file with one: such graphs are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
