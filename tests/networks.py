"""Tiny networks and clips, for the tests of the model and of the export."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from velora_edge.model.config import Backbone, ModelConfig
from velora_edge.model.velora import VELoRA, create_model

ARGS = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
SHALLOW = Backbone(name="vit_tiny_patch16_224", args={**ARGS, "depth": 1})
"""One block a tower: quicker to export."""
T, SIZE, N, D = 4, 32, 17, 48


def tiny_config(**changes: Any) -> ModelConfig:
    """17 tokens of 48, clips of 4, three classes."""
    base: dict[str, Any] = {
        "labels": ("wave", "point", "rest"),
        "clip_length": T,
        "image_size": (SIZE, SIZE),
        "backbone": Backbone(name="vit_tiny_patch16_224", args=ARGS),
    }
    return ModelConfig(**{**base, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> VELoRA:
    """A tiny network whose LoRA branches and absent embeddings are not zero, as if trained; in eval mode."""
    torch.manual_seed(seed)
    model = create_model(tiny_config(**changes))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
        elif parameter.requires_grad and (name.endswith("absent") or "norm" in name):
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return model.eval()


def clips(count: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """RGB and event images, normalised, [count, T, 3, SIZE, SIZE]."""
    generator = torch.Generator().manual_seed(seed)
    rgb, event = torch.rand(2, count, T, 3, SIZE, SIZE, generator=generator) * 2 - 1
    return rgb, event
