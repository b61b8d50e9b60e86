"""Synchronisation of live cameras: by triggers as they come, or by the host's clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from velora_edge.console import RateLimitedNotes
from velora_edge.preprocessing.sync import AlignedFrame, TimestampSync, parse_mode
from velora_edge.preprocessing.triggers import EdgeTrack

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_edge.datatypes import RGBFrame
    from velora_edge.preprocessing.sync import Sync, SyncOptions
    from velora_runtime.cameras.live_events import LiveEvents
    from velora_runtime.cameras.live_rgb import LiveRGB
    from velora_runtime.clocks import ClockMap


class StampedFrames(Protocol):
    """An RGB camera whose clock is known on the host's; see `velora_runtime.cameras.live_rgb.LiveRGB`."""

    @property
    def clock_map(self) -> ClockMap:
        """Map of its clock to the host's."""

    @property
    def is_host_clock(self) -> bool:
        """Whether its times are the host's."""


class HostSync:
    """Synchronisation by the host's clock: offset and drift of both cameras, whatever the jitter.

    What neither clock tells is how long the fastest data takes from the sensor to the host; the difference of
    the two ways stays as a constant offset, which `offset=US` or `rgb.delay_us` takes away.

    The skew of a frame is how far the estimate has moved within the last second.

    Single-threaded: the RGB camera's thread.

    Args:
        rgb: the RGB camera.
        event_map: the event stream's clock on the host's.
        offset_us: added to what the clocks say.
    """

    def __init__(self, rgb: StampedFrames, event_map: ClockMap, offset_us: int = 0) -> None:
        self._rgb, self._event_map, self._offset_us = rgb, event_map, offset_us
        self.line = "by the host's clock" + (f", {offset_us:+d} us" if offset_us else "")

    @property
    def is_settled(self) -> bool:
        """Whether both clocks have been observed for long enough."""
        return self._event_map.is_settled and (self._rgb.is_host_clock or self._rgb.clock_map.is_settled)

    def event_us(self, frame: RGBFrame) -> int | None:
        """A frame's time on the event clock; None before there is one."""
        if not self._event_map.is_known:
            return None
        rgb = self._rgb
        host_us = frame.t_us if rgb.is_host_clock else rgb.clock_map.to_host_us(frame.t_us)
        return self._event_map.to_device_us(host_us) + self._offset_us

    def place(self, frame: RGBFrame) -> AlignedFrame | None:
        """Place the frame on the event clock; None while the event camera has never given anything."""
        t_us = self.event_us(frame)
        if t_us is None:
            return None
        moved_us = self._rgb.clock_map.moved_us - self._event_map.moved_us
        return AlignedFrame(replace(frame, t_us=t_us + moved_us), t_us)


LOCK_FRAMES = 12
"""Frames from which the delay between exposure and arrival is learnt."""
AHEAD = 0.15
"""Part of the spacing by which the host's estimate may put a frame before its exposure."""
FOLLOW = 0.05
"""How fast the delay follows what is measured."""
AWAY = 20
"""Frames in a row without a tick; after these, the delay is learnt anew."""
LONGEST_WAIT_US = 200_000
"""How long a frame waits for its edge."""
EDGE_POLL_US = 1_000


@dataclass(slots=True)
class TriggerCounts:
    """Counts of frames by how they were placed; written by the RGB camera's thread.

    Attributes:
        on_edge: placed at an edge that was seen.
        on_beat: placed where the edge was missed.
        by_host: placed by the host's clock, as there was no beat.
        unplaced: not placed, as there was no beat.
        locks: times that the delay was learnt.
    """

    on_edge: int = 0
    on_beat: int = 0
    by_host: int = 0
    unplaced: int = 0
    locks: int = 0


class OnlineTriggerSync:
    """Synchronisation by trigger edges as they come: each frame at the edge of its exposure.

    The host's clock says roughly when a frame was taken, but for the delay between exposure and arrival. That
    is taken to be the shortest that is not negative, so it must be shorter than the spacing of the edges, or
    be told (`rgb.delay_us`). Once learnt, it tells which tick belongs to a frame, whatever frames or edges
    are lost.

    Single-threaded: the RGB camera's thread.

    Args:
        host: places frames roughly, and where there is no beat.
        edges: the beat.
        clock: the host's.
        stop: ends waiting.
        is_required: frames without a beat have no place; otherwise they go by the host's clock.
        note: gets a line when the beat is found and lost, at most once a minute; `counts` has all.
    """

    def __init__(
        self,
        host: HostSync,
        edges: EdgeTrack,
        clock: Clock,
        stop: threading.Event,
        *,
        is_required: bool,
        note: Callable[[str], None],
    ) -> None:
        self.counts = TriggerCounts()
        self.line = "by triggers as they come" + ("" if is_required else ", by the host's clock without them")
        self._host, self._edges, self._clock, self._stop = host, edges, clock, stop
        self._is_required, self._rare = is_required, RateLimitedNotes(note, clock.now_us)
        self._delay_us: float | None = None
        self._learning: list[float] = []
        self._missing = 0

    def place(self, frame: RGBFrame) -> AlignedFrame | None:
        """Place the frame at its exposure; wait for the edge where it has not come yet."""
        rough_us = self._host.event_us(frame)
        if rough_us is None:
            self.counts.unplaced += 1
            return None
        if self._delay_us is None:
            self._learn(rough_us)
        if self._delay_us is None:
            return self._place_by_host(frame)
        wanted_us = rough_us - self._delay_us
        self._await(wanted_us)
        tick = self._edges.nearest(wanted_us)
        if tick is None:
            self._miss()
            return self._place_by_host(frame)
        self._missing = 0
        skew_us = round(wanted_us) - tick.t_us
        self._delay_us += FOLLOW * skew_us
        if tick.is_seen:
            self.counts.on_edge += 1
        else:
            self.counts.on_beat += 1
        return AlignedFrame(replace(frame, t_us=tick.t_us + skew_us), tick.t_us)

    def _learn(self, rough_us: int) -> None:
        """Learn the delay from some frames, once the edges' period and the clocks are known."""
        spacing_us = self._edges.spacing_us
        if not spacing_us or not self._host.is_settled:
            self._learning.clear()
            return
        self._await(rough_us)
        tick = self._edges.nearest(rough_us)
        if tick is None:
            return
        delay_us = float(rough_us - tick.t_us)
        if self._learning:  # on the same side of the circle as the first
            delay_us += spacing_us * round((self._learning[0] - delay_us) / spacing_us)
        self._learning.append(delay_us)
        if len(self._learning) < LOCK_FRAMES:
            return
        middle = sorted(self._learning)[len(self._learning) // 2]
        while middle < -AHEAD * spacing_us:
            middle += spacing_us
        while middle >= (1 - AHEAD) * spacing_us:
            middle -= spacing_us
        self._learning.clear()
        self._delay_us, self._missing = middle, 0
        self.counts.locks += 1
        self._rare("found", f"frames follow the triggers, {middle / 1000:.1f} ms after them")

    def _miss(self) -> None:
        self._missing += 1
        if self._missing >= AWAY:
            self._delay_us, self._missing = None, 0
            self._rare("lost", "the triggers have stopped, or no longer fit the frames")

    def _place_by_host(self, frame: RGBFrame) -> AlignedFrame | None:
        if self._is_required:
            self.counts.unplaced += 1
            return None
        self.counts.by_host += 1
        placed = self._host.place(frame)
        if placed is None or self._delay_us is None:
            return placed
        # The beat is gone for the moment: what it has taught of the delay still holds.
        t_us = placed.t_us - round(self._delay_us)
        return AlignedFrame(replace(placed.frame, t_us=placed.frame.t_us - round(self._delay_us)), t_us)

    def _await(self, wanted_us: float) -> None:
        """Wait until the edges up to half a spacing after a time are there."""
        needed_us = wanted_us + 0.5 * self._edges.spacing_us
        until_us = self._clock.now_us() + LONGEST_WAIT_US
        while self._edges.reached_us < needed_us and not self._stop.is_set():
            now_us = self._clock.now_us()
            if now_us >= until_us:
                return
            self._clock.wait_until(now_us + EDGE_POLL_US, self._stop)


def choose_live_sync(
    options: SyncOptions,
    rgb: LiveRGB,
    events: LiveEvents,
    delay_us: int,
    clock: Clock,
    stop: threading.Event,
    note: Callable[[str], None],
) -> Sync:
    """Choose how frames get their time on the event camera's clock.

    - `auto`: timestamps where one camera gives both; else triggers, once some have come, and the host's clock
      before and where they stop.
    - `trigger`: triggers alone; frames without any have no place.
    - `host`: the host's clock; `offset=US`: the same and US microseconds more.
    - `timestamps`: the frames' own times, for two cameras that share a clock.

    Args:
        options: what was asked for.
        rgb: the RGB camera.
        events: the event camera.
        delay_us: from exposure to the frame's time, as far as it is known.
        clock: the host's.
        stop: ends waiting.
        note: gets lines when triggers begin and stop to be of use.

    Raises:
        InputError: if there is no such way.
    """
    mode, offset_us = parse_mode(options.mode)
    if mode == "timestamps" or (mode == "auto" and rgb.name == events.name):
        return TimestampSync(0, "by timestamps: the two cameras share a clock")
    host = HostSync(rgb, events.ingest.clock_map, offset_us - delay_us)
    if mode in ("host", "offset"):
        return host
    edges = EdgeTrack(options.trigger_id, 1 if options.trigger_edge == "rising" else 0)
    events.ingest.listen(edges)
    return OnlineTriggerSync(host, edges, clock, stop, is_required=mode == "trigger", note=note)
