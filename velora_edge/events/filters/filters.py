"""Event filters, applied batch after batch; each counts the events that it drops.

A filter is one class and one line in `FILTERS`. All of them keep their memory from one batch to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError
from velora_edge.events.base import EventFilter
from velora_edge.events.filters import _filter_kernels as kernels
from velora_edge.limits import parse_int

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

LONGEST_US = 1 << 40
HIGHEST_RATE = 1 << 40
SLICE_US = 1000
"""The rate cap thins what came in so much time."""
MOST_IN_SLICE = 1 << 20
_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9}


class PixelMask(EventFilter):
    """Drops the events of some pixels.

    Args:
        mask: bool[H, W] of the sensor.
    """

    name = "hot pixels"

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._is_kept = ~mask

    def apply(self, batch: EventBatch) -> EventBatch:
        """The events of pixels that are not in the mask."""
        kept = batch[self._is_kept[batch.y, batch.x]]
        self.dropped += len(batch) - len(kept)
        return kept


class BackgroundActivity(EventFilter):
    """Drops events without a recent event at a neighbouring pixel, which are mostly noise.

    An event passes if one of the eight pixels around it fired within `window_us` of it, of either polarity
    (Delbruck, "Frame-free dynamic digital vision", 2008).

    Args:
        sensor: width and height, pixels.
        window_us: how long ago a neighbour may have fired.
    """

    name = "background"
    default_us = 5000

    def __init__(self, sensor: tuple[int, int], window_us: int = default_us) -> None:
        width, height = sensor
        self._stride, self._window_us = width + 2, window_us
        self._last = np.full((height + 2) * (width + 2), kernels.LONG_AGO, np.int64)

    def apply(self, batch: EventBatch) -> EventBatch:
        """The events that a neighbour goes with."""
        columns, out = _columns(batch), _room(len(batch))
        n = kernels.keep_active(columns, self._last, self._stride, self._window_us, out)
        self.dropped += len(batch) - n
        return EventBatch(*out)[:n]


class Refractory(EventFilter):
    """Drops events of a pixel that fired just before.

    Args:
        sensor: width and height, pixels.
        rest_us: how long a pixel is silent after an event that passed.
    """

    name = "refractory"
    default_us = 1000

    def __init__(self, sensor: tuple[int, int], rest_us: int = default_us) -> None:
        width, height = sensor
        self._stride, self._rest_us = width, rest_us
        self._last = np.full(height * width, kernels.LONG_AGO, np.int64)

    def apply(self, batch: EventBatch) -> EventBatch:
        """The events of rested pixels."""
        columns, out = _columns(batch), _room(len(batch))
        n = kernels.keep_rested(columns, self._last, self._stride, self._rest_us, out)
        self.dropped += len(batch) - n
        return EventBatch(*out)[:n]


class RateCap(EventFilter):
    """Passes on no more events a second than were asked for, spread evenly over what came.

    The events of each millisecond are held back until the next one begins. If they are more than the cap
    allows in that time, so many equal shares are made of them, and one event of each passes, chosen by a rule
    that looks random: neither time nor place is favoured, and a recording always gives the same events.

    Args:
        rate: events a second.
    """

    name = "rate cap"

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._span = np.zeros(3, np.int64)
        self._held = EventBatch.empty()

    def apply(self, batch: EventBatch) -> EventBatch:
        """Return the events that pass of completed milliseconds."""
        batch = EventBatch.concatenate([self._held, batch]) if len(self._held) else batch
        out = _room(len(batch))
        n, left = kernels.thin_spans(_columns(batch), self._span, SLICE_US, self._rate, MOST_IN_SLICE, out)
        self.dropped += left - n
        self._held = batch[left:]
        return EventBatch(*out)[:n]

    def flush(self, t_us: int) -> EventBatch:
        """Return the events that pass of the part of a millisecond until `t_us`."""
        if not len(self._held):
            return EventBatch.empty()
        begin_us, held = int(self._span[kernels.BEGIN_US]), self._held
        end_us = min(max(t_us, begin_us), int(self._span[kernels.END_US]))
        allowed = kernels.count_allowed(begin_us, end_us, self._rate)
        out = _room(len(held))
        n = kernels.thin_span(_columns(held), 0, len(held), allowed, begin_us, out, 0)
        self.dropped += len(held) - n
        self._span[kernels.BEGIN_US], self._held = end_us, EventBatch.empty()
        return EventBatch(*out)[:n]


FILTERS: dict[str, type[BackgroundActivity] | type[Refractory]] = {
    kind.name: kind for kind in (BackgroundActivity, Refractory)
}


class FilterChain:
    """Filters one after the other. Single-threaded.

    Args:
        filters: in the order in which events pass them.
    """

    def __init__(self, filters: Sequence[EventFilter]) -> None:
        self.filters = tuple(filters)

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were not passed on so far, by the filter's name."""
        return {one.name: one.dropped for one in self.filters}

    def apply(self, batch: EventBatch) -> EventBatch:
        """The events that pass all filters."""
        for one in self.filters:
            batch = one.apply(batch)
        return batch

    def flush(self, t_us: int) -> EventBatch:
        """Return the events that were held back and pass now; see `EventFilter.flush`."""
        held = EventBatch.empty()
        for one in self.filters:
            passed = one.apply(held) if len(held) else held
            held = EventBatch.concatenate([passed, one.flush(t_us)])
        return held

    def filtered(self, batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
        """The events of a whole recording that pass; none of the batches is empty."""
        for batch in batches:
            passed = self.apply(batch)
            if len(passed):
                yield passed
        rest = self.flush(np.iinfo(np.int64).max)
        if len(rest):
            yield rest

    def sentences(self) -> list[str]:
        """List what was dropped, one sentence for each filter that dropped something."""
        return [f"{name}: {n:,} events dropped" for name, n in self.dropped.items() if n]


def make_filter(text: str, sensor: tuple[int, int]) -> EventFilter:
    """The filter that a user asks for: NAME, or NAME=MICROSECONDS.

    Raises:
        InputError: if there is none of that name, or the time is not a number above 0.
    """
    name, equals, value = text.partition("=")
    if name not in FILTERS:
        raise InputError(f"no filter is called {name!r}; there are {', '.join(FILTERS)}")
    kind = FILTERS[name]
    if not equals:
        return kind(sensor)
    span_us = parse_int(value, LONGEST_US)
    if span_us is None or span_us <= 0:
        raise InputError(f"expected microseconds above 0 for the filter {name}, got {value[:80]!r}")
    return kind(sensor, span_us)


def read_rate(text: str) -> int:
    """Events a second of a number that may end in k, M or G.

    Raises:
        InputError: if it is no such number, or less than 1.
    """
    scale = _SUFFIXES.get(text[-1:].lower(), 0.0)
    try:
        rate = float(text[:-1] if scale else text) * (scale or 1.0)
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= HIGHEST_RATE:
        raise InputError(f"expected events a second, such as 5M or 200k, got {text!r}")
    return int(rate)


def _columns(batch: EventBatch) -> tuple[NDArray[Any], ...]:
    return batch.t_us, batch.x, batch.y, batch.p


def _room(n: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    room = EventBatch.empty(n)
    return room.t_us, room.x, room.y, room.p
