"""An engine that fails once costs a note, one that fails twice ends the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.engines.base import RetryingEngine
from velora_runtime.inference.recogniser import PairRecogniser

from tests.fakes import FakeClock, RecordingEngine, tiny_manifest
from tests.runtime.streaming import make_pair
from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection

CALLS = ("rgb", "event", "diff", "decide")


class FailingEngine(RecordingEngine):
    """Fails at the given calls, counted from 0, once it has done half of its work."""

    def __init__(self, failing: Collection[int], only: str | None = None) -> None:
        super().__init__(clip_length=3)
        self.calls = 0
        self._failing, self._only = failing, only

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("encode", "decide"):
            return found

        def call(*args: Any) -> Any:
            what = args[0] if name == "encode" else name
            number = self.calls
            self.calls += self._only in (None, what)
            result = found(*args)
            if number in self._failing and self._only in (None, what):
                raise EngineError(f"{what} has hiccups")
            return result

        return call


def run_pairs(engine: Any, pairs: int = 6) -> None:
    recogniser = PairRecogniser(tiny_manifest(3), engine, FakeClock())
    for k in range(pairs):
        image = np.full((8, 8, 3), k, np.uint8)
        recogniser.see(make_pair(k, image, image + 100))


@pytest.mark.parametrize("call", CALLS)
def test_whatever_call_fails_once_is_made_again_and_nothing_else_changes(call: str) -> None:
    steady, failing, notes = RecordingEngine(3), FailingEngine({2}, call), []  # type: ignore[var-annotated]
    run_pairs(steady)
    engine = RetryingEngine(failing, notes.append)
    run_pairs(engine)
    assert (engine.retries, notes) == (1, [f"a fake failed and is tried again: {call} has hiccups"])
    assert (failing.rgb, failing.event, failing.diff) == (steady.rgb, steady.event, steady.diff)
    made = (
        [*steady.decided[:3], steady.decided[2], *steady.decided[3:]] if call == "decide" else steady.decided
    )
    assert failing.decided == made


def test_an_engine_that_fails_twice_in_a_row_fails() -> None:
    engine = RetryingEngine(FailingEngine({4, 5}), print)
    with pytest.raises(EngineError, match="has hiccups"):
        run_pairs(engine)
    assert engine.retries == 1


def test_an_engine_that_fails_now_and_then_goes_on() -> None:
    engine = RetryingEngine(FailingEngine({3, 9, 14, 20}), print)
    run_pairs(engine, pairs=12)
    assert engine.retries == 4


def test_other_errors_are_not_the_engines() -> None:
    inner = RecordingEngine(3)
    inner.decide = lambda phase, presence: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run_pairs(RetryingEngine(inner, print))


def test_closing_and_warming_up_are_the_engines_own() -> None:
    inner = RecordingEngine(3)
    engine = RetryingEngine(inner, print)
    engine.warm_up()
    engine.close()
    assert (inner.is_closed, engine.name) == (True, "a fake")
