"""Towers that compute active patches alone: those with events. A still patch keeps a constant token.

A patch is active where a pixel of the event image is not of the colour that an image without events has.
Class and register tokens and the active patches, with their own positions, go through the blocks and attend
to one another, not to the rest. The token of a still patch is the one that the same tower gives in its place
for an image without events: a constant of the weights. Dynamic vision transformers choose patches by what
they have learned (DynamicViT, arXiv 2106.02034); here the event camera says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from velora_edge.errors import InputError
from velora_edge.events.accumulate.active_patches import NOTHING

if TYPE_CHECKING:
    from velora_edge.model.config import ModelConfig
    from velora_edge.model.tower import Tower


STEP = 32
"""Lists are made this much longer at a time, so that a batch meets few shapes."""


class Activity(nn.Module):
    """Finds the active patches of event images.

    Args:
        config: of a model with active patches.
        grid: patches of an image, down and across.

    Attributes:
        blank: a normalised image without events, [3, H, W].
    """

    blank: torch.Tensor
    half_level: torch.Tensor

    def __init__(self, config: ModelConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        height, width = config.image_size
        self.patch_size = height // grid[0], width // grid[1]
        mean, std = torch.tensor(config.mean), torch.tensor(config.std)
        colour = (torch.tensor(config.blank) / 255 - mean) / std
        self.register_buffer("blank", colour[:, None, None].repeat(1, *config.image_size), persistent=False)
        self.register_buffer("half_level", (0.5 / 255 / std)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Which patches are active, bool [..., patches], of normalised event images [..., 3, H, W]."""
        changed = ((images - self.blank).abs() > self.half_level).any(dim=-3).to(images.dtype)
        patches = functional.max_pool2d(changed.flatten(0, -3)[:, None], self.patch_size)
        return patches.reshape(*images.shape[:-3], -1) > 0


def active_differences(active: torch.Tensor, in_both: torch.Tensor) -> torch.Tensor:
    """Which patches of the differences are active: those that are so in either frame.

    Args:
        active: of the event images, bool [B, T, patches].
        in_both: where both frames have their event image, bool [B, T-1]; elsewhere all are active.

    Returns:
        bool [B, T-1, patches].
    """
    return active[:, 1:] | active[:, :-1] | ~in_both[:, :, None]


def list_patches(active: torch.Tensor) -> torch.Tensor:
    """Numbers of the active patches, int64 [B, K], of bool [B, patches]; NOTHING fills the shorter lists.

    In a graph that is being exported K is the number of all patches, each in its own place.
    """
    patches = active.shape[1]
    numbers = torch.where(active, torch.arange(patches, device=active.device), NOTHING)
    if torch.compiler.is_compiling():
        return numbers
    longest = min(patches, -(-int(active.sum(dim=1).max()) // STEP) * STEP)
    order = active.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return numbers.gather(1, order[:, :longest])


def encode_patches(
    tower: Tower, images: torch.Tensor, patches: torch.Tensor, still: torch.Tensor
) -> torch.Tensor:
    """Tokens [B, N, P] of normalised images [B, 3, H, W], computed for some patches alone.

    Args:
        tower: a plain ViT; see `check_active_patches`.
        images: of which patches are taken.
        patches: numbers of the patches to compute, int64 [B, K], K of 0 or more; NOTHING: none.
        still: tokens [1, N, P] that the other patches get.
    """
    return encode_embedded(tower, take_rows(tower.vit.patch_embed(images), patches), patches, still)


def take_rows(rows: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Rows [B, K, C] of the patches in a list, of rows [B, patches, C] of all; any row for NOTHING."""
    B, count, _ = rows.shape
    numbers = patches.clamp(min=0) + torch.arange(B, device=patches.device)[:, None] * count
    return rows.flatten(0, 1)[numbers.flatten()].reshape(*patches.shape, rows.shape[-1])


def encode_embedded(
    tower: Tower, embedded: torch.Tensor, patches: torch.Tensor, still: torch.Tensor
) -> torch.Tensor:
    """The same of patches that are embedded, [B, K, D], without their positions."""
    vit, prefix, N = tower.vit, int(tower.vit.num_prefix_tokens), tower.tokens
    B, device = patches.shape[0], patches.device
    first = torch.arange(prefix, device=device).expand(B, -1)
    is_there = torch.cat([torch.ones_like(first, dtype=torch.bool), patches >= 0], dim=1)
    x = _run_blocks(vit, vit.norm_pre(_with_positions(vit, embedded, patches)), is_there[:, None, None])
    x = vit.head(vit.fc_norm(vit.norm(x)))
    # One row more than there are tokens takes what NOTHING stands for.
    places = torch.cat([first, torch.where(patches >= 0, patches + prefix, N)], dim=1)
    rows = (places + torch.arange(B, device=device)[:, None] * (N + 1)).flatten()
    out = torch.cat([still, still[:, :1]], dim=1).to(x.dtype).repeat(B, 1, 1).flatten(0, 1)
    out = out.index_put((rows,), x.flatten(0, 1))
    return out.reshape(B, N + 1, -1)[:, :N]


def _with_positions(vit: Any, embedded: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Class and register tokens and the patches [B, K, D], each with its own position; as timm adds them."""
    first = vit.cls_token if vit.reg_token is None else torch.cat([vit.cls_token, vit.reg_token], dim=1)
    own = vit.pos_embed[0]
    if not vit.no_embed_class:
        first, own = first + own[: first.shape[1]], own[first.shape[1] :]
    placed = embedded + own[patches.clamp(min=0).flatten()].reshape(*patches.shape, own.shape[-1])
    tokens = torch.cat([first.expand(patches.shape[0], -1, -1), placed], dim=1)
    return cast("torch.Tensor", vit.pos_drop(tokens))


def _run_blocks(vit: VisionTransformer, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """All blocks; `mask`, bool [B, 1, 1, tokens], says which tokens may be attended to."""
    for block in vit.blocks:
        if vit.grad_checkpointing and torch.is_grad_enabled():
            x = cast("torch.Tensor", checkpoint(block, x, mask, use_reentrant=False))
        else:
            x = block(x, attn_mask=mask)
    return x


def check_active_patches(config: ModelConfig, tower: Tower) -> None:
    """Make sure that a model can have active patches.

    Raises:
        InputError: if its towers are no plain ViTs with a class token and learned positions.
    """
    vit = tower.vit
    is_plain = type(vit) is VisionTransformer and tower.has_class_token and not vit.dynamic_img_size
    if is_plain and vit.pos_embed is not None:
        return
    raise InputError(
        f"active patches cannot be had: {config.backbone.name} is not a ViT with a class token and learned "
        "positions",
        place="model.active_patches",
        remedy="choose a ViT such as vit_small_patch16_224, or leave active_patches out",
    )
