"""What is said on standard error."""

from __future__ import annotations

import click
import pytest

from tests.fakes import FakeClock
from velora_edge.console import RateLimitedNotes, StrideType

MINUTE_US = 60_000_000


def test_of_each_kind_one_line_a_minute_is_told_and_the_rest_counted() -> None:
    clock, lines = FakeClock(), list[str]()
    notes = RateLimitedNotes(lines.append, clock.now_us)
    assert [notes("lost", f"lost {k}") for k in range(3)] == [True, False, False]
    assert notes("back", "back")
    clock.t_us = MINUTE_US - 1
    assert not notes("lost", "lost 3")
    clock.t_us = MINUTE_US
    assert notes("lost", "lost 4")
    clock.t_us = 2 * MINUTE_US
    assert notes("lost", "lost 5")
    assert lines == ["lost 0", "back", "lost 4 (3 more since the last such line)", "lost 5"]


def test_kinds_without_end_take_no_memory_without_end() -> None:
    clock, lines = FakeClock(), list[str]()
    notes = RateLimitedNotes(lines.append, clock.now_us)
    for k in range(1000):
        notes(f"kind {k}", "a line")
    assert (len(notes._told), len(lines)) == (64, 64)


def test_a_stride_is_a_number_from_1_on_or_auto() -> None:
    assert [StrideType().convert(text, None, None) for text in ("1", "12", 3, "auto")] == [1, 12, 3, "auto"]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "²"])
def test_other_strides_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a number of pairs from 1 on, or auto, got"):
        StrideType().convert(text, None, None)
