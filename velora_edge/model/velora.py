"""Network of three towers and a head: whole clips for training, tokens and decisions for streaming."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import nn

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import InputError
from velora_edge.model.active_patches import (
    Activity,
    active_differences,
    check_active_patches,
    encode_patches,
    list_patches,
)
from velora_edge.model.head import HEAD_TOKENS, ProbeHead, ReferenceHead, Streams, VeloraHead, check_feedback
from velora_edge.model.lora import add_lora, set_tuning
from velora_edge.model.tower import Tower, create_tower

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velora_edge.model.config import ModelConfig


class VELoRA(nn.Module):
    """Recognises a clip of T pairs of RGB and event images.

    Attributes:
        config: the network's form.
        towers: rgb, event and diff.
        head: fusion and classifier.
        activity: finds the active patches of event images; None: the model computes all patches.
        still: once `fix_still` was called, tokens of still patches by modality, [1, N, P].
    """

    head: Any

    def __init__(self, config: ModelConfig, towers: Mapping[str, Tower], head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.towers = nn.ModuleDict(towers)
        self.head = head
        self.activity: Activity | None = None
        if config.active_patches:
            check_active_patches(config, self.tower("event"))
            self.activity = Activity(config, self.tower("event").vit.patch_embed.grid_size)
        self.still: dict[str, torch.Tensor] = {}

    @property
    def tokens(self) -> int:
        """Tokens that a tower gives for an image, N."""
        return self.tower("rgb").tokens

    @property
    def token_size(self) -> int:
        """Size of a token, P."""
        return self.tower("rgb").token_size

    def tower(self, modality: str) -> Tower:
        """One of the towers: rgb, event or diff."""
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower

    def encode(self, modality: str, images: torch.Tensor, active: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens [..., N, P] of normalised images [..., 3, H, W], in one batch.

        Args:
            modality: rgb, event or diff.
            images: pictures, event images or differences.
            active: patches to compute, bool [..., patches]; the others are still. None: all.
        """
        flat = images.flatten(0, -4)
        if active is None:
            tokens: torch.Tensor = self.towers[modality](flat)
        else:
            patches = list_patches(active.flatten(0, -2))
            tokens = encode_patches(self.tower(modality), flat, patches, self.still_tokens(modality))
        return tokens.reshape(*images.shape[:-3], *tokens.shape[1:])

    def still_tokens(self, modality: str) -> torch.Tensor:
        """Tokens [1, N, P] of an image without events (event), or of no difference (diff)."""
        if modality in self.still:
            return self.still[modality]
        assert self.activity is not None
        blank = self.activity.blank[None]
        tokens: torch.Tensor = self.towers[modality](
            blank if modality == "event" else torch.zeros_like(blank)
        )
        return tokens

    @torch.no_grad()
    def fix_still(self) -> None:
        """Compute the tokens of still patches once and for all: the weights do not change any more."""
        self.still = {
            name: self.still_tokens(name) for name in ("event", "diff") if self.activity is not None
        }

    def active_patches(
        self, event: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Active patches of event images and of differences; None and None where all are computed.

        Args:
            event: normalised event images, [B, T, 3, H, W].
            present: which of them are there, bool [B, T].

        Returns:
            bool [B, T, patches] and [B, T-1, patches].
        """
        if self.activity is None:
            return None, None
        active: torch.Tensor = self.activity(event)
        return active, active_differences(active, _in_both_frames(present))

    def decide(self, tokens: Streams, present: Streams) -> torch.Tensor:
        """Logits of a clip's tokens, whatever the order of its slots.

        Args:
            tokens: rgb and event [B, T, N, P], diff [B, T-1, N, P]; absent slots may hold anything.
            present: which slots count, bool, rgb and event [B, T], diff [B, T-1].

        Returns:
            float [B, K].
        """
        return self._classify(self.embed(tokens, present))

    def embed(self, tokens: Streams, present: Streams) -> Streams:
        """Means over the present slots, embedded: [B, N, D] for each modality."""
        means = Streams(*(_mean_over_slots(t, p) for t, p in zip(tokens, present, strict=True)))
        embedded: Streams = self.head.embedding(means, _anywhere(present))
        return embedded

    def pool(self, tokens: Streams, present: Streams) -> Streams:
        """What a linear probe reads of a clip: class and mean tokens, averaged over slots, [B, 2 P] each."""
        means = (_mean_over_slots(t, p) for t, p in zip(tokens, present, strict=True))
        return Streams(*(self.head.pool(mean) for mean in means))

    def decide_pooled(self, pooled: Streams, present: Streams) -> torch.Tensor:
        """Logits [B, K] of what `pool` gave, of the modalities that are `present`, bool [B] each."""
        return self._classify(self.head.embed_pooled(pooled, present))

    def _classify(self, embedded: Streams) -> torch.Tensor:
        logits: torch.Tensor = self.head(embedded, self.tower("rgb"), self.tower("event"))
        return logits

    def reconstruction(self, embedded: Streams, present: Streams) -> torch.Tensor:
        """Loss of telling each modality from the other, a scalar, for training.

        Args:
            embedded: as `embed` gives them.
            present: which slots count, bool, rgb and event [B, T], diff [B, T-1].
        """
        loss: torch.Tensor = self.head.reconstruction(embedded, _anywhere(present), self.tower("rgb"))
        return loss

    @overload
    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        rgb_present: torch.Tensor | None = ...,
        event_present: torch.Tensor | None = ...,
        *,
        with_reconstruction: Literal[False] = ...,
    ) -> torch.Tensor: ...

    @overload
    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        rgb_present: torch.Tensor | None = ...,
        event_present: torch.Tensor | None = ...,
        *,
        with_reconstruction: Literal[True],
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        rgb_present: torch.Tensor | None = None,
        event_present: torch.Tensor | None = None,
        *,
        with_reconstruction: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Logits of whole clips.

        Args:
            rgb: normalised images, float [B, T, 3, H, W].
            event: the same, of the events.
            rgb_present: which of the RGB images are there, bool or 0/1, [B, T]; None: all.
            event_present: the same, of the events.
            with_reconstruction: also give the reconstruction loss, a scalar (training).

        Returns:
            Logits, float [B, K]; with the loss where it is asked for.
        """
        present = self._presence(rgb, rgb_present, event_present)
        diff = frame_differences(rgb, event, present.rgb, present.event)
        in_event, in_diff = self.active_patches(event, present.event)
        tokens = Streams(
            self.encode("rgb", rgb), self.encode("event", event, in_event), self.encode("diff", diff, in_diff)
        )
        embedded = self.embed(tokens, present)
        logits = self._classify(embedded)
        if not with_reconstruction:
            return logits
        return logits, self.reconstruction(embedded, present)

    @staticmethod
    def _presence(
        rgb: torch.Tensor, rgb_present: torch.Tensor | None, event_present: torch.Tensor | None
    ) -> Streams:
        everywhere = torch.ones(rgb.shape[:2], dtype=torch.bool, device=rgb.device)
        in_rgb = everywhere if rgb_present is None else rgb_present > 0
        in_event = everywhere if event_present is None else event_present > 0
        return Streams(in_rgb, in_event, (_in_both_frames(in_rgb) | _in_both_frames(in_event)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the towers' blocks in the backward pass in place of keeping their activations."""
        for modality in MODALITIES:
            self.tower(modality).vit.set_grad_checkpointing(enable)

    def compile_blocks(self) -> None:
        """Compile the towers' blocks by torch.compile: one by one, since alike blocks share what is compiled.

        Names and weights stay as they are. The compiler runs when a block first sees images.
        """
        for modality in MODALITIES:
            for block in self.tower(modality).vit.blocks:
                block.compile()


def _in_both_frames(present: torch.Tensor) -> torch.Tensor:
    return present[:, 1:] & present[:, :-1]


def _anywhere(present: Streams) -> Streams:
    return Streams(*(slots.any(dim=1) for slots in present))


def _mean_over_slots(tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean of tokens [B, S, N, P] over the slots that are present; zero where none is.

    An absent slot is left out by choice, not by a product with zero: it may hold NaN.
    """
    counted = torch.where(present[:, :, None, None], tokens, torch.zeros((), dtype=tokens.dtype))
    slots = present.to(tokens.dtype).sum(dim=1).clamp(min=1)
    return counted.sum(dim=1) / slots[:, None, None]


def frame_differences(
    rgb: torch.Tensor, event: torch.Tensor, rgb_present: torch.Tensor, event_present: torch.Tensor
) -> torch.Tensor:
    """|rgb_j-1 - rgb_j| + |event_j-1 - event_j|, [B, T-1, 3, H, W], of images [B, T, 3, H, W].

    A modality counts only where it is present, bool [B, T], in both frames.
    """
    differences = []
    for images, present in ((rgb, rgb_present), (event, event_present)):
        difference = (images[:, :-1] - images[:, 1:]).abs()
        both = _in_both_frames(present)[:, :, None, None, None]
        differences.append(torch.where(both, difference, torch.zeros((), dtype=images.dtype)))
    return differences[0] + differences[1]


def create_model(config: ModelConfig) -> VELoRA:
    """A new network in the form that `config` gives, ready for training: its `tuning` is set.

    Random parts are drawn from torch's global generator: seed it (`torch.manual_seed`) to reproduce them.

    Raises:
        InputError: if the backbone cannot be had, or the configuration does not fit it.
    """
    first = create_tower(config)
    if config.compat == "reference" and first.tokens < HEAD_TOKENS:
        raise InputError(
            f"the published head reads {HEAD_TOKENS} tokens, this backbone gives {first.tokens}",
            place="image_size",
            remedy="use larger images or smaller patches",
        )
    if config.compat == "reference" and not first.is_reference_form:
        raise InputError(
            f"compat reference is the published fusion, which {config.backbone.name} is not built for",
            place="compat",
            remedy="choose a ViT of plain blocks and MLPs, or compat none",
        )
    head = _create_head(config, first)
    towers = {modality: copy.deepcopy(first) for modality in MODALITIES}
    for tower in towers.values():
        if config.tuning != "linear":
            add_lora(tower.vit, config.lora, config.lora.targets, key="lora.targets")
            check_feedback(tower)
    model = VELoRA(config, towers, head)
    set_tuning(model, config.tuning)
    return model


def _create_head(config: ModelConfig, tower: Tower) -> nn.Module:
    if config.compat == "reference":
        return ReferenceHead(config, tower)
    return ProbeHead(config, tower) if config.tuning == "linear" else VeloraHead(config, tower)
