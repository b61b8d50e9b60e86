"""Linear layers of a graph, each with the module of the network that it is; and the classifier."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from velora_edge.errors import EngineError
from velora_export.onnx.onnx_graph import HEAD, module_of

if TYPE_CHECKING:
    import onnx_ir as ir

SMALLEST = 32
"""A side of a weight below this, as LoRA's rank, is not worth the rounding."""
PATCHES = "patch_projection"
"""The module that projects patches; most graphs have a convolution for it."""
POOLING = frozenset(
    {
        "Concat",
        "Flatten",
        "Gather",
        "Identity",
        "ReduceMean",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Unsqueeze",
    }
)


class LayerKey(NamedTuple):
    """The same layer has the same key in the streaming graphs and in the clip graph.

    Attributes:
        in_head: it is called by the head; the last blocks of two towers are called by tower and head.
        module: its path in the network, such as "towers.rgb.vit.blocks.0.attn.qkv".
        call: 0 where the module is called for the first time, 1 for the second, within tower or head.
    """

    in_head: bool
    module: str
    call: int


@dataclass(frozen=True)
class LinearLayer:
    """One product of an activation and a weight.

    Attributes:
        key: which layer of the network it is.
        node: a MatMul; the bias is added behind it. A Gemm is written for one row a clip, the classifier.
    """

    key: LayerKey
    node: ir.Node

    @property
    def activation(self) -> ir.Value:
        """The input [..., I]."""
        return _there(self.node.inputs[0])

    @property
    def weight(self) -> ir.Value:
        """The weight [I, O]."""
        return _there(self.node.inputs[1])


def _there(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def linear_layers(graph: ir.Graph, name: str) -> list[LinearLayer]:
    """The linear layers of a bundle's graph, fp32, in their order; not patches, classifier, nor LoRA's own.

    Args:
        graph: its nodes named as `node_names` does.
        name: rgb, event, diff, head or clip.

    Raises:
        EngineError: if a layer does not say which one it is.
    """
    last = classifier_nodes(graph)
    found: list[LinearLayer] = []
    calls: Counter[tuple[bool, str]] = Counter()
    for node in graph:
        if node in last or not _is_linear(node, graph):
            continue
        place = _module(node, name)
        if PATCHES in place[1]:
            continue
        found.append(LinearLayer(LayerKey(*place, calls[place]), node))
        calls[place] += 1
    return found


def _is_linear(node: ir.Node, graph: ir.Graph) -> bool:
    if node.op_type != "MatMul":
        return False
    weight = _there(node.inputs[1])
    if weight.name not in graph.initializers or weight.shape is None or len(weight.shape) != 2:
        return False
    return min(int(side) for side in weight.shape.numpy()) >= SMALLEST


def _module(node: ir.Node, name: str) -> tuple[bool, str]:
    """Whether the head calls the layer, and the layer's path in the network."""
    caller, module = module_of(node)
    if not module:
        raise EngineError(
            f"the {name} graph does not tell which layer {node.name} is; export the model again"
        )
    return caller == HEAD, module


def classifier_nodes(graph: ir.Graph) -> frozenset[ir.Node]:
    """The layer that gives the logits, and what pools tokens for it; empty for a graph that gives tokens."""
    (output,) = graph.outputs
    if output.name != "logits":
        return frozenset()
    found: list[ir.Node] = []
    node = output.producer()
    while node is not None:
        found.append(node)
        if node.op_type in ("Gemm", "MatMul"):
            break
        node = _there(node.inputs[0]).producer()
    todo = [] if node is None else [node.inputs[0]]
    while todo:
        value = todo.pop()
        pooling = None if value is None else value.producer()
        if pooling is not None and pooling.op_type in POOLING:
            found.append(pooling)
            todo += pooling.inputs
    return frozenset(found)
