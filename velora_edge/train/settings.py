"""Configuration of a training run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from velora_edge.config import ImageSize, Section
from velora_edge.data.clips.augment import ClipConfig, DataConfig
from velora_edge.model.config import ModelConfig

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
ChosenBy = Literal["val", "test", "last"]
"""What decides which epoch's weights become the checkpoint `best`."""


class ModelSection(ModelConfig):
    """The network's form.

    Attributes:
        labels: class names in the order of the logits; none: the data set's.
        mean: subtracted from an image scaled to 0..1, by channel; None: as the record of the weights says.
        std: divides it afterwards; None likewise.
    """

    labels: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None  # type: ignore[assignment]
    std: tuple[float, float, float] | None = None  # type: ignore[assignment]


class RunConfig(Section):
    """Folder of a run's results.

    Attributes:
        name: the run's name; its folder is `folder/name`.
        folder: the one that holds all runs.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    folder: str = "runs"

    @property
    def path(self) -> Path:
        """The run's folder."""
        return Path(self.folder) / self.name


class OptimSection(Section):
    """Optimiser, the same for any weights.

    Attributes:
        epochs: passes over the training part.
        batch_size: clips in a step, for each process.
        lr: peak learning rate of AdamW.
        weight_decay: of matrices; vectors (biases, norms, embeddings of one row) have none.
        warmup: share of all steps in which the rate rises linearly from 0; it then falls as a cosine.
        final_lr: share of the peak rate at the end.
        clip_norm: the gradient's norm is cut to this; 0 for never.
        label_smoothing: share of the target that is spread over all classes.
        ema: decay of the moving average of the weights, which is what is evaluated and saved; 0 for none.
        precision: bf16 and fp16 compute in mixed precision, weights stay fp32; tf32 rounds the factors of
            matrix products on a GPU, as the other two do with those that they leave in fp32; fp32 rounds
            nothing. `auto` is bf16 on a GPU that has it (compute capability 8.0), and fp32 elsewhere.
        device: `auto` takes the GPUs that there are; `cpu` leaves them alone.
        seed: of the weights, the order of clips, their variation and dropout.
        deterministic: use only algorithms of torch that give the same result each time (slower on a GPU).
        fused: on a GPU, update all weights in one kernel; not with fp16, whose skipped steps it hides.
    """

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(8, ge=1)
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    final_lr: float = Field(0.01, ge=0, le=1)
    clip_norm: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema: float = Field(0.999, ge=0, lt=1)
    precision: Precision = "auto"
    device: Literal["auto", "cpu"] = "auto"
    seed: int = Field(0, ge=0)
    deterministic: bool = False
    fused: bool = True


class TrainSection(OptimSection):
    """Training of the network.

    Attributes:
        accumulate: a step's clips go through the network in so many parts, to save memory.
        head_lr: `lr` for the head outside its LoRA branches; None: the same.
        reconstruction: weight of the loss of telling each camera's tokens from the other's.
        drop_rgb: share of the training clips whose RGB stream is left out, where the other one is there.
        drop_event: the same for the event stream.
        clip_norm_of: whose gradient `clip_norm` cuts: that of all trained weights, or that of the head
            outside its LoRA branches, as the published code does.
        choose: which epoch becomes the checkpoint `best`: the one that does best on the validation part; on
            the test part, as many publications do, after which that part is no longer unseen; or the last.
        gradient_checkpointing: recompute the towers' blocks in the backward pass, to save memory.
        compile: compile the towers' blocks by torch.compile: slow first steps, faster ones after; needs a C++
            compiler, and a resumed run is then not the same to the last bit.
        save_every: steps from one saved state to the next, besides the one after each epoch.
        cache_views: of a linear probe: so many variations of each training clip go through the frozen towers
            once, and their features are kept on disk; epochs take them in turn. 0: towers run in each epoch.
    """

    accumulate: int = Field(1, ge=1)
    head_lr: float | None = Field(None, gt=0)
    reconstruction: float = Field(1.0, ge=0)
    drop_rgb: float = Field(0.1, ge=0, le=1)
    drop_event: float = Field(0.1, ge=0, le=1)
    clip_norm_of: Literal["all", "head"] = "all"
    choose: ChosenBy = "val"
    gradient_checkpointing: bool = False
    compile: bool = False
    save_every: int = Field(200, ge=1)
    cache_views: int = Field(0, ge=0)

    def problems(self) -> list[str]:
        """See `Section.problems`."""
        found = []
        if self.drop_rgb + self.drop_event > 1:
            found.append("drop_rgb: together with drop_event must not exceed 1")
        if self.batch_size % self.accumulate:
            found.append(f"accumulate: must divide batch_size ({self.batch_size}), got {self.accumulate}")
        return found


class TrainConfig(Section):
    """All that a training run follows from, but for the data itself.

    Attributes:
        run: where results go.
        data: what is trained on.
        clip: how recordings become clips.
        model: the network's form; `model.tuning` chooses lora, full or linear.
        train: how it is trained.
    """

    run: RunConfig
    data: DataConfig
    clip: ClipConfig = ClipConfig()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()

    def problems(self) -> list[str]:
        """See `Section.problems`."""
        weights, found = self.model.backbone.weights, []
        if weights is not None and not os.path.isfile(weights):  # noqa: PTH113
            found = [f"model.backbone.weights: no such file: {weights}; velora weights or pretrain makes one"]
        if (self.model.mean is None) != (self.model.std is None):
            found.append("model.mean: give it together with std, or neither")
        if self.train.cache_views and self.model.tuning != "linear":
            tuning = self.model.tuning
            found.append(f"train.cache_views: towers must be frozen, and model.tuning {tuning} tunes them")
        return found


class TowerSection(Section):
    """The tower that is pre-trained.

    Attributes:
        name: timm's name of a ViT.
        args: passed on to `timm.create_model`; a model that uses the tower takes the same.
        image_size: height and width of its images, pixels; one number for both.
        mean: subtracted from an image scaled to 0..1, by channel.
        std: divides it afterwards.
        images: taken of each camera's images of a recording in each epoch.
        position_std: spread of the position embeddings at the start. timm's own, 0.02, takes several times
            as many steps to learn where things are from a few thousand images.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    image_size: ImageSize
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    images: int = Field(2, ge=1)
    position_std: float = Field(0.5, gt=0)


class PretrainConfig(Section):
    """All that pre-training follows from, but for the data itself.

    Attributes:
        run: where results go.
        data: whose images are told.
        clip: how recordings become images.
        tower: what is pre-trained.
        train: how.
    """

    run: RunConfig
    data: DataConfig
    clip: ClipConfig = ClipConfig()
    tower: TowerSection
    train: OptimSection = OptimSection()


def same_run(first: TrainConfig, second: TrainConfig) -> list[str]:
    """Keys that differ and lead to different weights; where there are none, one run can resume the other."""
    ignored = ("run.", "data.workers", "data.path", "data.check", "train.save_every")
    trees = [_flat(config.model_dump(mode="json")) for config in (first, second)]
    keys = sorted(set(trees[0]) | set(trees[1]))
    return [key for key in keys if not key.startswith(ignored) and trees[0].get(key) != trees[1].get(key)]


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
