"""Small towers of today's forms with random weights, for the tests of the model and of the export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from networks import tiny_model

from velora_edge.model.config import Backbone

if TYPE_CHECKING:
    from velora_edge.model.velora import VELoRA

_SIZES: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
TOWERS: dict[str, dict[str, Any]] = {
    "deit3_small_patch16_224": {},
    "eva02_base_patch14_224": {},
    "eva02_base_patch16_clip_224": {},
    "eva02_tiny_patch14_224": {},
    "vit_base_patch16_clip_quickgelu_224": {},
    "vit_base_patch16_siglip_224": {},
    "vit_giant_patch14_dinov2": {"mlp_ratio": 4},
    "vit_pe_core_small_patch16_384": {},
    "vit_pe_spatial_small_patch16_512": {},
    "vit_small_patch14_dinov2": {},
    "vit_small_patch14_reg4_dinov2": {},
    "vit_small_patch16_224": {},
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_dinov3_qkvb": {},
    "vit_small_patch16_rope_224": {},
    "vit_small_patch16_rope_mixed_224": {},
    "vit_small_plus_patch16_dinov3": {},
    "vit_tiny_r_s16_p8_224": {"patch_size": 2},
}
"""timm's names, and what is changed of each beside its sizes."""


def todays_backbone(name: str) -> Backbone:
    """17 tokens or a few more of 48, two blocks, no projection."""
    return Backbone(name=name, args={**_SIZES, **TOWERS[name]}, projection=0)


def todays_model(name: str, **changes: Any) -> VELoRA:
    """A tiny network as if trained, in eval mode."""
    return tiny_model(backbone=todays_backbone(name), **changes)
