"""Configuration of the network: validated, frozen, stored as JSON."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from velora_edge.config import ImageSize  # noqa: TC001  (pydantic reads it)

if TYPE_CHECKING:
    from typing_extensions import Self


Tuning = Literal["lora", "full", "linear"]
Compat = Literal["none", "reference"]
Normalised = Literal["given", "file", "timm", "default"]
"""Who says how images are normalised: the configuration, the file of weights, timm's record, or nobody
(random weights)."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Backbone(_Strict):
    """The towers' vision transformer; rgb, event and diff each start as a copy of it.

    Attributes:
        name: timm's name of a ViT, with the weights' tag where there is one.
        args: passed on to `timm.create_model` (patch_size, embed_dim, depth, ...).
        pretrained: load timm's published weights of that name (from its hub or its cache).
        weights: a local file of weights in place of timm's: `.safetensors`, `.pth`, TorchScript or `.onnx`;
            `velora weights` makes one that carries mean and std.
        projection: size that the normed tokens are projected to by timm's own head. 0: no projection.
            None: as published, which is the image projection of a CLIP tower and none for the others.
    """

    name: str = "vit_base_patch16_clip_quickgelu_224.openai"
    args: dict[str, Any] = Field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = None
    projection: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("give pretrained or weights, not both")
        return self


class LoRA(_Strict):
    """The low-rank branches on the towers' frozen layers.

    Attributes:
        rank: r.
        alpha: the branch is scaled by alpha / r.
        dropout: on the branch's input, in training.
        targets: regular expression that the whole name of a tower's layer must match. A SwiGLU's first layer
            is fc1, or fc1_g and fc1_x.
        shared_targets: the same for a layer of the modality-shared block.
    """

    rank: int = Field(4, ge=1)
    alpha: float = Field(8.0, gt=0)
    dropout: float = Field(0.01, ge=0, lt=1)
    targets: str = r"blocks\.\d+\.mlp\.fc[12](_[gx])?"
    shared_targets: str = r"mlp\.fc[12](_[gx])?"

    @field_validator("targets", "shared_targets")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class ModelConfig(_Strict):
    """The network's form.

    Attributes:
        labels: class names in the order of the logits.
        clip_length: pairs in a clip, T.
        image_size: height and width of the images, pixels; one number for both.
        mean: subtracted from an image scaled to 0..1, by channel.
        std: divides it afterwards.
        normalised: who says so; None: a checkpoint of before that was kept.
        backbone: the towers' vision transformer, and its weights.
        lora: the low-rank branches.
        tuning: what training changes. lora: the branches and the head; full: everything; linear: one linear
            layer on the frozen towers' tokens (a head of its own, without fusion).
        compat: reference for the maths of the published code at batch 1, which imported checkpoints need.
        fusion_heads: attention heads of the published fusion block (reference only); None: 64 channels a
            head, but at least 4 heads.
        head_dropout: before the classifier, in training.
        active_patches: the event and the difference tower compute the patches with events alone.
        blank: colour of an event image without events, 0 to 255, by which such patches are found.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    clip_length: int = Field(8, ge=2)
    image_size: ImageSize = (224, 224)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    normalised: Normalised | None = None
    backbone: Backbone = Backbone()
    lora: LoRA = LoRA()
    tuning: Tuning = "lora"
    compat: Compat = "none"
    fusion_heads: int | None = Field(None, ge=1)
    head_dropout: float = Field(0.0, ge=0, lt=1)
    active_patches: bool = False
    blank: tuple[int, int, int] = (255, 255, 255)

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({label for label in value if value.count(label) > 1})
        if twice:
            raise ValueError(f"labels given twice: {', '.join(twice)}")
        return value

    @field_validator("std")
    @classmethod
    def _std_divides(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not all(math.isfinite(s) and s > 0 for s in value):
            raise ValueError("each must be above 0")
        return value

    @model_validator(mode="after")
    def _reference_has_its_head(self) -> Self:
        if self.compat == "reference" and self.tuning == "linear":
            raise ValueError("compat reference has a fusion head of its own: tuning cannot be linear")
        return self


def default_heads(width: int) -> int:
    """Attention heads of a published tower or fusion block: 64 channels a head (CLIP's rule), at least 4."""
    return max(4, width // 64)
