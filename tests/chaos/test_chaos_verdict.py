"""The verdict on a chaos run: what it finds wrong, and with what it finds nothing wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.verdict import Sample, grown, unaccounted, untidy


def flat(minutes: int, mb_min: float = 0.0, more: int = 0) -> list[Sample]:
    """A sample a second of a process that grows."""
    n = 60 * minutes
    return [Sample(float(s), 300 + mb_min * s / 60, 40 + more * (s > n // 2), 20) for s in range(n)]


def test_a_process_that_stays_as_it_is_has_not_grown() -> None:
    assert grown(flat(30)) == []
    assert grown(flat(30, mb_min=0.5)) == []


def test_memory_and_descriptors_that_grow_are_found() -> None:
    assert grown(flat(30, mb_min=2)) == ["memory has grown by 40.0 MB in 20.0 minutes"]
    assert grown(flat(3, more=9)) == ["9 more descriptors"]


def report() -> dict[str, Any]:
    events = {"received": 30, "early": 2, "unread": 3, "dropped": {"overrun": 4}}
    frames = {"received": 9, "early": 1, "overrun": 1, "unread": 1}
    cameras = {"event": {"events": events}, "rgb": {"frames": frames}}
    return {
        "cameras": cameras,
        "events": {"in_windows": 20, "skipped": 1},
        "frames": {"read": 6},
        "predictions": 5,
    }


def test_what_came_and_is_told_is_accounted_for() -> None:
    assert unaccounted(report(), 5) == []


@pytest.mark.parametrize(
    ("what", "predictions"),
    [("events: 31 came, 30", 5), ("frames: 10 came, 9", 5), ("predictions: 5 came, 4", 4)],
)
def test_what_came_and_is_not_told_is_found(what: str, predictions: int) -> None:
    said = report()
    said["cameras"]["event"]["events"]["received"] += "events" in what
    said["cameras"]["rgb"]["frames"]["received"] += "frames" in what
    assert unaccounted(said, predictions) == [f"{what} are accounted for"]


def test_standard_error_of_one_line_for_each_thing_is_tidy() -> None:
    assert untidy("velora: lost\nerror: no\n", 1, ("hunter2",)) == []


def test_tracebacks_floods_and_secrets_on_standard_error_are_found() -> None:
    assert untidy("Traceback (most recent call last):\n", 1, ()) == [
        "not a line of ours: Traceback (most recent call last):"
    ]
    assert untidy("velora: lost\n" * 50, 2, ()) == ["50 lines for 2 faults"]
    assert untidy("velora: at rtsp://me:hunter2@c\n", 1, ("hunter2",)) == ["a password or token was told"]
    assert len(untidy("velora: " + "x" * 700 + "\n", 1, ())) == 1
