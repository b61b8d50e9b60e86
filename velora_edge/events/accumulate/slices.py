"""Event frames of sliding windows, put together from slices, so that each event is walked over once.

The windows of pairs follow each other. Each is accumulated in slices that end at multiples of a step after its
start. The frame of a pair is made of its slices, and that of a window that lies across two pairs' windows of
the slices of both: the same, to the bit, as if the window had been walked over by itself.

That needs a representation in which a later part of a window can be laid onto an earlier one (`extend`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from fractions import Fraction

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.events.accumulate.representations import Accumulator, Representation
    from velora_edge.events.base import EventStream


@dataclass(frozen=True, slots=True)
class Steps:
    """Times at a fixed rate after the start of a window: whole microseconds, rounded down, so that none drifts.

    Attributes:
        rate_hz: steps a second.
        longest_us: of a window: there are none later after its start.
    """

    rate_hz: Fraction
    longest_us: int

    def at(self, t0_us: int, k: int) -> int:
        """The k-th step after `t0_us`."""
        return t0_us + k * 1_000_000 * self.rate_hz.denominator // self.rate_hz.numerator

    def between(self, t0_us: int, t1_us: int) -> Iterator[int]:
        """The steps after `t0_us` and before `t1_us`."""
        k, end_us = 1, min(t1_us, t0_us + self.longest_us)
        while (t_us := self.at(t0_us, k)) < end_us:
            yield t_us
            k += 1


@dataclass(slots=True)
class _Slice:
    """Events from one step to the next.

    Attributes:
        t0_us: its start, stream's clock.
        frame: they fall on it.
        walked: how many they are, those outside the frame included.
    """

    t0_us: int
    frame: Accumulator
    walked: int = 0


class SlicedAccumulator:
    """Accumulator of one window after the other, which keeps the slices of the last one and of the present one.

    Single-threaded: the packing thread.

    Args:
        make: makes an empty frame.
        steps: where slices end.

    Attributes:
        window_us: start and end of the last window that was finished, stream's clock; None before.

    Raises:
        ConfigError: if frames of the representation cannot be put together.
    """

    def __init__(self, make: Callable[[], Accumulator], steps: Steps) -> None:
        self._make, self.steps = make, steps
        self._whole = make()
        self.representation: Representation = self._whole.representation
        if not hasattr(self.representation, "extend"):
            raise ConfigError(
                [
                    f"event.representation: {type(self.representation).__name__} weighs events by the whole "
                    "window's times, so a sliding window cannot be put together; leave out --provisional"
                ]
            )
        self.window_us: tuple[int, int] | None = None
        self._before: list[_Slice] = []
        self._now: list[_Slice] = []
        self._free: list[Accumulator] = []
        self._t0_us = self._shift_us = 0

    @property
    def events(self) -> int:
        """Events on the frame that was put together last."""
        return self._whole.events

    def begin(self, t0_us: int, t1_us: int, shift_us: int = 0) -> None:
        """Begin a window; what there was of an unfinished one is thrown away.

        Args:
            t0_us: its start, camera's clock.
            t1_us: not used: no frame that can be sliced depends on it.
            shift_us: what to add to get the stream's.
        """
        self._recycle(self._now)
        self._t0_us, self._shift_us = t0_us + shift_us, shift_us

    def accumulate(self, stream: EventStream, t1_us: int) -> int:
        """Add the events before `t1_us`, stream's clock; return how many were walked over."""
        walked = 0
        while True:
            end_us = min(self.steps.at(self._t0_us, len(self._now) or 1), t1_us)
            part = self._now[-1] if self._now else self._open(self._t0_us)
            n = stream.accumulate_until(end_us, part.frame)
            part.walked, walked = part.walked + n, walked + n
            if end_us == t1_us or stream.shift_us != self._shift_us:
                return walked
            self._open(end_us)

    def finish(self, t1_us: int) -> None:
        """End the window at `t1_us`, and put its frame together."""
        self._recycle(self._before)
        self._before, self._now = self._now, self._before
        self.window_us = self._t0_us, t1_us
        self._join(self._before)

    def slide(self, t1_us: int) -> tuple[int, int]:
        """Put together the frame of a window as long as the last one, ending `t1_us` in the present one.

        Args:
            t1_us: a step after the last window's end, and before another one's.

        Returns:
            The window's start, and the events that were walked over for it.
        """
        assert self.window_us is not None
        start_us = t1_us - (self.window_us[1] - self.window_us[0])
        parts = [part for part in self._before if part.t0_us >= start_us]
        parts += [part for part in self._now if part.t0_us < t1_us]
        self._join(parts)
        return start_us, sum(part.walked for part in parts)

    def render_into(self, image: NDArray[np.uint8]) -> None:
        """Write the frame that was put together last, uint8[H, W, 3]."""
        self._whole.render_into(image)

    def warm_up(self) -> None:
        """Load the kernels."""
        self._open(0)
        self._join(self._now)
        self._recycle(self._now)

    def _open(self, t0_us: int) -> _Slice:
        frame = self._free.pop() if self._free else self._make()
        frame.begin(t0_us, t0_us + 1)
        self._now.append(_Slice(t0_us, frame))
        return self._now[-1]

    def _join(self, parts: list[_Slice]) -> None:
        self._whole.begin(0, 1)
        for part in parts:
            self.representation.extend(part.frame.representation)  # type: ignore[attr-defined]
            self._whole.events += part.frame.events

    def _recycle(self, parts: list[_Slice]) -> None:
        self._free += [part.frame for part in parts]
        parts.clear()
