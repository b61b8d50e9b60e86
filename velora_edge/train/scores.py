"""From logits to figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """How well logits told the labels; shares lie between 0 and 1.

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
