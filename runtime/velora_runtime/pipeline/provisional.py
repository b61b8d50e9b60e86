"""Provisional decisions between two pairs: when they are due, and the events of the next pair so far.

Pictures come at 30 Hz, events all the time. Between two pairs the window of the next one grows, and the model
decides on what has come of it, beside the newest tokens of everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from velora_edge.datatypes import EventFrame, FramePair
from velora_edge.errors import InputError
from velora_edge.preprocessing.packer import Packer, PairRequest

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from velora_edge.clock import Clock, Pacer
    from velora_edge.preprocessing.packer import Pair
    from velora_edge.preprocessing.windows import Steps
    from velora_runtime.ingest.live_stream import LiveStream


class ProvisionalPacker(Packer):
    """Packer of pairs, and of the next pair's events so far. Single-threaded: the packing thread.

    Pairs are those of `Packer`, to the bit: each event is walked over once, into the same frame.

    Args:
        given: as for `Packer`.

    Raises:
        InputError: if the model's frames depend on the window's end, which only the next picture tells.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        if self._events is not None and self._accumulator.representation.uses_window:
            raise InputError(
                "--provisional shows a window before its end is known, on which frames of "
                f"{self._form.event.representation} depend",
                remedy="leave it out, or train on polarity or counts",
            )

    def peek_into(self, packed: Pair, request: PairRequest) -> bool:
        """Pack the events of the next pair's window that have come, up to the request's time.

        Args:
            packed: receives the event frame, and the number of the next pair; what it held is overwritten.
            request: a provisional one.

        Returns:
            Whether there is one: not before the first pair, before the window begins, or while the camera is
            away.
        """
        start_us = self._clock.now_us()
        t0_us = self._begin_window(request)
        found = None if t0_us is None else self._walk.advance(t0_us, request.t_us)
        if t0_us is None or found is None:
            return False
        t_us, packed.events = found
        self._accumulator.render_into(packed.event_image)
        frame = EventFrame(packed.event_image, t0_us, t_us, self._accumulator.events)
        packed.frames = FramePair(self.pairs, t_us, None, frame)
        packed.ready_us, packed.pack_us = request.ready_us, self._clock.now_us() - start_us
        packed.coming_us = request.coming_us
        return True

    @property
    def next_window(self) -> tuple[int, int] | None:
        """The next pair's window, which ends then at the earliest; None before the first pair."""
        return self._windows.next

    def _begin_window(self, request: PairRequest) -> int | None:
        """Start of the next pair's window; None where it has not begun, or has no events."""
        assert request.coming_us is not None
        if self._events is None or self._windows.end_us is None:
            return None
        if not self._windows.end_us < request.t_us < request.coming_us:
            return None
        t0_us = self._windows.preview(request.coming_us)
        if request.t_us <= t0_us:
            return None
        if self._events.is_live:
            return t0_us if self._events.await_window(t0_us, request.t_us) else None
        if not self._walk.has_begun(t0_us):
            self.skipped += self._events.skip_until(t0_us)
            if self._events.t_next_us is None or not self._is_recorded(request.t_us):
                return None
        return t0_us


class StepRequests:
    """Provisional requests of a recording, each at its time. Single-threaded: whoever requests the pairs.

    Args:
        steps: when they are due; None: there are none.
        pacer: holds them back.
        clock: of the time at which they are made.
        stop: ends them.
    """

    def __init__(self, steps: Steps | None, pacer: Pacer, clock: Clock, stop: threading.Event) -> None:
        self._steps, self._pacer, self._clock, self._stop = steps, pacer, clock, stop
        self._last_us: int | None = None

    def before(self, coming_us: int, passed_us: int = 0) -> Iterator[PairRequest]:
        """Those between the last pair and the next one.

        Args:
            coming_us: when the next pair ends; the last one ended at that of the call before.
            passed_us: time of the recording that is passed over.
        """
        last_us, self._last_us = self._last_us, coming_us
        if self._steps is None or last_us is None:
            return
        for t_us in self._steps.between(last_us, coming_us):
            self._pacer.wait_for(t_us - passed_us)
            if self._stop.is_set():
                return
            yield PairRequest(t_us, None, self._clock.now_us(), coming_us=coming_us)


FORGETS = 0.9
"""What is left of the longest time with each decision and each that is left out: a slow one is forgotten."""


@dataclass(slots=True)
class Budget:
    """Time for provisional decisions: each has to be over when the next pair comes. The inference thread's.

    Attributes:
        cost_us: what one takes, the longest of late.
    """

    cost_us: float = 0.0

    def allows(self, packed: Pair, now_us: int) -> bool:
        """Whether a provisional decision, begun now, is over before the next pair comes."""
        assert packed.coming_us is not None
        age_us = now_us - packed.ready_us
        is_in_time = packed.frames.t_us + age_us + self.cost_us <= packed.coming_us
        self.cost_us *= 1.0 if is_in_time else FORGETS
        return is_in_time

    def see(self, taken_us: int) -> None:
        """One has taken so long."""
        self.cost_us = max(taken_us, FORGETS * self.cost_us)


@dataclass(slots=True)
class LiveSteps:
    """Provisional requests of live cameras. Single-threaded: the packing thread.

    A picture may come at any time, so they end where the next pair's window ends at the earliest.

    Attributes:
        steps: when they are due.
        packer: knows the next window.
        stream: the event camera.
        clock: the host's.
        overtaken: steps whose events came together with those of the next step.
    """

    steps: Steps
    packer: ProvisionalPacker
    stream: LiveStream
    clock: Clock
    overtaken: int = 0
    _given_us: int = 0

    def take(self) -> PairRequest | None:
        """The newest step whose events have come, if it was not taken."""
        if (window := self.packer.next_window) is None:
            return None
        (end_us, coming_us), now_us = window, self.clock.now_us()
        due = [t_us for t_us in self.steps.between(end_us, coming_us) if t_us > self._given_us]
        while due and not self.stream.judge_window(end_us, due[-1], now_us):
            due.pop()
        if not due:
            return None
        self._given_us = due[-1]
        self.overtaken += len(due) - 1
        return PairRequest(due[-1], None, now_us, coming_us=coming_us)
