"""Which range of an activation eight bits are to cover, from a histogram of its absolute values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["percentile", "entropy", "max"]

BINS = 8192
LEVELS = 128
"""Steps of int8 from zero on."""
PERCENTILE = 99.99
_COARSE = 2048
"""Bins that the entropy is looked for in (as in TensorRT's calibrator)."""


class AbsHistogram:
    """Counts of absolute values, from zero to a range that doubles when it is left.

    Attributes:
        counts: int64[BINS].
        limit: upper end of the last bin; 0 before anything but zeros was seen.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape.

        Raises:
            EngineError: if one of them is no number.
        """
        sizes = np.abs(values.reshape(-1))
        largest = float(sizes.max(initial=0))
        if not np.isfinite(largest):
            raise EngineError("an activation is no number: the model cannot be calibrated on these clips")
        if self.limit == 0:
            self.limit = largest
        while largest > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        step = self.limit / BINS if self.limit else 1.0
        places = np.minimum((sizes / step).astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def threshold(self, method: Method) -> float:
        """The absolute value that becomes the largest number; what is larger is cut off.

        1 where only zeros were seen.
        """
        if self.limit == 0:
            return 1.0
        if method == "entropy":
            return entropy(self.counts, self.limit)
        if method == "max":
            return percentile(self.counts, self.limit, share=100)
        return percentile(self.counts, self.limit)


def percentile(counts: NDArray[np.int64], limit: float, share: float = PERCENTILE) -> float:
    """Upper end of the first bin below which `share` percent of the values lie."""
    summed = counts.cumsum()
    place = int(np.searchsorted(summed, share / 100 * summed[-1]))
    return (place + 1) * limit / len(counts)


def entropy(counts: NDArray[np.int64], limit: float) -> float:
    """The range whose rounding to 128 levels tells least apart from the values themselves.

    Smallest Kullback-Leibler divergence, as S. Migacz gave it for TensorRT (8-bit Inference with TensorRT,
    GTC 2017): what lies beyond the range counts in its last bin; a level's values spread evenly over those of
    its bins that hold any.
    """
    coarse = counts.reshape(_COARSE, -1).sum(1).astype(np.float64)
    divergences = {bins: _divergence(coarse, bins) for bins in range(LEVELS, _COARSE + 1, 16)}
    best = min(divergences, key=divergences.__getitem__)
    return best * limit / _COARSE


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    inside = counts[:bins]
    wanted = inside.copy()
    wanted[-1] += counts[bins:].sum()
    level = (np.arange(bins) * LEVELS) // bins
    held = inside > 0
    mass = np.bincount(level, inside, LEVELS)
    filled = np.bincount(level, held, LEVELS)
    given = np.where(held, (mass / np.maximum(filled, 1))[level], 0.0)
    p, q = wanted / wanted.sum(), given / max(given.sum(), 1.0)
    there = p > 0
    smallest = 1e-9
    return float((p[there] * np.log(p[there] / np.maximum(q[there], smallest))).sum())
