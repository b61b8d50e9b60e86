"""Graphs of a bundle as five torch modules; `velora_export.onnx.fusible` has the form of their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import nn

from velora_edge.datatypes import MODALITIES
from velora_edge.events.accumulate.active_patches import NOTHING
from velora_edge.model.active_patches import encode_embedded, encode_patches, take_rows
from velora_edge.model.head import Streams

if TYPE_CHECKING:
    from velora_edge.model.tower import Tower
    from velora_edge.model.velora import VELoRA


class _Pixels(nn.Module):
    """uint8 images [..., H, W, 3] to normalised float32 [..., 3, H, W].

    The Cast comes first: TensorRT takes an UINT8 input into a Cast and into nothing else. Channels are moved
    before anything is multiplied: one factor for a plane is quicker than three in turn.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", (1 / (255 * torch.tensor(std)))[:, None, None])
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std))[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _channels_first(images.to(torch.float32)) * self.scale + self.shift


def _channels_first(images: torch.Tensor) -> torch.Tensor:
    return images.movedim(-1, -3)


class TowerGraph(nn.Module):
    """`image` uint8[B, H, W, 3] -> `tokens` float32[B, N, P]."""

    def __init__(self, tower: Tower, pixels: _Pixels) -> None:
        super().__init__()
        self.tower, self.pixels = tower, pixels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens of each image."""
        tokens: torch.Tensor = self.tower(self.pixels(image))
        return tokens


class PatchProjection(nn.Module):
    """A tower's patches as one product of the rows of those that are computed.

    Args:
        tower: its patches are a convolution that does not overlap.
        pixels: normalises what is taken.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, tower: Tower, pixels: _Pixels) -> None:
        super().__init__()
        embed: Any = tower.vit.patch_embed
        self.grid, self.norm = embed.grid_size, embed.norm
        weight = embed.proj.weight  # [D, 3, h, w], read by rows of pixels, the channel last
        self.project = nn.Linear(weight[0].numel(), len(weight), bias=embed.proj.bias is not None)
        self.project.weight = nn.Parameter(weight.permute(0, 2, 3, 1).flatten(1), requires_grad=False)
        if embed.proj.bias is not None:
            self.project.bias = embed.proj.bias
        count = weight[0, 0].numel()
        self.register_buffer("scale", pixels.scale.flatten().repeat(count))
        self.register_buffer("shift", pixels.shift.flatten().repeat(count))

    def forward(self, image: torch.Tensor, patches: torch.Tensor, is_difference: bool) -> torch.Tensor:
        """Embedded patches [B, K, D] of images [B, H, W, 3] of 0 to 255; a difference's mean cancels."""
        B, H, W, C = image.shape
        down, across = self.grid
        cut = image.reshape(B, down, H // down, across, W // across, C).transpose(2, 3)
        rows = take_rows(cut.reshape(B, down * across, -1), patches) * self.scale
        embedded: torch.Tensor = self.norm(self.project(rows if is_difference else rows + self.shift))
        return embedded


def _has_plain_patches(tower: Tower) -> bool:
    return type(tower.vit.patch_embed) is PatchEmbed


class ActiveTowerGraph(nn.Module):
    """`image` uint8[B, H, W, 3], `patches` int64[B, K] -> `tokens` float32[B, N, P].

    Args:
        tower: of events.
        pixels: makes its images.
        still: tokens of the patches that are not in the list, [1, N, P].
    """

    still: torch.Tensor

    def __init__(self, tower: Tower, pixels: _Pixels, still: torch.Tensor) -> None:
        super().__init__()
        self.tower, self.pixels = tower, pixels
        self.patch_projection = PatchProjection(tower, pixels) if _has_plain_patches(tower) else None
        self.register_buffer("still", still)

    def forward(self, image: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Tokens of each image."""
        if self.patch_projection is None:
            return encode_patches(self.tower, self.pixels(image), patches, self.still)
        embedded = self.patch_projection(image.to(torch.float32), patches, False)
        return encode_embedded(self.tower, embedded, patches, self.still)


class DiffGraph(nn.Module):
    """`rgb`, `rgb_before`, `event`, `event_before` uint8[B, H, W, 3] -> `tokens` float32[B, N, P].

    An absent modality is given as the same picture twice: its difference is then zero.
    """

    def __init__(self, tower: Tower, pixels: _Pixels) -> None:
        super().__init__()
        self.tower, self.pixels = tower, pixels

    def forward(
        self, rgb: torch.Tensor, rgb_before: torch.Tensor, event: torch.Tensor, event_before: torch.Tensor
    ) -> torch.Tensor:
        """Tokens of the differences |rgb - rgb_before| + |event - event_before|; the mean cancels."""
        images = self.differences(rgb, rgb_before, event, event_before)
        tokens: torch.Tensor = self.tower(_channels_first(images) * self.pixels.scale)
        return tokens

    def differences(self, *images: torch.Tensor) -> torch.Tensor:
        """Differences [B, H, W, 3] of images of 0 to 255."""
        rgb, rgb_before, event, event_before = (image.to(torch.float32) for image in images)
        return (rgb - rgb_before).abs() + (event - event_before).abs()


class ActiveDiffGraph(DiffGraph):
    """The same of the patches in a list alone: `patches` int64[B, K] is one more input.

    Args:
        tower: of differences.
        pixels: makes its images.
        still: tokens of the patches that are not in the list, [1, N, P].
    """

    still: torch.Tensor

    def __init__(self, tower: Tower, pixels: _Pixels, still: torch.Tensor) -> None:
        super().__init__(tower, pixels)
        self.patch_projection = PatchProjection(tower, pixels) if _has_plain_patches(tower) else None
        self.register_buffer("still", still)

    def forward(  # type: ignore[override]
        self,
        rgb: torch.Tensor,
        rgb_before: torch.Tensor,
        event: torch.Tensor,
        event_before: torch.Tensor,
        patches: torch.Tensor,
    ) -> torch.Tensor:
        """Tokens of the differences."""
        images = self.differences(rgb, rgb_before, event, event_before)
        if self.patch_projection is None:
            scaled = _channels_first(images) * self.pixels.scale
            return encode_patches(self.tower, scaled, patches, self.still)
        embedded = self.patch_projection(images, patches, True)
        return encode_embedded(self.tower, embedded, patches, self.still)


class HeadGraph(nn.Module):
    """The three rings and a flag for each slot -> `logits` float32[B, K].

    Inputs: `rgb`, `event` float32[B, T, N, P], `diff` float32[B, T-1, N, P]; `rgb_present`, `event_present`
    float32[B, T], `diff_present` float32[B, T-1], 0 or 1. The order of the slots does not matter, and an
    absent slot may hold anything.
    """

    def __init__(self, model: VELoRA) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        diff: torch.Tensor,
        rgb_present: torch.Tensor,
        event_present: torch.Tensor,
        diff_present: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of the tokens in the slots that are present."""
        present = Streams(rgb_present > 0.5, event_present > 0.5, diff_present > 0.5)
        return self.model.decide(Streams(rgb, event, diff), present)


class ClipGraph(nn.Module):
    """Whole clips -> `logits` float32[B, K], for evaluation and parity.

    Inputs: `rgb`, `event` uint8[B, T, H, W, 3]; `rgb_present`, `event_present` float32[B, T], 0 or 1. A
    modality's difference counts only where it is present in both frames.
    """

    def __init__(self, model: VELoRA, pixels: _Pixels) -> None:
        super().__init__()
        self.model, self.pixels = model, pixels

    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        rgb_present: torch.Tensor,
        event_present: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of whole clips."""
        logits: torch.Tensor = self.model(
            self.pixels(rgb), self.pixels(event), rgb_present > 0.5, event_present > 0.5
        )
        return logits


@dataclass(frozen=True)
class Graph:
    """One graph, ready to be traced.

    Attributes:
        module: what it computes.
        inputs: example inputs by name, batch 2; the first axis is dynamic, and the second of `patches`.
        output: name of its output.
    """

    module: nn.Module
    inputs: dict[str, torch.Tensor]
    output: str


def make_graphs(merged: VELoRA) -> dict[str, Graph]:
    """The bundle's graphs of a merged model, by name: rgb, event, diff, head, clip."""
    config = merged.config
    height, width = config.image_size
    T, batch = config.clip_length, 2
    pixels = _Pixels(config.mean, config.std)
    image = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    clip = torch.zeros(batch, T, height, width, 3, dtype=torch.uint8)
    slots = {"rgb": T, "event": T, "diff": T - 1}
    flags = {f"{m}_present": torch.ones(batch, slots[m]) for m in MODALITIES}
    rings = {m: torch.zeros(batch, slots[m], merged.tokens, merged.token_size) for m in MODALITIES}
    clip_inputs = {
        "rgb": clip,
        "event": clip.clone(),
        "rgb_present": flags["rgb_present"],
        "event_present": flags["event_present"],
    }
    pairs = {name: image.clone() for name in ("rgb", "rgb_before", "event", "event_before")}
    event: nn.Module = TowerGraph(merged.tower("event"), pixels)
    diff: nn.Module = DiffGraph(merged.tower("diff"), pixels)
    patches: dict[str, torch.Tensor] = {}
    if config.active_patches:
        merged.fix_still()
        event = ActiveTowerGraph(merged.tower("event"), pixels, merged.still["event"])
        diff = ActiveDiffGraph(merged.tower("diff"), pixels, merged.still["diff"])
        patches = {"patches": torch.tensor([[0, 1, NOTHING], [2, NOTHING, NOTHING]])}
    return {
        "rgb": Graph(TowerGraph(merged.tower("rgb"), pixels), {"image": image}, "tokens"),
        "event": Graph(event, {"image": image, **patches}, "tokens"),
        "diff": Graph(diff, {**pairs, **patches}, "tokens"),
        "head": Graph(HeadGraph(merged), {**rings, **flags}, "logits"),
        "clip": Graph(ClipGraph(merged, pixels), clip_inputs, "logits"),
    }
