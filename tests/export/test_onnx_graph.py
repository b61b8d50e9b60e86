"""A traced graph holds its weights in the form that products take them."""

from __future__ import annotations

from collections import Counter

import torch
from networks import SHALLOW, D, tiny_model
from velora_export.onnx.fusible import simplify
from velora_export.onnx.graphs import make_graphs
from velora_export.onnx.onnx_graph import trace
from velora_export.precision.linear_layers import linear_layers

from velora_edge.model.lora import merge

torch.set_num_threads(2)


def test_the_published_fusion_s_cut_weights_are_layers_like_all_others() -> None:
    merged = merge(tiny_model(backbone=SHALLOW, compat="reference"))
    simplify(merged)
    graph = trace(make_graphs(merged)["head"], "head").graph
    layers = linear_layers(graph, "head")
    assert Counter((layer.key.module, *layer.weight.shape) for layer in layers if layer.weight.shape) == {
        ("head.embedding.project", D, D): 3,
        ("head.shared.attn.qkv", D, 3 * D): 1,
        ("head.shared.attn.proj", D, D): 1,
        ("head.shared.mlp.fc1", D, 4 * D): 1,
        ("head.shared.mlp.fc2", 4 * D, D): 1,
        # the values of two towers' last blocks, without query and key
        ("head", D, D): 2,
        **{
            (f"towers.{tower}.vit.blocks.0.{module}", *shape): 1
            for tower in ("rgb", "event")
            for module, shape in {"attn.proj": (D, D), "mlp.fc1": (D, 4 * D), "mlp.fc2": (4 * D, D)}.items()
        },
        ("head.attention.qkv", D, 3 * D): 1,
    }
    weights = set(graph.initializers)
    cut = [
        node for node in graph if node.op_type in ("Slice", "Transpose") and node.inputs[0].name in weights
    ]
    assert cut == []
