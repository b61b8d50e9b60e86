"""Expected arithmetic, time and memory of a training run, computed from its configuration, not measured.

With M multiply-adds of a forward pass, E of them from pictures to patches, F in the other layers and A in
attention (M = E + F + A):

    a clip takes    2 (E e + F k + 3 A) operations
                    k = 2 for lora (forward, and backward to the inputs), 3 for full (to the weights too),
                    1 for linear (A counts once then), 1 more with gradient checkpointing (A once more)
                    e = 3 for full, else 1: no gradient goes on to the pictures
    a run takes     clips x epochs x that / (the GPU's peak x SHARE)

The linear layers of a vision transformer take one multiply-add a weight and token, attention 2 N^2 D a block.
The way from pictures to patches, which may be a convolutional network, is run without memory and counted.
Memory is that of the weights, of gradients and optimiser, of what the backward pass keeps (`kept_bytes`), and
of the CUDA context. Reading clips takes no part in it: with too few workers a run takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from velora_edge.errors import MissingExtraError
from velora_edge.model.config import ModelConfig
from velora_edge.model.lora import count_parameters
from velora_edge.model.velora import create_model

if TYPE_CHECKING:
    from velora_edge.model.lora import ParameterCounts
    from velora_edge.model.velora import VELoRA
    from velora_edge.train.settings import TrainConfig


@dataclass(frozen=True)
class Gpu:
    """A GPU by its maker's figures.

    Attributes:
        name: as its maker calls it.
        bf16_tflops: peak of matrix products in bf16 and fp16 with sums in fp32, without sparsity.
        fp32_tflops: peak in fp32, outside the matrix units.
        memory_gb: of the card, 10^9 bytes.
    """

    name: str
    bf16_tflops: float
    fp32_tflops: float
    memory_gb: float

    def peak_tflops(self, precision: str) -> float:
        """Peak in a precision of `train.precision`; TF32 has half the rate of bf16."""
        return {"fp32": self.fp32_tflops, "tf32": self.bf16_tflops / 2}.get(precision, self.bf16_tflops)


GPUS = (
    Gpu("RTX 3090", 71, 35.6, 24),
    Gpu("RTX 4090", 165, 82.6, 24),
    Gpu("L4", 121, 30.3, 24),
    Gpu("A100 80 GB", 312, 19.5, 80),
    Gpu("H100 SXM", 989, 67, 80),
)
SHARE = 0.35
"""Of a GPU's peak that training is assumed to reach; an assumption, as no GPU was measured."""
CONTEXT_BYTES, FRAGMENTED = 1_000_000_000, 1.1
"""CUDA's own memory, and what the allocator takes beyond what it gives; assumptions too."""


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one clip's forward pass.

    Attributes:
        embedding: from pictures to patches.
        towers: of the towers' layers.
        tower_attention: of the towers' attention.
        head: of the fusion's layers and attention, with the reconstruction.
    """

    embedding: int
    towers: int
    tower_attention: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.towers + self.tower_attention + self.head


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        flops: operations of a training step, for one clip of it.
        fixed_bytes: of the GPU's memory, for each process, whatever the batch.
        clip_bytes: more for each clip that goes through the network at a time.
        batch_size: clips of a step.
        accumulate: parts in which they go through it.
        parameters: of the network, trained and frozen.
        precision: that it is computed in.
    """

    flops: float
    fixed_bytes: float
    clip_bytes: float
    batch_size: int
    accumulate: int
    parameters: ParameterCounts
    precision: str

    def seconds(self, clips: int, gpu: Gpu) -> float:
        """Time of training on so many clips, those of each epoch counted."""
        return clips * self.flops / (gpu.peak_tflops(self.precision) * 1e12 * SHARE)

    @property
    def memory_bytes(self) -> float:
        """Of the GPU at the peak of a step, for each process."""
        return self.fixed_bytes + self.batch_size // self.accumulate * self.clip_bytes

    def parts_for(self, gpu: Gpu) -> int | None:
        """The least `train.accumulate` with which the GPU's memory is enough; None where none is."""
        clips = int((gpu.memory_gb * 1e9 - self.fixed_bytes) / self.clip_bytes)
        parts = range(self.accumulate, self.batch_size + 1)
        return next((n for n in parts if self.batch_size % n == 0 and self.batch_size // n <= clips), None)


def estimate_cost(config: TrainConfig) -> Cost:
    """Compute what a run takes; no weights are loaded or made.

    Raises:
        InputError: if timm has no such backbone, or it is none that can be taken.
        MissingExtraError: if the extra `train` is not installed.
    """
    model = empty_model(config)
    counts = count_parameters(model)
    every, train = counts.trained + counts.frozen, config.train
    weights = every * (4 if _size(config) == 4 else 6)  # autocast keeps them in 16 bit as well
    optimiser = counts.trained * (16 if train.ema else 12)
    return Cost(
        training_flops(config, count_macs(model)),
        CONTEXT_BYTES + FRAGMENTED * (weights + optimiser),
        FRAGMENTED * kept_bytes(config, model),
        train.batch_size,
        train.accumulate,
        counts,
        train.precision,
    )


def count_macs(model: VELoRA) -> Work:
    """Multiply-adds of one clip's forward pass, from the sizes of the network's layers."""
    tower, length = model.tower("rgb"), model.config.clip_length
    images, tokens, width = 3 * length - 1, tower.tokens, tower.width
    block, depth = _weights(tower.last_block), len(tower.vit.blocks)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower.vit.patch_embed(_pictures(model, 1))
    embedding = images * counter.get_total_flops() // 2
    towers = images * tokens * (depth * block + _weights(tower.vit.head))
    attention = images * depth * 2 * tokens**2 * width
    if model.config.tuning == "linear":
        return Work(embedding, towers, attention, _weights(model.head))
    shared = 3 * tokens * block + 2 * (3 * tokens) ** 2 * width
    others = 4 * (tokens * block + 2 * tokens**2 * width)  # two blocks fed back, two that reconstruct
    fused = 2 * tokens * 3 * width**2 + 2 * (2 * tokens) ** 2 * width
    embedded = 3 * tokens * tower.token_size * width
    return Work(embedding, towers, attention, shared + others + fused + embedded)


def training_flops(config: TrainConfig, work: Work) -> float:
    """Operations of a training step, for one clip of it."""
    tuning, again = config.model.tuning, int(config.train.gradient_checkpointing)
    if tuning == "linear":
        return 2.0 * (work.embedding + work.towers + work.tower_attention + 3 * work.head)
    passes = 3 if tuning == "full" else 2
    trains_head = tuning == "full" or config.model.compat == "reference"
    towers = (passes + again) * work.towers + (3 + again) * work.tower_attention
    embedding = (3 if tuning == "full" else 1) * work.embedding
    return 2.0 * (embedding + towers + (3 if trains_head else 2) * work.head)


def kept_bytes(config: TrainConfig, model: VELoRA) -> float:
    """Bytes that the backward pass of one clip keeps of the forward pass."""
    tower, length = model.tower("rgb"), config.model.clip_length
    images, depth = 3 * length - 1, len(tower.vit.blocks)
    pixels = images * 3 * config.model.image_size[0] * config.model.image_size[1] * 4
    if config.model.tuning == "linear":
        return float(pixels)
    block = tower.tokens * _token_bytes(config, model)
    fusion = 8 * block  # of 3 N tokens, of 4 times N, and the attention
    if config.model.tuning == "full":
        one_more = _embedding_bytes(model, 2) - _embedding_bytes(model, 1)  # weights are kept once for all
        pixels += images * one_more * _size(config) // 4
    if not config.train.gradient_checkpointing:
        return float(pixels + images * depth * block + fusion)
    inputs = images * depth * tower.tokens * tower.width * 4
    return float(pixels + inputs + length * block + fusion)


def _embedding_bytes(model: VELoRA, count: int) -> int:
    """Bytes in fp32 that backward keeps of the convolutions, a hybrid's many, from pictures to patches."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    pictures = _pictures(model, count)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.tower("rgb").vit.patch_embed(pictures)
    kept.pop(pictures.untyped_storage()._cdata, None)
    return sum(kept.values())


def _pictures(model: VELoRA, count: int) -> torch.Tensor:
    """Of the network's size, (count, 3, H, W), on the weights' device."""
    device = next(model.tower("rgb").vit.patch_embed.parameters()).device
    return torch.zeros(count, 3, *model.config.image_size, device=device)


def _token_bytes(config: TrainConfig, model: VELoRA) -> float:
    """Bytes that a block keeps for a token: inputs of norms, activations and trained layers, and q, k, v.

    Norms are computed in fp32. Attention's weights are not kept: fused kernels compute them again.
    """
    mlp = model.tower("rgb").last_block.mlp
    width, hidden = model.tower("rgb").width, int(mlp.fc1.out_features)
    size = _size(config)
    kept = 2 * width * 4 + 4 * width * size
    kept += hidden * size * (1 if isinstance(mlp.act, nn.GELU) else 2)  # x sigmoid(x) keeps both factors
    dropped = config.model.lora.dropout > 0
    if config.model.tuning == "full":
        kept += (3 * width + hidden) * size
    if config.model.tuning == "lora" or dropped:
        kept += (width + hidden) * (size + dropped)
    return float(kept)


def _size(config: TrainConfig) -> int:
    """Bytes of an activation."""
    return 4 if config.train.precision in ("fp32", "tf32") else 2


def empty_model(config: TrainConfig) -> VELoRA:
    """The network without memory for its weights."""
    try:
        from accelerate import init_empty_weights
    except ImportError as error:
        raise MissingExtraError("accelerate", "train", "training") from error
    backbone = {**config.model.backbone.model_dump(), "pretrained": False, "weights": None}
    tree = {**config.model.model_dump(exclude_none=True), "backbone": backbone}
    form = ModelConfig(**{**tree, "labels": config.model.labels or ("a", "b")})
    with init_empty_weights():
        return create_model(form)


def _weights(module: nn.Module) -> int:
    """Weights of a module's linear layers: multiply-adds for one token."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))
