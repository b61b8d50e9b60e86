"""The runtime's packing for data sets: clips are trained on as they will be seen live."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from velora_edge.clock import SystemClock
from velora_edge.events.registry import open_events
from velora_edge.preprocessing.packer import Packed, Packer
from velora_edge.preprocessing.sources.registry import open_rgb_source
from velora_edge.preprocessing.sync import Placed, SyncOptions, choose_sync
from velora_edge.preprocessing.windows import SteadyEdges, WindowRule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.bundle import Manifest
    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.events.base import EventReader, EventStream
    from velora_edge.preprocessing.sources.base import RGBSource

    Instants = Iterator[tuple[int, Placed | None]]


@dataclass(frozen=True, slots=True)
class PackedPair:
    """One pair of a recording at model size; its arrays hold until the next pair is asked for.

    Attributes:
        t_us: its time, event clock.
        rgb: uint8[H, W, 3] or None.
        event: uint8[H, W, 3] or None.
    """

    t_us: int
    rgb: NDArray[np.uint8] | None
    event: NDArray[np.uint8] | None


class RuntimePacker:
    """Packs recordings by the runtime's packer, its windows and its synchronisation (`--sync auto`)."""

    def pairs(self, events: Path, video: Path | None, spec: ClipSpec) -> Iterator[PackedPair]:
        """All pairs of a recording in time order."""
        with open_events(events) as reader, reader.stream() as stream:
            first_us = stream.t_next_us
            if first_us is None:
                return
            rule = WindowRule(spec.event.window_us, None if video else first_us)
            # The packer reads image size, representation and fits: a spec has them as a manifest does.
            packer = Packer(cast("Manifest", spec), stream, rule, SystemClock())
            packed = Packed.empty(spec.image_size)
            instants = _windows(stream, first_us, spec) if video is None else _frames(reader, video, first_us)
            for t_us, placed in instants:
                if packer.accepts(t_us):
                    packer.pack_into(packed, t_us, placed, 0)
                    yield _view(packed, t_us)

    def video_length_us(self, video: Path) -> int:
        """From a video's first frame to the end of its last one, as long as the ones before it."""
        times = _open(video).times_us()
        if len(times) < 2:
            return 0
        return int(times[-1] - times[0] + np.median(np.diff(times)))


def _windows(stream: EventStream, first_us: int, spec: ClipSpec) -> Instants:
    """Ends of the windows that a recording without pictures fills, as the runtime cuts them by default."""
    rate_hz = Fraction(1_000_000, spec.event.window_us)
    for end_us in SteadyEdges(first_us, rate_hz, lambda: stream.t_next_us, lead=spec.length * spec.stride):
        yield end_us, None
        if stream.t_next_us is None:
            return


def _frames(reader: EventReader, video: Path, first_us: int) -> Instants:
    """Pictures on the event clock, with their instants."""
    source = _open(video)
    sync = choose_sync(SyncOptions(), source, reader, first_us)
    for frame in source:
        placed = sync.place(frame)
        if placed is not None:
            yield placed.t_us, placed


def _open(video: Path) -> RGBSource:
    source = open_rgb_source(str(video))
    assert source is not None
    return source


def _view(packed: Packed, t_us: int) -> PackedPair:
    pair = packed.pair
    return PackedPair(
        t_us,
        None if pair.rgb is None else packed.rgb_image,
        None if pair.event is None else packed.event_image,
    )
