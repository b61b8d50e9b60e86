"""One file of weights for all graphs: each tensor's bytes are stored once, however many graphs use them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir

if TYPE_CHECKING:
    from typing import BinaryIO

WEIGHTS = "weights.bin"
INLINE_BYTES = 1024
"""Tensors below this stay inside their graph."""
PAGE_BYTES = 4096
"""Large tensors begin on a page, so that a reader can map them in place of copying them."""
LINE_BYTES = 64


class SharedWeights:
    """Moves the weights of graphs into one external-data file, by content.

    Use as a context manager, while the graphs are written to the same folder.

    Attributes:
        stored_bytes: length of the file so far.
        shared_bytes: bytes that were wanted again and not stored again.
    """

    def __init__(self, folder: Path, name: str = WEIGHTS) -> None:
        self.folder, self.name = folder, name
        self.stored_bytes = self.shared_bytes = 0
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> SharedWeights:
        self._file: BinaryIO = (self.folder / self.name).open("wb")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def take(self, model: onnx_ir.Model) -> None:
        """Store the model's weights, and make the model refer to the file in their place."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or self._holds(tensor):
                continue
            if tensor.nbytes < INLINE_BYTES:
                value.const_value = onnx_ir.tensor(tensor.numpy(), name=value.name)
                continue
            data = tensor.tobytes()
            value.const_value = onnx_ir.ExternalTensor(
                location=self.name,
                offset=self._place(data),
                length=len(data),
                dtype=tensor.dtype,
                shape=onnx_ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                base_dir=self.folder,
            )

    def _holds(self, tensor: onnx_ir.TensorProtocol) -> bool:
        """Whether the tensor lies in this file already; one that lies in another folder's is copied."""
        return isinstance(tensor, onnx_ir.ExternalTensor) and Path(tensor.base_dir) == self.folder

    def _place(self, data: bytes) -> int:
        key = hashlib.sha256(data).digest()
        if key in self._offsets:
            self.shared_bytes += len(data)
            return self._offsets[key]
        unit = PAGE_BYTES if len(data) >= 16 * PAGE_BYTES else LINE_BYTES
        offset = -(-self.stored_bytes // unit) * unit
        self._file.write(bytes(offset - self.stored_bytes))
        self._file.write(data)
        self._offsets[key] = offset
        self.stored_bytes = offset + len(data)
        return offset


def save_graph(model: onnx_ir.Model, path: Path, metadata: dict[str, str]) -> None:
    """Write a graph whose weights were taken out, with the manifest's facts in its `metadata_props`."""
    model.metadata_props.update(metadata)
    proto = onnx_ir.serde.serialize_model(model)
    for node in proto.graph.node:
        # Where in torch's source each node came from is half of a small graph's bytes.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
