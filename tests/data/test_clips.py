from __future__ import annotations

import numpy as np
import pytest

from velora_edge.data.clips.clips import ClipSpec, choose_pairs


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
