"""Windows of events that end at a pair's time, pair times at an even rate, and the span of a clip."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import InputError
from velora_edge.events.base import LONGEST_GAP_US

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

LONGEST = Fraction(3, 2)
"""A window may reach back to the end of the one before it up to this many nominal windows."""


REMEMBERED = 16
"""Windows whose lengths tell how long the next one is at least."""


class WindowRule:
    """Half-open windows [t0, t1), one after the other, each ending at the instant of a pair.

    A window starts where the one before it ended, so that no event is lost to jitter. After a longer gap
    (more than 1.5 times the nominal window: a dropped frame, a paused camera) it is as long as the model
    was trained with, and what lies before it is skipped.

    Args:
        window_us: the nominal window, from the bundle.
        start_us: earliest start of the first window; None: the first window is one nominal window long.
    """

    def __init__(self, window_us: int, start_us: int | None = None) -> None:
        self.window_us = window_us
        self.end_us = start_us
        self._lengths_us: deque[int] = deque(maxlen=REMEMBERED)

    def begin_at(self, t_us: int) -> None:
        """Let the first window start at `t_us` at the earliest."""
        self.end_us = t_us

    def preview(self, t_us: int) -> int:
        """Start of the window that would end at `t_us`.

        Raises:
            ValueError: if `t_us` is not after the end of the window before.
        """
        if self.end_us is None:
            return t_us - self.window_us
        if t_us <= self.end_us:
            raise ValueError(f"expected a window's end after {self.end_us} us, got {t_us} us")
        is_near = t_us - self.end_us <= LONGEST * self.window_us
        return self.end_us if is_near else t_us - self.window_us

    def start(self, t_us: int) -> int:
        """Start of the window that ends at `t_us`; the next one then starts there, or later.

        Raises:
            ValueError: if `t_us` is not after the end of the window before.
        """
        start = self.preview(t_us)
        self.end_us = t_us
        self._lengths_us.append(t_us - start)
        return start

    @property
    def next(self) -> tuple[int, int] | None:
        """The next window if it is near, and no longer than the shortest of late; None before the first."""
        if self.end_us is None or not self._lengths_us:
            return None
        return self.end_us, self.end_us + min(self._lengths_us)


@dataclass(frozen=True, slots=True)
class Steps:
    """Times at a fixed rate after a pair: whole microseconds, rounded down, so that none drifts.

    Attributes:
        rate_hz: steps a second.
        longest_us: there are none later after the pair.
    """

    rate_hz: Fraction
    longest_us: int

    def between(self, t0_us: int, t1_us: int) -> Iterator[int]:
        """The steps after the pair at `t0_us` and before the one at `t1_us`."""
        step, end_us = 1, min(t1_us, t0_us + self.longest_us)
        while (
            t_us := t0_us + step * 1_000_000 * self.rate_hz.denominator // self.rate_hz.numerator
        ) < end_us:
            yield t_us
            step += 1


_MOST_SILENCE = 10
"""Windows without an event that are given for one with events, beyond the first minute of them."""


class SteadyEdges:
    """Ends of windows at a fixed rate: whole microseconds, each rounded down on its own, so that none drifts.

    The k-th is start_us + floor(k / rate_hz). There is no last one.

    One damaged word can put the next event hours or years ahead. Where the events of a recording leave a gap
    that is longer than a minute, the windows in it are passed over in one step, but for the first `lead` of
    them and for the last: a clip forgets what was before the gap, and then goes on as if all had been made.
    So are those of shorter gaps, once the recording has had a minute of them and many times what it shows:
    a few damaged words, or a file made to cost hours, hold many gaps of just under a minute.

    Iterate once. Single-threaded: whoever packs.

    Args:
        start_us: where the first window begins.
        rate_hz: windows a second.
        next_event_us: gives the time of the next event that is not in a window yet, None after the last.
            Without it, as for live cameras, every window is given.
        lead: windows of a gap that are given before the rest is passed over.
        longest_gap_us: gaps of up to this length are given in full.

    Attributes:
        passed: windows that were passed over so far.
        passed_us: how long they were, all together.
    """

    def __init__(
        self,
        start_us: int,
        rate_hz: Fraction,
        next_event_us: Callable[[], int | None] | None = None,
        *,
        lead: int = 0,
        longest_gap_us: int = LONGEST_GAP_US,
    ) -> None:
        self.passed = self.passed_us = 0
        self._start_us, self._rate_hz = start_us, rate_hz
        self._next_event_us, self._lead, self._longest_gap_us = next_event_us, lead, longest_gap_us
        self._gaps = self._shown = self._silent = 0
        self._first_gap_us = (0, 0)

    def __iter__(self) -> Iterator[int]:
        given, quiet, quiet_from_us = 0, 0, self._start_us
        while True:
            next_us = None if self._next_event_us is None else self._next_event_us()
            if next_us is not None and quiet >= self._lead and self._is_long(next_us - quiet_from_us):
                given = self._pass_over(given, quiet_from_us, next_us)
            given += 1
            end_us = self._edge_us(given)
            if next_us is not None and next_us < end_us:
                self._shown, self._silent = self._shown + 1, self._silent + quiet
                quiet, quiet_from_us = 0, end_us
            else:
                quiet += 1
            yield end_us

    def warnings(self) -> list[str]:
        """Warning about windows that were passed over; empty where none was."""
        if not self._gaps:
            return []
        gaps = (
            "there is no event"
            if self._gaps == 1
            else f"{self._gaps:,} long gaps are without an event, the first"
        )
        from_us, to_us = self._first_gap_us
        return [
            f"{gaps} from {from_us:,} to {to_us:,} us ({(to_us - from_us) / 1e6:,.0f} s): "
            f"{self.passed:,} empty windows were passed over"
        ]

    def _is_long(self, gap_us: int) -> bool:
        """Whether a gap is passed over: by itself, or with those before it."""
        silent_us = self._silent * 1_000_000 * self._rate_hz.denominator // self._rate_hz.numerator
        shown_us = self._shown * 1_000_000 * self._rate_hz.denominator // self._rate_hz.numerator
        most_us = self._longest_gap_us + _MOST_SILENCE * shown_us
        return gap_us > self._longest_gap_us or silent_us + gap_us > most_us

    def _pass_over(self, given: int, from_us: int, next_us: int) -> int:
        """The number of the last window that ends at the next event or before it."""
        periods = (next_us - self._start_us) * self._rate_hz.numerator
        last = periods // (1_000_000 * self._rate_hz.denominator) + 1
        while self._edge_us(last) > next_us:
            last -= 1
        passed = last - 1 - given  # the last one is given: the next begins where it ends
        if passed <= 0:
            return given
        self._gaps += 1
        if self._gaps == 1:
            self._first_gap_us = from_us, next_us
        self.passed += passed
        self.passed_us += self._edge_us(last - 1) - self._edge_us(given)
        return last - 1

    def _edge_us(self, k: int) -> int:
        return self._start_us + k * 1_000_000 * self._rate_hz.denominator // self._rate_hz.numerator


MOST_OFF = 1 / 3
"""Share of a clip's span in training by which it may differ live, without a word."""


def clip_span_s(clip_length: int, stride: int, rate_hz: float) -> float:
    """Seconds from the first pair of a clip to its last one."""
    return (clip_length - 1) * stride / rate_hz


def is_span_off(span_s: float, trained_s: float) -> bool:
    """Whether clips cover so much more or less time than in training that a user should know."""
    return abs(span_s - trained_s) > MOST_OFF * trained_s


def stride_for(span_s: float, clip_length: int, rate_hz: float) -> int:
    """The stride by which a clip covers the span best, at so many pairs a second; at least 1."""
    return max(1, round(span_s * rate_hz / (clip_length - 1)))


def auto_stride(span_s: float | None, clip_length: int, rate_hz: float | None) -> int:
    """The stride that `--stride auto` stands for.

    Raises:
        InputError: if the span or the rate is not known.
    """
    lacks = [name for name, value in (("--span S", span_s), ("--rate HZ", rate_hz)) if value is None]
    if span_s is None or rate_hz is None:
        raise InputError(
            "auto needs the seconds that a clip covered in training and the pairs a second, and "
            f"{'neither is' if len(lacks) == 2 else 'one is not'} known",
            place="--stride",
            remedy=f"add {' and '.join(lacks)}, or give a number of pairs",
        )
    return stride_for(span_s, clip_length, rate_hz)


def pair_rate_hz(times_us: NDArray[np.int64]) -> float | None:
    """Frames a second by the median of the times between them; None where fewer than two have a time."""
    period_us = float(np.median(np.diff(times_us))) if len(times_us) > 1 else 0.0
    return 1e6 / period_us if period_us > 0 else None
