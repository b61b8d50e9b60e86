"""Towers, LoRA, fusion head: the VELoRA network in torch."""

from __future__ import annotations

import importlib.util

from velora_edge.errors import MissingExtraError

for _library in ("torch", "timm", "peft", "safetensors"):
    if importlib.util.find_spec(_library) is None:
        raise MissingExtraError(_library, "train", "the model in torch")
