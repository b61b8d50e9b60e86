"""A stage that does not come back from its work is told, and then ends the run."""

from __future__ import annotations

import pytest
from velora_runtime.pipeline.supervisor import Watchdog

from tests.fakes import FakeClock
from velora_edge.errors import EngineError, InputError

SECOND = 1_000_000


def make() -> tuple[Watchdog, FakeClock, list[str]]:
    clock, notes = FakeClock(), []  # type: ignore[var-annotated]
    return Watchdog(clock, notes.append), clock, notes


def test_work_that_comes_to_its_end_is_well() -> None:
    watchdog, clock, notes = make()
    for _ in range(3):
        with watchdog.working("packing"):
            clock.t_us += 9 * SECOND
            assert watchdog.check()
    clock.t_us += 1000 * SECOND  # nothing to do is no fault
    assert (watchdog.check(), notes) == (True, [])


def test_slow_work_is_told_once_each_time() -> None:
    watchdog, clock, notes = make()
    for _ in range(2):
        with watchdog.working("sink jsonl"):
            clock.t_us += 10 * SECOND
            assert [watchdog.check(), watchdog.check()] == [False, False]
        assert watchdog.check()
    assert notes == ["sink jsonl has been at one thing for 10 s"] * 2


def test_work_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VELORA_STUCK_S", raising=False)
    watchdog, clock, _ = make()
    with watchdog.working("inference"):
        clock.t_us += 59 * SECOND
        assert not watchdog.check()
        clock.t_us += SECOND
        with pytest.raises(EngineError, match=r"^inference is stuck: no answer for 60 s$"):
            watchdog.check()


def test_work_that_fails_is_no_longer_work() -> None:
    watchdog, clock, _ = make()
    with pytest.raises(ZeroDivisionError), watchdog.working("packing"):
        raise ZeroDivisionError
    clock.t_us += 100 * SECOND
    assert watchdog.check()


def test_a_machine_that_is_slow_may_be_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELORA_STUCK_S", "600")
    watchdog, clock, _ = make()
    with watchdog.working("inference"):
        clock.t_us += 599 * SECOND
        assert not watchdog.check()
        clock.t_us += SECOND
        with pytest.raises(EngineError, match="no answer for 600 s"):
            watchdog.check()


@pytest.mark.parametrize("text", ["0", "-5", "ten", "1e3", "9" * 5000])
def test_a_time_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELORA_STUCK_S", text)
    with pytest.raises(InputError, match=r"^expected whole seconds in VELORA_STUCK_S, such as 600, got "):
        make()
