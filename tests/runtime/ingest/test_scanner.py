"""A first look at raw words: how far they reach, and whether they are words at all."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.ingest.scanner import LEAST_BYTES, RawScanner

from tests.fakes_cameras import evt3, garbage

SENSOR = (640, 480)
EVENTS = [(1000 + 10 * k, k % 640, k % 480, k % 2) for k in range(2000)]


def test_it_tells_events_edges_and_the_time_that_is_reached() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scan = scanner.scan(evt3((5000, 1, 2, 1), (5010, 3, 4, 0), edges=[5005], end_us=6000))
    assert (scan.t_first_us, scan.t_reached_us, scan.events, scan.is_garbage) == (5000, 6000, 2, False)
    assert scan.edges.t_us.tolist() == [5005]
    after = scanner.scan(evt3((6100, 1, 2, 1)))
    assert (after.t_first_us, after.t_reached_us, after.events) == (6000, 6100, 1)


@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_a_stream_may_be_split_anywhere(piece: int) -> None:
    scanner, data, events, words = RawScanner("EVT3", SENSOR), evt3(*EVENTS), 0, b""
    for start in range(0, len(data), piece):
        scan = scanner.scan(data[start : start + piece])
        assert scan.used == len(data[start : start + piece])
        events, words = events + scan.events, words + scan.words
    assert (events, words) == (2000, data)


def test_random_bytes_are_garbage_and_leave_no_trace() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scanner.scan(evt3((1000, 1, 1, 1)))
    scan = scanner.scan(garbage(4000))
    assert scan.is_garbage
    after = scanner.scan(evt3((2000, 1, 1, 1)))
    assert (after.t_first_us, after.t_reached_us, after.events) == (1000, 2000, 1)


@pytest.mark.parametrize("n", [4000, 4001])
def test_after_garbage_words_are_found_again_at_any_byte(n: int) -> None:
    scanner, data = RawScanner("EVT3", SENSOR), evt3(*EVENTS)
    half = len(data) // 4 * 2
    pieces = [data[:half], garbage(n), *(data[half + k : half + k + 600] for k in range(0, half, 600))]
    scans = [scanner.scan(piece) for piece in pieces]
    found = [scan for scan in scans if not scan.is_garbage]
    assert sum(scan.is_garbage for scan in scans) <= 2
    assert sum(scan.events for scan in found) >= 1900
    assert found[-1].t_reached_us == EVENTS[-1][0]
    assert scanner.resyncs == n % 2


def test_words_that_cover_too_much_time_are_looked_at_in_parts() -> None:
    scanner, data = RawScanner("EVT3", SENSOR), evt3(*EVENTS)
    begun = scanner.scan(data[:1001])
    scans, at = [], 1001
    while at < len(data):
        scans.append(scanner.scan(data[at:], longest_us=2000))
        at += scans[-1].used
    assert b"".join(scan.words for scan in scans) == data[1000:]
    reached_us = [scan.t_reached_us or 0 for scan in scans]
    assert max(np.diff([begun.t_reached_us, *reached_us])) <= 2000
    assert reached_us[-1] == EVENTS[-1][0]


def test_words_that_cannot_be_cut_further_are_looked_at_whole() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scanner.scan(evt3((1000, 1, 1, 1)))
    data = evt3((2000, 1, 1, 1), (900_000, 1, 1, 1))
    assert len(data) <= LEAST_BYTES
    scan = scanner.scan(data, longest_us=10)
    assert (scan.used, scan.events) == (len(data), 2)


def test_an_event_far_beyond_the_time_that_is_reached_makes_the_words_garbage() -> None:
    scanner = RawScanner("EVT3", SENSOR)
    scanner.scan(evt3((1000, 1, 1, 1)))
    jump = evt3((1100, 1, 1, 1), end_us=1200) + evt3((900_000, 1, 1, 1)) + evt3((1300, 1, 1, 1))
    assert scanner.scan(jump).is_garbage
    near = evt3((1400, 1, 1, 1)) + evt3((15_000, 1, 1, 1)) + evt3((1500, 1, 1, 1))
    scan = scanner.scan(near)
    assert (scan.is_garbage, scan.t_first_us, scan.t_reached_us) == (False, 1000, 1500)
