"""Where windows start and end."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from velora_edge.errors import InputError
from velora_edge.preprocessing.windows import (
    SteadyEdges,
    Steps,
    WindowRule,
    auto_stride,
    clip_span_s,
    is_span_off,
    pair_rate_hz,
    stride_for,
)


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
    assert list(islice(SteadyEdges(7, Fraction(30)), 4)) == [33340, 66673, 100007, 133340]


@pytest.mark.parametrize("rate", ["30", "29.97", "0.3"])
def test_edges_do_not_drift_in_an_hour(rate: str) -> None:
    count = int(Fraction(rate) * 3600)
    last = next(islice(SteadyEdges(0, Fraction(rate)), count - 1, None))
    assert last == int(Fraction(count) * 1_000_000 / Fraction(rate))


class Events:
    """Events at given times; windows take them."""

    def __init__(self, *times_us: int) -> None:
        self.left = list(times_us)

    def next_us(self) -> int | None:
        return self.left[0] if self.left else None

    def windows(self, edges: SteadyEdges) -> list[tuple[int, int]]:
        """Each window's end, and how many events are in it, until there are no more."""
        found = []
        for end_us in edges:
            inside = [t_us for t_us in self.left if t_us < end_us]
            self.left = self.left[len(inside) :]
            found.append((end_us, len(inside)))
            if not self.left:
                return found
        return found


YEAR_US = 365 * 24 * 3600 * 1_000_000


def test_a_gap_of_years_is_one_step() -> None:
    events = Events(100, 2500, 3 * YEAR_US + 2500)
    edges = SteadyEdges(0, Fraction(1000), events.next_us, lead=2)
    assert events.windows(edges) == [
        (1000, 1), (2000, 0), (3000, 1), (4000, 0), (5000, 0),
        (3 * YEAR_US + 2000, 0), (3 * YEAR_US + 3000, 1),
    ]  # fmt: skip
    assert (edges.passed, edges.passed_us) == (3 * YEAR_US // 1000 - 4, 3 * YEAR_US - 4000)
    assert edges.warnings() == [
        "there is no event from 3,000 to 94,608,000,002,500 us (94,608,000 s): "
        "94,607,999,996 empty windows were passed over"
    ]


def test_windows_after_a_gap_are_those_that_would_have_been_made() -> None:
    times = [0, 10, 77, 200_000_005, 200_000_040, 500_000_000, 500_040_000]
    rate_hz = Fraction("29.97")
    whole = Events(*times)
    every = whole.windows(SteadyEdges(-3, rate_hz))
    events = Events(*times)
    edges = SteadyEdges(-3, rate_hz, events.next_us, lead=5)
    given = events.windows(edges)
    assert set(given) < set(every)
    assert [window for window in given if window[1]] == [window for window in every if window[1]]
    assert len(every) - len(given) == edges.passed
    (warning,) = edges.warnings()
    assert warning.startswith(
        "2 long gaps are without an event, the first from 33,363 to 200,000,005 us (200 s)"
    )


@pytest.mark.parametrize(("gap_us", "passed"), [(60_000_000, 0), (60_000_001, 59_997)])
def test_a_gap_of_a_minute_is_made_in_full(gap_us: int, passed: int) -> None:
    events = Events(0, 1000 + gap_us)
    edges = SteadyEdges(0, Fraction(1000), events.next_us, lead=2)
    events.windows(edges)
    assert edges.passed == passed
    assert bool(edges.warnings()) == bool(passed)


def test_live_windows_are_all_given() -> None:
    assert list(islice(SteadyEdges(0, Fraction(1), lead=2), 3)) == [1_000_000, 2_000_000, 3_000_000]


def test_times_before_zero_have_windows_too() -> None:
    events = Events(-YEAR_US, -5)
    edges = SteadyEdges(-YEAR_US, Fraction(1000), events.next_us)
    assert events.windows(edges) == [(-YEAR_US + 1000, 1), (-1000, 0), (0, 1)]


def test_many_gaps_of_just_under_a_minute_are_not_all_made() -> None:
    events = Events(*range(0, 100 * 59_000_000, 59_000_000))
    edges = SteadyEdges(0, Fraction(30), events.next_us, lead=4)
    windows = events.windows(edges)
    assert sum(inside for _, inside in windows) == 100
    assert len(windows) < 30 * 60 + 100 * (4 + 2 + 10)
    assert edges.passed + len(windows) == 99 * 59 * 30 + 1


def test_a_camera_that_is_silent_nine_times_of_ten_is_seen_in_full() -> None:
    busy = [t_us + 40_000 * k for t_us in range(0, 600_000_000, 20_000_000) for k in range(60)]
    events = Events(*busy)
    edges = SteadyEdges(0, Fraction(30), events.next_us, lead=4)
    events.windows(edges)
    assert edges.passed == 0


def test_a_clip_covers_the_time_between_its_first_and_its_last_pair() -> None:
    assert clip_span_s(8, 3, 30.0) == pytest.approx(0.7)


@pytest.mark.parametrize(("rate_hz", "stride"), [(30.0, 3), (60.0, 6), (25.0, 2), (8.0, 1), (1.0, 1)])
def test_a_stride_covers_the_span_at_the_rate_as_well_as_it_can(rate_hz: float, stride: int) -> None:
    assert stride_for(0.7, 8, rate_hz) == stride


@pytest.mark.parametrize(("span_s", "is_off"), [(0.61, True), (0.7, False), (1.2, False), (1.25, True)])
def test_a_span_is_off_by_more_than_a_third(span_s: float, is_off: bool) -> None:
    assert is_span_off(span_s, 0.93) is is_off


@pytest.mark.parametrize(
    ("span_s", "rate_hz", "lacks"),
    [
        (None, 30.0, "one is not known; add --span S"),
        (0.7, None, "one is not known; add --rate HZ"),
        (None, None, "neither is known; add --span S and --rate HZ"),
    ],
)
def test_auto_names_what_it_lacks(span_s: float | None, rate_hz: float | None, lacks: str) -> None:
    with pytest.raises(InputError, match=f"--stride: auto needs .*, and {lacks}, or give a number of pairs"):
        auto_stride(span_s, 8, rate_hz)


@pytest.mark.parametrize(
    ("times_us", "rate_hz"),
    [([0, 40_000, 80_000, 900_000], 25.0), ([0, 0, 0], None), ([7], None), ([], None)],
)
def test_the_rate_is_by_the_median_of_the_times_between(times_us: list[int], rate_hz: float | None) -> None:
    assert pair_rate_hz(np.array(times_us, np.int64)) == rate_hz


def test_steps_are_rounded_down_each_on_its_own_and_end_with_the_next_pair_or_the_longest_window() -> None:
    steps = Steps(Fraction(120), 30_000)
    assert list(steps.between(100, 100_100)) == [8433, 16_766, 25_100]
    assert list(steps.between(100, 16_766)) == [8433]
