"""A first look at raw words: how far they reach, and whether they are words at all."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.ingest.scanner import RawScanner

from tests.fakes_cameras import evt3, garbage

SENSOR = (640, 480)
EVENTS = [(1000 + 10 * k, k % 640, k % 480, k % 2) for k in range(2000)]


def test_it_tells_events_edges_and_the_time_that_is_reached() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scan = scanner.scan(evt3((5000, 1, 2, 1), (5010, 3, 4, 0), edges=[5005], end_us=6000))
    assert scan is not None
    assert (scan.begins_us, scan.reached_us, scan.events, scan.is_garbage) == (None, 6000, 2, False)
    assert scan.edges.t_us.tolist() == [5005]
    assert scanner.find_first_us(scan) == 5000
    after = scanner.scan(evt3((6100, 1, 2, 1)))
    assert after is not None
    assert (after.begins_us, after.reached_us, after.events) == (6000, 6100, 1)


@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_a_stream_may_be_split_anywhere(piece: int) -> None:
    scanner, data, events, words = RawScanner("EVT3", SENSOR), evt3(*EVENTS), 0, b""
    for start in range(0, len(data), piece):
        scan = scanner.scan(data[start : start + piece])
        if scan is not None:
            events, words = events + scan.events, words + scan.words
    assert (events, words) == (2000, data)


def test_random_bytes_are_garbage_and_leave_no_trace() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scanner.scan(evt3((1000, 1, 1, 1)))
    scan = scanner.scan(garbage(4000))
    assert scan is not None
    assert scan.is_garbage
    after = scanner.scan(evt3((2000, 1, 1, 1)))
    assert after is not None
    assert (after.begins_us, after.reached_us, after.events) == (1000, 2000, 1)


@pytest.mark.parametrize("n", [4000, 4001])
def test_after_garbage_words_are_found_again_at_any_byte(n: int) -> None:
    scanner, data = RawScanner("EVT3", SENSOR), evt3(*EVENTS)
    half = len(data) // 4 * 2
    pieces = [data[:half], garbage(n), *(data[half + k : half + k + 600] for k in range(0, half, 600))]
    scans = [scanner.scan(piece) for piece in pieces]
    found = [scan for scan in scans if scan is not None and not scan.is_garbage]
    assert sum(scan.is_garbage for scan in scans if scan is not None) <= 2
    assert sum(scan.events for scan in found) >= 1900
    assert found[-1].reached_us == EVENTS[-1][0]
    assert scanner.resyncs == n % 2


def test_a_look_can_be_taken_back() -> None:
    scanner, data = RawScanner("EVT3", SENSOR), evt3(*EVENTS)
    scanner.scan(data[:1001])
    scan = scanner.scan(data[1001:2001])
    assert scan is not None
    scanner.take_back(scan)
    again = scanner.scan(data[1001:1501])
    assert again is not None
    assert again.words == data[1000:1500]
    assert np.array_equal(again.before, scan.before)


def test_it_knows_whether_events_lie_beyond_a_time() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scanner.scan(evt3((1000, 1, 1, 1)))
    scan = scanner.scan(evt3((1100, 1, 1, 1), end_us=1200) + evt3((900_000, 1, 1, 1)) + evt3((1300, 1, 1, 1)))
    assert scan is not None
    assert (scan.reached_us, scan.steps_back) == (1300, 1)
    assert scanner.leaves_events(scan, 2000)
    assert not scanner.leaves_events(scan, 1_000_000)
