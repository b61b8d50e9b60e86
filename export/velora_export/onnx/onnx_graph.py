"""From a torch module to an ONNX graph, by torch's own exporter, without its chatter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from velora_edge.errors import EngineError
from velora_export.onnx.node_names import name_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir
    from numpy.typing import NDArray

    from velora_export.onnx.graphs import Graph

# TensorRT 10.3's parser reads up to opset 20. LayerNormalization is one node from 17 on, which fp16 engines
# need to keep their accuracy; from 23 on the exporter writes Attention nodes, which TensorRT 10.3 has not.
# 18 is what torch's exporter writes without converting.
OPSET = 18


def trace(graph: Graph, name: str, *, opset: int = OPSET) -> onnx_ir.Model:
    """The ONNX model of a graph, weights in memory, its batch axis dynamic.

    Raises:
        EngineError: if torch cannot express the graph.
    """
    dynamic = {key: {0: torch.export.Dim("batch", min=1)} for key in graph.inputs}
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
