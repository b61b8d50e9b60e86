"""From a torch module to an ONNX graph, by torch's own exporter, without its chatter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from velora_edge.errors import EngineError
from velora_export.node_names import name_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir

    from velora_export.graphs import Graph

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
    _fold_transposes(model)
    name_nodes(model.graph, name)
    return model


def _fold_transposes(model: onnx_ir.Model) -> None:
    """Transpose weights now: the exporter leaves it to the engine where several layers share one.

    The result has the same bytes as where it was folded already, so that graphs share it.
    """
    import onnx_ir

    graph = model.graph
    for node in [n for n in graph if n.op_type == "Transpose"]:
        weight, result = node.inputs[0], node.outputs[0]
        name = None if weight is None else weight.name
        if weight is None or name is None or name not in graph.initializers or weight.const_value is None:
            continue
        order = node.attributes["perm"].as_ints()
        array = np.ascontiguousarray(weight.const_value.numpy().transpose(order))
        tensor = onnx_ir.tensor(array, name=f"{name}.transposed")
        kind, shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(array.shape)
        folded = onnx_ir.Value(name=tensor.name, shape=shape, type=kind, const_value=tensor)
        graph.register_initializer(folded)
        result.replace_all_uses_with(folded)
        graph.remove(node, safe=True)
        if not weight.uses():
            graph.initializers.pop(name)


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
