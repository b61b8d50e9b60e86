from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from velora_edge.bundle import EventInput
from velora_edge.data.clips.clips import ClipSpec, choose_pairs, median_span_s
from velora_edge.errors import DatasetError


def spec(length: int = 4, **changes: object) -> ClipSpec:
    return ClipSpec(length=length, image_size=(8, 8), **changes)  # type: ignore[arg-type]


def test_spread_takes_the_middle_of_each_part() -> None:
    assert choose_pairs(40, spec()).tolist() == [5, 15, 25, 35]


def test_spread_of_exactly_t_pairs_takes_each_once() -> None:
    assert choose_pairs(4, spec()).tolist() == [0, 1, 2, 3]


def test_spread_of_a_short_recording_repeats_in_order() -> None:
    assert choose_pairs(2, spec()).tolist() == [0, 0, 1, 1]


def test_stride_lies_in_the_middle_of_the_recording() -> None:
    assert choose_pairs(20, spec(sampling="stride", stride=3)).tolist() == [5, 8, 11, 14]


def test_stride_of_a_short_recording_repeats_the_last_pair() -> None:
    assert choose_pairs(5, spec(sampling="stride", stride=2)).tolist() == [0, 2, 4, 4]


@pytest.mark.parametrize("sampling", ["spread", "stride"])
@pytest.mark.parametrize("pairs", [1, 3, 4, 5, 23, 100])
def test_drawn_clips_stay_ordered_and_inside(sampling: str, pairs: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        which = choose_pairs(pairs, spec(sampling=sampling, stride=2), rng)
        assert len(which) == 4
        assert (np.diff(which) >= 0).all()
        assert which[0] >= 0
        assert which[-1] < pairs


def test_drawn_spread_takes_one_pair_of_each_part() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([choose_pairs(40, spec(), rng) for _ in range(200)])
    assert (drawn // 10 == [0, 1, 2, 3]).all()
    assert {len(np.unique(column)) for column in drawn.T} == {10}


@pytest.mark.parametrize(
    ("rate", "which"), [(1.0, [5, 8, 11, 14]), (0.5, [0, 6, 12, 18]), (3.0, [8, 9, 10, 11])]
)
def test_at_another_rate_a_stride_covers_another_time(rate: float, which: list[int]) -> None:
    assert choose_pairs(20, spec(sampling="stride", stride=3), None, rate).tolist() == which


def test_spread_clips_take_the_whole_recording_at_any_rate() -> None:
    assert choose_pairs(40, spec(), None, 0.5).tolist() == [5, 15, 25, 35]


class Lengths:
    """Recordings of these many pairs; None: damaged."""

    def __init__(self, counts: list[int | None], rate_hz: float | None = 10.0, **changes: object) -> None:
        self.counts, self.rate_hz, self.spec = counts, rate_hz, spec(**changes)

    def pairs(self, index: int) -> int:
        count = self.counts[index]
        if count is None:
            raise DatasetError(["damaged"])
        return count


@pytest.mark.parametrize(
    ("source", "span_s"),
    [
        (Lengths([4, 40, 400]), 3.0),
        (Lengths([None, 40]), 3.0),
        (Lengths([1, 1, 40]), None),
        (Lengths([]), None),
        (Lengths([40], rate_hz=None), None),
        (Lengths([1], sampling="stride", stride=5), 1.5),
    ],
)
def test_the_span_of_clips_is_the_median_or_follows_from_the_stride(
    source: Any, span_s: float | None
) -> None:
    assert median_span_s(source, np.arange(len(source.counts))) == span_s


def test_sets_that_are_made_here_know_their_rate() -> None:
    from velora_edge.data.synthetic.digits import DigitsSet
    from velora_edge.data.synthetic.synthetic import RenderedSet

    event = EventInput(window_us=50_000)
    assert DigitsSet(ClipSpec(2, (8, 8), event=event, rate_hz=7.0)).rate_hz == 20.0
    assert RenderedSet(spec(rate_hz=7.0)).rate_hz == pytest.approx(30.0, rel=1e-4)
