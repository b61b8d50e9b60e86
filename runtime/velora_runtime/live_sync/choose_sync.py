"""How two live cameras come into step: what the user asked for, or triggers and the host's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.preprocessing.edge_track import EdgeTrack
from velora_edge.preprocessing.sync import TimestampSync, parse_mode
from velora_runtime.live_sync.host_sync import HostSync
from velora_runtime.live_sync.trigger_sync import OnlineTriggerSync

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_edge.preprocessing.sync import Sync, SyncOptions
    from velora_runtime.cameras.live_events import LiveEvents
    from velora_runtime.cameras.live_rgb import LiveRGB


def choose_live_sync(
    options: SyncOptions,
    rgb: LiveRGB,
    events: LiveEvents,
    delay_us: int,
    clock: Clock,
    stop: threading.Event,
    note: Callable[[str], None],
) -> Sync:
    """The way that frames find their time on the event camera's clock.

    - `auto`: triggers, once some have come; the host's clock before and where they stop.
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
    if mode == "timestamps":
        return TimestampSync(0, "by timestamps: the two cameras share a clock")
    host = HostSync(rgb, events.ingest.clock_map, offset_us - delay_us)
    if mode in ("host", "offset"):
        return host
    edges = EdgeTrack(options.trigger_id, 1 if options.trigger_edge == "rising" else 0)
    events.ingest.listen(edges)
    return OnlineTriggerSync(host, edges, clock, stop, is_required=mode == "trigger", note=note)
