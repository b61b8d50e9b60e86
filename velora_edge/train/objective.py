"""Objective of training: logits and losses of a batch of uint8 clips, and metrics of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from velora_edge.model.head import Streams
from velora_edge.model.velora import frame_differences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from velora_edge.model.velora import VELoRA
    from velora_edge.train.batches import Batch


@dataclass(frozen=True)
class Scores:
    """Metrics of logits against labels; shares lie between 0 and 1.

    Attributes:
        clips: how many were told.
        top1: share whose best class is right.
        top5: share whose right class is among the best five.
        loss: mean cross-entropy, nats.
        confusion: int64[K, K], clips by true class (row) and told class (column).
    """

    clips: int
    top1: float
    top5: float
    loss: float
    confusion: NDArray[np.int64]

    def per_class(self, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Clips, recall and precision by class name; None where a class has no clips or was never told."""
        right = self.confusion.diagonal()
        true, told = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return {
            label: {
                "clips": int(true[k]),
                "recall": float(right[k] / true[k]) if true[k] else None,
                "precision": float(right[k] / told[k]) if told[k] else None,
            }
            for k, label in enumerate(labels)
        }


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Compare logits with labels.

    Args:
        logits: float [N, K], or log-probabilities.
        labels: int64 [N].

    Raises:
        ValueError: if there are none, or if a label is no class.
    """
    n, classes = logits.shape
    if n == 0 or len(labels) != n or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"expected labels below {classes} for {n} clips, got {len(labels)}")
    values = logits.astype(np.float64)
    right = values[np.arange(n), labels]
    # Ties count against us: a class that is as good as the right one ranks before it.
    rank = (values >= right[:, None]).sum(axis=1) - 1
    peak = values.max(axis=1, keepdims=True)
    log_sum = peak[:, 0] + np.log(np.exp(values - peak).sum(axis=1))
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, values.argmax(axis=1)), 1)
    return Scores(
        clips=n,
        top1=float((rank == 0).mean()),
        top5=float((rank < 5).mean()),
        loss=float((log_sum - right).mean()),
        confusion=confusion,
    )


class Losses(NamedTuple):
    """Losses of a batch.

    Attributes:
        total: what is minimised, a scalar.
        classification: cross-entropy, a scalar.
        reconstruction: mean over the clips that have both cameras, a scalar; 0 where none has.
        logits: [B, K].
    """

    total: torch.Tensor
    classification: torch.Tensor
    reconstruction: torch.Tensor
    logits: torch.Tensor


class Objective(nn.Module):
    """The network with all that stands between a batch and its loss; DDP wraps this, so nothing escapes it.

    A clip that lacks a camera does not go through that camera's tower, its difference has no part of it, and
    the head takes the absent embedding.

    Args:
        model: the network.
        label_smoothing: share of the target spread over all classes.
        reconstruction: weight of the reconstruction loss.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: VELoRA, label_smoothing: float = 0.0, reconstruction: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing, self.reconstruction = label_smoothing, reconstruction
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.config, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, batch: Batch, reconstruction_share: float = 1.0) -> Losses:
        """Losses of a batch on the module's device.

        Args:
            batch: the clips.
            reconstruction_share: factor on the reconstruction loss; see `fair_share`.
        """
        tokens, present = self.encode(batch)
        logits = self.model.decide(tokens, present).float()
        classification = functional.cross_entropy(logits, batch.label, label_smoothing=self.label_smoothing)
        reconstruction = self._reconstruct(tokens, present) if self.reconstruction else logits.new_zeros(())
        total = classification + self.reconstruction * reconstruction_share * reconstruction
        return Losses(total, classification, reconstruction, logits)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits float32 [B, K] of a batch on the module's device."""
        return self.model.decide(*self.encode(batch)).float()

    def encode(self, batch: Batch) -> tuple[Streams, Streams]:
        """Tokens of every slot, zero where absent, and which slots are present."""
        clips, length = len(batch), self.model.config.clip_length
        slots = batch.present[:, :, None].expand(clips, 2, length)
        rgb, event = self._normalised(batch.rgb, batch), self._normalised(batch.event, batch)
        diff = frame_differences(rgb, event, slots[:, 0], slots[:, 1])
        has_diff = slots.any(dim=1)[:, 1:]
        tokens = Streams(
            self._tokens("rgb", rgb, batch.present[:, 0]),
            self._tokens("event", event, batch.present[:, 1]),
            self.model.encode("diff", diff),
        )
        return tokens, Streams(slots[:, 0], slots[:, 1], has_diff)

    def _tokens(self, modality: str, images: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Tokens [B, T, N, P]; clips that lack the camera cost nothing and hold zeros."""
        rows = there.nonzero().squeeze(1)
        if len(rows) == len(there):
            return self.model.encode(modality, images)
        shape = (*images.shape[:2], self.model.tokens, self.model.token_size)
        if len(rows) == 0:
            return images.new_zeros(1).expand(shape)
        encoded = self.model.encode(modality, images[rows])
        return encoded.new_zeros(shape).index_copy(0, rows, encoded)

    def _normalised(self, images: torch.Tensor | None, batch: Batch) -> torch.Tensor:
        """Float [B, T, 3, H, W] of uint8 [B, T, H, W, 3]; zeros for a camera that no clip has."""
        if images is None:
            height, width = self.model.config.image_size
            zero = torch.zeros(1, device=batch.label.device)
            return zero.expand(len(batch), self.model.config.clip_length, 3, height, width)
        return (images.movedim(-1, -3).to(self.mean.dtype) / 255 - self.mean) / self.std

    def _reconstruct(self, tokens: Streams, present: Streams) -> torch.Tensor:
        return self.model.reconstruction(self.model.embed(tokens, present), present).float()


def fair_share(present: torch.Tensor, clips_with_both: float, processes: int) -> float:
    """Factor that makes the mean over processes of the reconstruction loss the mean over all their clips.

    A process averages over its own clips that have both cameras; dropping cameras makes their number differ.

    Args:
        present: bool [B, 2] of this process's clips.
        clips_with_both: over all processes.
        processes: how many there are.
    """
    mine = float(present.all(dim=1).sum())
    return mine * processes / clips_with_both if clips_with_both else 0.0
