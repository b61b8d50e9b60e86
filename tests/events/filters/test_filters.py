from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.words import rows
from velora_edge import open_events
from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError
from velora_edge.events.filters import _filter_kernels as kernels
from velora_edge.events.filters.filters import (
    BackgroundActivity,
    FilterChain,
    PixelMask,
    RateCap,
    Refractory,
    make_filter,
    read_rate,
)

SENSOR = (4, 3)


def batch(*events: tuple[int, int, int, int]) -> EventBatch:
    """Events given as (t, x, y, p)."""
    t, x, y, p = zip(*events, strict=True) if events else ((), (), (), ())
    return EventBatch(
        np.array(t, np.int64), np.array(x, np.uint16), np.array(y, np.uint16), np.array(p, np.uint8)
    )


def times(*t: int) -> EventBatch:
    return batch(*((at, 0, 0, 1) for at in t))


def test_an_event_passes_if_one_of_its_eight_neighbours_fired_before():
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):
        one = BackgroundActivity(SENSOR, 10)
        passed = one.apply(batch((0, 1, 1, 1), (10, 1 + dx, 1 + dy, 0)))
        assert len(passed) == (0 if dx == dy == 0 else 1)
    assert one.dropped == 1


def test_an_event_two_pixels_away_or_too_late_is_alone():
    assert len(BackgroundActivity(SENSOR, 10).apply(batch((0, 0, 0, 1), (1, 2, 0, 1), (2, 0, 2, 1)))) == 0
    assert len(BackgroundActivity(SENSOR, 10).apply(batch((0, 0, 0, 1), (11, 1, 0, 1)))) == 0


def test_the_sensors_edges_have_fewer_neighbours_and_none_around_the_corner():
    corners = batch((0, 3, 0, 1), (1, 0, 1, 1), (2, 0, 0, 1), (3, 3, 2, 1))
    assert rows(BackgroundActivity(SENSOR, 10).apply(corners)) == [(2, 0, 0, 1)]


def test_a_neighbour_that_is_late_by_the_window_goes_with_an_event_and_an_older_clock_does_not():
    late = batch((20, 0, 0, 1), (15, 1, 0, 1), (1, 0, 1, 1))
    assert rows(BackgroundActivity(SENSOR, 10).apply(late)) == [(15, 1, 0, 1)]


def test_a_pixel_rests_after_an_event_that_passed():
    one = Refractory(SENSOR, 10)
    events = batch((0, 1, 1, 1), (9, 1, 1, 0), (9, 2, 1, 1), (10, 1, 1, 1), (19, 1, 1, 1))
    assert rows(one.apply(events)) == [(0, 1, 1, 1), (9, 2, 1, 1), (10, 1, 1, 1)]
    assert rows(one.apply(batch((20, 1, 1, 0)))) == [(20, 1, 1, 0)]
    assert one.dropped == 2


def test_a_clock_that_began_anew_does_not_silence_a_pixel():
    one = Refractory(SENSOR, 10)
    assert len(one.apply(times(1_000_000, 5, 9, 15))) == 3


def test_masked_pixels_are_dropped():
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 2] = True
    one = PixelMask(mask)
    assert rows(one.apply(batch((0, 2, 1, 1), (1, 1, 2, 1)))) == [(1, 1, 2, 1)]
    assert one.dropped == 1


def test_a_rate_below_the_cap_is_left_alone():
    one = RateCap(3000)
    assert rows(one.apply(times(0, 5, 999, 1000))) == rows(times(0, 5, 999))
    assert rows(one.flush(2000)) == rows(times(1000))
    assert one.dropped == 0


def test_each_share_of_a_millisecond_keeps_one_event():
    one = RateCap(4000)
    passed = one.apply(times(*range(0, 1000, 10), 1000))
    assert [t // 250 for t in passed.t_us.tolist()] == [0, 1, 2, 3]
    assert one.dropped == 96


def test_thinned_rows_keep_even_and_odd_columns():
    # 32 rows of 32 pixels fire at once, half of them may pass.
    events = [(row, x, row, 1) for row in range(32) for x in range(32)]
    passed = RateCap(512_000).apply(batch(*events, (1000, 0, 0, 1)))
    assert len(passed) == 512
    assert 0.4 < float(np.mean(passed.x % 2)) < 0.6


@pytest.mark.parametrize("rate", [1, 7, 999, 1001, 123_457, 10**9])
def test_allowances_of_spans_that_meet_add_up(rate):
    edges = [-2_500_001, -3, 0, 1, 999_999, 1_000_000, 1_605_537_493_718_345]
    for functions in (kernels.count_allowed, kernels.count_allowed.py_func):
        parts = [int(functions(a, b, rate)) for a, b in itertools.pairwise(edges)]
        assert sum(parts) == edges[-1] * rate // 10**6 - edges[0] * rate // 10**6


def test_the_cap_holds_over_any_time():
    rng = np.random.default_rng(9)
    t = np.sort(rng.integers(0, 200_000, 100_000))
    passed = FilterChain([RateCap(123_457)]).filtered([times(*t.tolist())])
    kept = np.concatenate([part.t_us for part in passed])
    assert len(kept) == 200_000 * 123_457 // 10**6
    per_slice = np.bincount(kept // 1000)
    assert (per_slice.min(), per_slice.max()) == (123, 124)


def test_a_part_of_a_millisecond_has_its_part_of_the_cap():
    one = RateCap(10_000)
    events = times(*range(1000))
    assert len(one.apply(events[:500])) == 0
    first, second = one.flush(500), FilterChain([one]).filtered([events[500:]])
    assert len(first) == 5
    assert sum(len(part) for part in second) == 5
    assert (first.t_us < 500).all()
    assert one.dropped == 990


def test_a_late_event_shares_the_allowance_of_what_comes_with_it():
    one = RateCap(2000)
    assert len(one.apply(times(1000, 10, 1500, 20, 2000))) == 2
    assert one.dropped == 2


def test_a_cap_goes_on_when_a_clock_begins_anew():
    passed = list(FilterChain([RateCap(2000)]).filtered([times(10**9, 10**9 + 1, 5, 6, 1000, 2000)]))
    assert rows(EventBatch.concatenate(passed)) == rows(times(10**9, 10**9 + 1, 5, 6, 1000, 2000))


def test_a_slice_with_too_many_events_is_closed_early(monkeypatch):
    monkeypatch.setattr("velora_edge.events.filters.filters.MOST_IN_SLICE", 10)
    one = RateCap(2000)
    assert len(one.apply(times(*range(35), 1000))) == 2
    assert one.dropped == 33


def real_batch(shared_events, n=60_000):
    reader = open_events(shared_events / "expelliarmus_evt2_sample.raw")
    return reader.read()[:n], (reader.width, reader.height)


@pytest.mark.parametrize("text", ["background=2000", "refractory=500", "cap"])
def test_a_recording_gives_the_same_events_however_it_is_cut(shared_events, text):
    events, sensor = real_batch(shared_events)

    def chain():
        return FilterChain([RateCap(2_000_000) if text == "cap" else make_filter(text, sensor)])

    at_once, cut = chain(), chain()
    expected = EventBatch.concatenate(list(at_once.filtered([events])))
    edges = [0, 1, 2, 10, 11, 500, 30_000, 59_999, 60_000]
    parts = cut.filtered(events[a:b] for a, b in itertools.pairwise(edges))
    assert rows(EventBatch.concatenate(list(parts))) == rows(expected)
    assert cut.dropped == at_once.dropped
    assert len(expected) + sum(cut.dropped.values()) == len(events)


@pytest.mark.parametrize(("window_us", "rest_us"), [(300, 100), (5, 2)])
def test_kernels_agree_with_plain_python(window_us, rest_us):
    rng = np.random.default_rng(4)
    t = np.sort(rng.integers(0, 3000, 300)) - rng.integers(0, 5, 300)
    events = batch(
        *zip(
            t.tolist(), rng.integers(0, 4, 300), rng.integers(0, 3, 300), rng.integers(0, 2, 300), strict=True
        )
    )
    last: dict[tuple[int, int], int] = {}
    active, rested, passed = [], [], {}
    for event in rows(events):
        at, x, y, _ = event
        near = [last.get((x + dx, y + dy)) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy]
        if any(other is not None and abs(at - other) <= window_us for other in near):
            active.append(event)
        last[x, y] = at
        if (x, y) not in passed or at - passed[x, y] >= rest_us or at < passed[x, y]:
            rested.append(event)
            passed[x, y] = at
    assert rows(BackgroundActivity(SENSOR, window_us).apply(events)) == active
    assert rows(Refractory(SENSOR, rest_us).apply(events)) == rested


@pytest.mark.parametrize("name", ["keep_active", "keep_rested", "thin_spans"])
def test_compiled_and_plain_python_agree(name):
    rng = np.random.default_rng(2)
    n = 300
    columns = (
        np.sort(rng.integers(0, 5000, n)), rng.integers(0, 4, n).astype(np.uint16),
        rng.integers(0, 3, n).astype(np.uint16), rng.integers(0, 2, n).astype(np.uint8),
    )  # fmt: skip
    results = []
    for function in (getattr(kernels, name), getattr(kernels, name).py_func):
        out = tuple(np.zeros_like(column) for column in columns)
        with np.errstate(over="ignore"):
            if name == "thin_spans":
                span = np.zeros(3, np.int64)
                n_out, left = function(columns, span, 1000, 40_000, 1 << 20, out)
                rest = [int(left), span.tolist()]
            else:
                memory = np.full(30, kernels.LONG_AGO)
                n_out = function(columns, memory, 6 if name == "keep_active" else 4, 50, out)
                rest = memory.tolist()
        results.append((int(n_out), [column[:n_out].tolist() for column in out], rest))
    assert results[0] == results[1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)),
        max_size=60,
    ),
    st.lists(st.integers(0, 60), max_size=4),
    st.lists(st.sampled_from(["background=40", "refractory=9", "cap"]), max_size=3),
)
def test_every_event_passes_or_is_counted_and_none_is_made_up(events, cuts, names):
    chain = FilterChain([RateCap(3000) if name == "cap" else make_filter(name, SENSOR) for name in names])
    whole, edges = batch(*events), [0, *sorted(cuts), 60]
    passed = [
        row for part in chain.filtered(whole[a:b] for a, b in itertools.pairwise(edges)) for row in rows(part)
    ]
    assert len(passed) + sum(one.dropped for one in chain.filters) == len(whole)
    left = iter(rows(whole))
    assert all(event in left for event in passed)  # in the order of the recording


def test_filters_come_one_after_the_other_and_say_what_they_dropped():
    mask = np.zeros((3, 4), np.bool_)
    mask[0, 0] = True
    chain = FilterChain([PixelMask(mask), make_filter("background", SENSOR), RateCap(1000)])
    events = batch((0, 0, 0, 1), (1, 1, 0, 1), (2, 2, 0, 1), (3, 3, 0, 1), (1500, 3, 1, 1))
    assert sum(len(part) for part in chain.filtered([events])) == 2
    assert chain.sentences() == [
        "hot pixels: 1 events dropped", "background: 1 events dropped", "rate cap: 1 events dropped",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise", "no filter is called 'noise'; there are background, refractory"),
        ("background=", "expected microseconds above 0 for the filter background, got ''"),
        ("refractory=0", "expected microseconds above 0"),
        ("refractory=1.5", "expected microseconds above 0"),
        ("refractory=²", "expected microseconds above 0"),
        (f"refractory={10**30}", "expected microseconds above 0"),
    ],
)
def test_filters_that_there_are_not_are_told(text, message):
    with pytest.raises(InputError, match=message.replace("²", ".")):
        make_filter(text, SENSOR)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("5M", 5_000_000), ("200k", 200_000), ("1", 1), ("1.5g", 1_500_000_000), ("2e6", 2_000_000)],
)
def test_rates(text, rate):
    assert read_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0.5", "-3", "M", "fast", "nan", "1e30", "infM"])
def test_what_is_no_rate_is_told(text):
    with pytest.raises(InputError, match="expected events a second, such as 5M or 200k"):
        read_rate(text)
