"""Towers, LoRA, fusion head: the VELoRA network in torch."""

from __future__ import annotations

from importlib.util import find_spec

from velora_edge.errors import MissingExtraError

for _library in ("torch", "timm", "peft", "safetensors"):
    if find_spec(_library) is None:
        raise MissingExtraError(_library, "train", "the model in torch")
