"""Where windows start and end."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import pytest
from velora_runtime.windows import WindowRule, edges_us


def test_windows_follow_each_other_without_a_gap() -> None:
    rule = WindowRule(1000)
    assert [(rule.start(t), t) for t in (5000, 6000, 6900, 8100)] == [
        (4000, 5000),
        (5000, 6000),
        (6000, 6900),
        (6900, 8100),
    ]


@pytest.mark.parametrize(("gap_us", "start_us"), [(1499, 5000), (1500, 5000), (1501, 5501), (9000, 13000)])
def test_a_gap_of_more_than_one_and_a_half_windows_is_skipped(gap_us: int, start_us: int) -> None:
    rule = WindowRule(1000)
    rule.start(5000)
    assert rule.start(5000 + gap_us) == start_us


def test_first_window_reaches_back_to_the_start_that_is_given() -> None:
    assert WindowRule(1000, start_us=300).start(1250) == 300


@pytest.mark.parametrize("t_us", [5000, 4999])
def test_an_end_that_is_not_later_is_refused(t_us: int) -> None:
    rule = WindowRule(1000)
    rule.start(5000)
    with pytest.raises(ValueError, match="expected a window's end after 5000 us"):
        rule.start(t_us)


def test_edges_are_whole_microseconds() -> None:
    assert list(islice(edges_us(7, Fraction(30)), 4)) == [33340, 66673, 100007, 133340]


@pytest.mark.parametrize("rate", ["30", "29.97", "0.3"])
def test_edges_do_not_drift_in_an_hour(rate: str) -> None:
    count = int(Fraction(rate) * 3600)
    last = next(islice(edges_us(0, Fraction(rate)), count - 1, None))
    assert last == int(Fraction(count) * 1_000_000 / Fraction(rate))
