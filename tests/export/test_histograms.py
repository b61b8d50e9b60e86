"""Ranges of activations."""

from __future__ import annotations

import numpy as np
import pytest
from velora_export.precision.quantization import BINS, AbsHistogram, entropy, percentile

from velora_edge.errors import EngineError


def _of(*arrays: np.ndarray) -> AbsHistogram:
    histogram = AbsHistogram()
    for array in arrays:
        histogram.add(array.astype(np.float32))
    return histogram


def test_values_are_counted_by_their_size() -> None:
    histogram = _of(np.array([[-1.0, 0.5], [0.0, 1.0]]))
    assert histogram.limit == 1.0
    assert np.flatnonzero(histogram.counts).tolist() == [0, BINS // 2, BINS - 1]
    assert histogram.counts[[0, BINS // 2, BINS - 1]].tolist() == [1, 1, 2]


def test_the_range_doubles_and_nothing_is_lost() -> None:
    draw = np.random.default_rng(0)
    small, large = draw.normal(0, 1, 1000), draw.normal(0, 9, 1000)
    histogram = _of(small, large)
    assert histogram.limit == np.abs(small).astype(np.float32).max() * 2**3
    assert histogram.counts.sum() == 2000
    together = np.abs(np.concatenate([small, large]))
    middle = percentile(histogram.counts, histogram.limit, 50)
    assert middle == pytest.approx(np.median(together), abs=2 * histogram.limit / BINS)


def test_a_percentile_cuts_off_what_is_rare() -> None:
    values = np.concatenate([np.linspace(0, 1, 99_999), [50.0]])
    assert _of(values).threshold("percentile") == pytest.approx(1.0, abs=50 / BINS)


def test_entropy_keeps_a_flat_distribution_whole_and_cuts_a_long_tail() -> None:
    flat = np.linspace(0, 1, 200_000)
    tail = np.concatenate([np.random.default_rng(0).normal(0, 1, 200_000), [100.0]])
    assert _of(flat).threshold("entropy") > 0.9
    assert 2 < _of(tail).threshold("entropy") < 10


def test_zeros_alone_have_a_range() -> None:
    histogram = _of(np.zeros(4))
    assert [histogram.threshold("percentile"), histogram.threshold("entropy")] == [1.0, 1.0]


def test_the_entropy_of_a_single_bin_is_defined() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[3] = 7
    assert 0 < entropy(counts, 1.0) <= 1.0


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(EngineError, match="an activation is no number"):
        _of(np.array([1.0, np.nan]))
