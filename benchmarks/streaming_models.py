"""Models with random weights and their fp32 graphs: what the benchmarks of the model share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from velora_export.onnx.fusible import simplify
from velora_export.onnx.graphs import make_graphs
from velora_export.onnx.onnx_graph import SharedWeights, save_graph, trace

from velora_edge.model.config import Backbone, ModelConfig
from velora_edge.model.lora import merge
from velora_edge.model.velora import VELoRA, create_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

VIT_B = "vit_base_patch16_clip_quickgelu_224.openai"
VIT_S = "vit_small_patch16_224"
LABELS = tuple(f"class {k}" for k in range(10))


def vit_config(name: str) -> ModelConfig:
    """The published fusion over a ViT of timm, clips of 8 pairs, 224x224."""
    return ModelConfig(labels=LABELS, backbone=Backbone(name=name), compat="reference")


def make_model(config: ModelConfig) -> VELoRA:
    """A model with random weights, the same ones each time; LoRA's branches are not zero."""
    torch.manual_seed(0)
    model = create_model(config)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def trace_graphs(
    model: VELoRA, folder: Path, names: Sequence[str], say: Callable[[str], None] = print
) -> None:
    """The named graphs in fp32, LoRA merged, in `folder` over one file of weights."""
    merged = merge(model)
    simplify(merged)
    graphs = make_graphs(merged)
    with SharedWeights(folder) as weights:
        for name in names:
            say(f"export {name}")
            traced = trace(graphs[name], name)
            weights.take(traced)
            save_graph(traced, folder / f"{name}.onnx", {})
