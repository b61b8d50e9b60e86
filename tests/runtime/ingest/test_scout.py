"""A first look at raw words: how far they reach, and whether they are words at all."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.ingest.scout import Scout

from tests.fakes_cameras import evt3, garbage

SENSOR = (640, 480)
EVENTS = [(1000 + 10 * k, k % 640, k % 480, k % 2) for k in range(2000)]


def test_it_tells_events_edges_and_the_time_that_is_reached() -> None:
    scout = Scout("EVT3", SENSOR)
    look = scout.look(evt3((5000, 1, 2, 1), (5010, 3, 4, 0), edges=[5005], end_us=6000))
    assert look is not None
    assert (look.begins_us, look.reached_us, look.events, look.is_garbage) == (None, 6000, 2, False)
    assert look.edges.t_us.tolist() == [5005]
    assert scout.find_first_us(look) == 5000
    after = scout.look(evt3((6100, 1, 2, 1)))
    assert after is not None
    assert (after.begins_us, after.reached_us, after.events) == (6000, 6100, 1)


@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_a_stream_may_be_split_anywhere(piece: int) -> None:
    scout, data, events, words = Scout("EVT3", SENSOR), evt3(*EVENTS), 0, b""
    for start in range(0, len(data), piece):
        look = scout.look(data[start : start + piece])
        if look is not None:
            events, words = events + look.events, words + look.words
    assert (events, words) == (2000, data)


def test_random_bytes_are_garbage_and_leave_no_trace() -> None:
    scout = Scout("EVT3", SENSOR)
    scout.look(evt3((1000, 1, 1, 1)))
    look = scout.look(garbage(4000))
    assert look is not None
    assert look.is_garbage
    after = scout.look(evt3((2000, 1, 1, 1)))
    assert after is not None
    assert (after.begins_us, after.reached_us, after.events) == (1000, 2000, 1)


@pytest.mark.parametrize("n", [4000, 4001])
def test_after_garbage_words_are_found_again_at_any_byte(n: int) -> None:
    scout, data = Scout("EVT3", SENSOR), evt3(*EVENTS)
    half = len(data) // 4 * 2
    pieces = [data[:half], garbage(n), *(data[half + k : half + k + 600] for k in range(0, half, 600))]
    looks = [scout.look(piece) for piece in pieces]
    found = [look for look in looks if look is not None and not look.is_garbage]
    assert sum(look.is_garbage for look in looks if look is not None) <= 2
    assert sum(look.events for look in found) >= 1900
    assert found[-1].reached_us == EVENTS[-1][0]
    assert scout.resyncs == n % 2


def test_a_look_can_be_taken_back() -> None:
    scout, data = Scout("EVT3", SENSOR), evt3(*EVENTS)
    scout.look(data[:1001])
    look = scout.look(data[1001:2001])
    assert look is not None
    scout.take_back(look)
    again = scout.look(data[1001:1501])
    assert again is not None
    assert again.words == data[1000:1500]
    assert np.array_equal(again.before, look.before)


def test_it_knows_whether_events_lie_beyond_a_time() -> None:
    scout = Scout("EVT3", SENSOR)
    scout.look(evt3((1000, 1, 1, 1)))
    look = scout.look(evt3((1100, 1, 1, 1), end_us=1200) + evt3((900_000, 1, 1, 1)) + evt3((1300, 1, 1, 1)))
    assert look is not None
    assert (look.reached_us, look.steps_back) == (1300, 1)
    assert scout.leaves_events(look, 2000)
    assert not scout.leaves_events(look, 1_000_000)
