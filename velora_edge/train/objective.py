"""Objective of training: losses of a batch of uint8 clips; metrics of logits, and how sure they are."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from velora_edge.model.head import Streams
from velora_edge.model.velora import frame_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        right: bool[N], whether each clip's best class is right.
        interval: of `top1`, where it is known which recordings the clips came from.
    """

    clips: int
    top1: float
    top5: float
    loss: float
    confusion: NDArray[np.int64]
    right: NDArray[np.bool_]
    interval: Interval | None = None

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
        right=rank == 0,
    )


LEVEL = 0.95
Z = 1.959964
"""Quantile of the normal distribution for `LEVEL`."""
DRAWS = 2000

Method = Literal["wilson", "bootstrap", "wilson over recordings"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval of a share.

    Attributes:
        low: its lower end, 0 to 1.
        high: its upper end.
        method: `wilson`, where each recording was told once, or there is one; `bootstrap`, recordings drawn
            with replacement, where they were told several times each; `wilson over recordings` in its place
            where all of them have the same share, which a bootstrap would take for certain.
        recordings: how many recordings the clips came from.
    """

    low: float
    high: float
    method: Method
    recordings: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "level": LEVEL}


def wilson(right: float, count: int) -> tuple[float, float]:
    """Ends of Wilson's interval for `right` of `count` independent answers (Wilson, 1927)."""
    share = right / count
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def interval_of(right: NDArray[np.bool_], recordings: Sequence[str]) -> Interval:
    """The interval of the share of right answers, by the recordings that they came from.

    Answers on one recording are alike, so that many windows of few recordings say less than their number.

    Args:
        right: bool[N], whether each answer is right; at least one.
        recordings: name of each one's recording.
    """
    names, group = np.unique(np.array(recordings), return_inverse=True)
    count = len(names)
    if count in (1, len(right)):
        return Interval(*wilson(int(right.sum()), len(right)), "wilson", count)
    hits, sizes = np.bincount(group, right), np.bincount(group)
    if np.ptp(hits / sizes) == 0:
        share = float(hits.sum() / sizes.sum())
        return Interval(*wilson(share * count, count), "wilson over recordings", count)
    drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    shares = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "bootstrap", count)


def recording_of(name: str) -> str:
    """Name of the recording that a clip was cut from: without `@START` of a segment and `#WINDOW`."""
    return re.sub(r"(@[\d.e+-]+)?(#\d+)?$", "", name)


class ChanceWatch:
    """Looks once, after a third of the epochs, whether a run can be told from guessing.

    Guessing is to tell the most frequent class of the part that chooses the checkpoint for every clip; with
    few clips luck reaches more than that, up to the upper end of its interval.

    Args:
        labels: of that part's clips.
        names: of the classes.
        epochs: of the run; of one or two, nothing is said.
        say: gets the warning.
    """

    def __init__(
        self, labels: Sequence[int], names: Sequence[str], epochs: int, say: Callable[[str], None]
    ) -> None:
        self._clips, self._classes, self._say = len(labels), len(names), say
        self._due, self._best = math.ceil(epochs / 3) if epochs >= 3 else 0, 0.0
        if labels:
            counts = np.bincount(np.array(labels, np.int64), minlength=len(names))
            most = int(counts.argmax())
            self._label, self._share = names[most], float(counts[most] / len(labels))
            self._luck = wilson(int(counts[most]), len(labels))[1]

    def see(self, epoch: int, top1: float, loss: float) -> None:
        """Take what an epoch reached.

        Args:
            epoch: how many are done.
            top1: of the part that chooses the checkpoint.
            loss: classification loss of the newest training clips, nats.
        """
        self._best = max(self._best, top1)
        if epoch == self._due and self._best <= self._luck:
            self._say(self._warn(loss))

    def _warn(self, loss: float) -> str:
        guess = math.log(self._classes)
        remedy = (
            "the training clips are learned, so more and more different recordings would help, or more of "
            "data.augment; velora dataset check may say more"
            if loss < 0.8 * guess
            else "the training clips are not learned either: try train.lr three times as large or as small, "
            "a tower with weights (model.backbone), and clips that cover the action (clip.stride)"
        )
        few = "; so few clips cannot show more" if self._best > self._share else ""
        return (
            f"still at chance after a third of the epochs: top-1 of {self._clips} clips of validation is "
            f"{self._best:.1%} at best, and {self._label} for each of them gives {self._share:.1%}, by luck "
            f"up to {self._luck:.1%}{few}. Training loss {loss:.2f}, that of guessing {guess:.2f}: {remedy}"
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
        in_event, in_diff = self.model.active_patches(event, slots[:, 1])
        numbers = batch.numbers
        steps = None if numbers is None else torch.stack([numbers[:, :-1], numbers[:, 1:]], dim=-1)
        tokens = Streams(
            self._tokens("rgb", rgb, batch.present[:, 0], numbers),
            self._tokens("event", event, batch.present[:, 1], numbers, in_event),
            self._encode("diff", diff, steps, in_diff),
        )
        return tokens, Streams(slots[:, 0], slots[:, 1], has_diff)

    def _tokens(
        self,
        modality: str,
        images: torch.Tensor,
        there: torch.Tensor,
        numbers: torch.Tensor | None,
        active: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens [B, T, N, P]; clips that lack the camera cost nothing and hold zeros."""
        rows = there.nonzero().squeeze(1)
        if len(rows) == len(there):
            return self._encode(modality, images, numbers, active)
        shape = (*images.shape[:2], self.model.tokens, self.model.token_size)
        if len(rows) == 0:
            return images.new_zeros(1).expand(shape)
        numbers, active = (None if part is None else part[rows] for part in (numbers, active))
        encoded = self._encode(modality, images[rows], numbers, active)
        return encoded.new_zeros(shape).index_copy(0, rows, encoded)

    def _encode(
        self,
        modality: str,
        images: torch.Tensor,
        numbers: torch.Tensor | None,
        active: torch.Tensor | None,
    ) -> torch.Tensor:
        """Tokens [B, T, N, P] of images [B, T, ...]; of one number, [B, T] or [B, T, 2], one is encoded."""
        if numbers is None:
            return self.model.encode(modality, images, active)
        found, places = torch.unique(numbers.flatten(0, 1), dim=0, return_inverse=True)
        every = torch.arange(len(places), device=places.device)
        first = every.new_full((len(found),), len(places)).scatter_reduce(0, places, every, "amin")
        images, shown = images.flatten(0, 1)[first], None if active is None else active.flatten(0, 1)[first]
        encoded = self.model.encode(modality, images, shown)[places]
        return encoded.reshape(*numbers.shape[:2], *encoded.shape[1:])

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
