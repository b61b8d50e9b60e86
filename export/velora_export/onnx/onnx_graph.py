"""Export of a torch module to an ONNX graph by torch's own exporter, with weights in one shared file.

Nodes are named after the modules of the network: profilers and TensorRT's layer information show these names,
and a layer has the same one in every graph.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir
import torch

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    import onnx_ir as ir
    from numpy.typing import NDArray

    from velora_export.onnx.graphs import Graph


SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes which modules a node lies in, the outermost first, its own name last."""
HEAD, MODEL = "head", "model"
"""The callers: the last blocks of two towers are called by their tower, and by the head again."""
_NONE = ("", "_empty_nn_module_stack_from_metadata_hook")
"""Modules of what belongs to the graph as a whole."""


def name_nodes(graph: ir.Graph, name: str) -> None:
    """Name the nodes of a graph as torch's exporter left it.

    Args:
        graph: its nodes carry torch's scopes, some of them none.
        name: rgb, event, diff, head or clip.
    """
    used: Counter[str] = Counter()
    for node in graph:
        scopes = _scopes(node)
        in_head = any(scope == "model.head" or scope.startswith("model.head.") for scope in scopes)
        module = next((scope for scope in scopes[-2:-1] if scope not in _NONE), name)
        if module == "tower" or module.startswith("tower."):
            module = f"towers.{name}{module.removeprefix('tower')}"
        path = f"{HEAD if in_head else MODEL}/{module.removeprefix('model.')}/{node.op_type}"
        node.name = path if not used[path] else f"{path}.{used[path]}"
        used[path] += 1


def module_of(node: ir.Node) -> tuple[str, str]:
    """Caller and module of a named node, such as ("model", "towers.rgb.patch_embed"), or two empty texts."""
    parts = (node.name or "").split("/")
    return (parts[0], parts[1]) if len(parts) == 3 and parts[0] in (HEAD, MODEL) else ("", "")


def _scopes(node: ir.Node) -> list[str]:
    try:
        return [str(scope) for scope in ast.literal_eval(node.metadata_props[SCOPES])]
    except (KeyError, ValueError, SyntaxError):
        return []


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


# TensorRT 10.3's parser reads up to opset 20. LayerNormalization is one node from 17 on, which fp16 engines
# need to keep their accuracy; from 23 on the exporter writes Attention nodes, which TensorRT 10.3 has not.
# 18 is what torch's exporter writes without converting.
OPSET = 18


def trace(graph: Graph, name: str, *, opset: int = OPSET) -> onnx_ir.Model:
    """The ONNX model of a graph, weights in memory, its batch dynamic, and so the length of lists of patches.

    Raises:
        EngineError: if torch cannot express the graph.
    """
    dynamic = {key: {0: torch.export.Dim("batch", min=1)} for key in graph.inputs}
    if "patches" in dynamic:
        dynamic["patches"][1] = torch.export.Dim("patches", min=0)
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph.module.eval(),
                kwargs=graph.inputs,
                dynamo=True,
                opset_version=opset,
                input_names=list(graph.inputs),
                output_names=[graph.output],
                dynamic_shapes=dynamic,
                optimize=True,
                verbose=False,
            )
        except Exception as error:  # the exporter raises types of many libraries
            reason = str(error).strip().splitlines()
            raise EngineError(
                f"torch cannot export the {name} graph: {reason[0] if reason else type(error).__name__}"
            ) from error
    assert program is not None
    model = program.model
    model.graph.name = name
    _fold_weights(model)
    name_nodes(model.graph, name)
    return model


def _fold_weights(model: onnx_ir.Model) -> None:
    """Cut and transpose weights now: the exporter leaves it to the engine where several layers share one.

    A transposed weight has the same bytes as where it was folded already, so that graphs share it. One that
    the engine would have to cut is stored whole, and is no layer's weight to who looks for linear layers.
    """
    import onnx_ir

    graph = model.graph
    for node in [n for n in graph if n.op_type in ("Slice", "Transpose")]:
        values = [value for value in node.inputs if value is not None]
        stored = [value.const_value for value in values if value.name in graph.initializers]
        given = [tensor.numpy() for tensor in stored if tensor is not None]
        if len(given) < len(node.inputs):
            continue
        array = np.ascontiguousarray(_cut(*given) if node.op_type == "Slice" else _turned(node, *given))
        result = node.outputs[0]
        tensor = onnx_ir.tensor(array, name=f"{values[0].name}.{result.name}")
        kind, shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(array.shape)
        folded = onnx_ir.Value(name=tensor.name, shape=shape, type=kind, const_value=tensor)
        graph.register_initializer(folded)
        result.replace_all_uses_with(folded)
        graph.remove(node, safe=True)
        for value in values:
            if not value.uses():
                graph.initializers.pop(str(value.name), None)


def _turned(node: onnx_ir.Node, weight: NDArray[Any]) -> NDArray[Any]:
    return weight.transpose(node.attributes["perm"].as_ints())


def _cut(weight: NDArray[Any], *given: NDArray[Any]) -> NDArray[Any]:
    """A Slice as torch's exporter writes it: starts, ends, axes and steps all given, steps above zero."""
    part = [slice(None)] * weight.ndim
    for start, end, axis, step in zip(*(values.tolist() for values in given), strict=True):
        part[axis] = slice(start, end, step)
    return weight[tuple(part)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch's exporter prints, logs and warns of from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
