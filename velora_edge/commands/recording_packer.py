"""The runtime's packing for data sets: clips are trained on as they will be seen live."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
from velora_runtime.clock import SystemClock
from velora_runtime.packer import Packed, Packer
from velora_runtime.sources.video_file import VideoFile
from velora_runtime.sync import SyncOptions, choose_sync
from velora_runtime.windows import WindowRule, edges_us

from velora_edge.data.recordings import PackedPair
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_runtime.sync import Placed

    from velora_edge.bundle import Manifest
    from velora_edge.data.clips import ClipSpec
    from velora_edge.events.base import EventStream


class RuntimePacker:
    """Packs recordings by the runtime's packer, its windows and its synchronisation (`--sync auto`)."""

    def pairs(self, events: Path, video: Path | None, spec: ClipSpec) -> Iterator[PackedPair]:
        """All pairs of a recording in time order; see `velora_edge.data.recordings.RecordingPacker`."""
        with open_events(events) as reader, reader.stream() as stream:
            first_us = stream.t_next_us
            if first_us is None:
                return
            rule = WindowRule(spec.event.window_us, None if video else first_us)
            # The packer reads image size, representation and fits: a spec has them as a manifest does.
            packer = Packer(cast("Manifest", spec), stream, rule, SystemClock())
            packed = Packed.empty(spec.image_size)
            if video is None:
                instants = _windows(first_us, spec, stream)
            else:
                source = VideoFile(str(video))
                sync = choose_sync(SyncOptions(), source, reader, first_us)
                instants = (placed for frame in source if (placed := sync.place(frame)) is not None)
            for instant in instants:
                t_us = instant if isinstance(instant, int) else instant.t_us
                if packer.accepts(t_us):
                    packer.pack_into(packed, t_us, None if isinstance(instant, int) else instant, 0)
                    yield _view(packed, t_us)

    def video_length_us(self, video: Path) -> int:
        """From a video's first frame to the end of its last one, as long as the ones before it."""
        times = VideoFile(str(video)).times_us()
        if len(times) < 2:
            return 0
        return int(times[-1] - times[0] + np.median(np.diff(times)))


def _windows(first_us: int, spec: ClipSpec, stream: EventStream) -> Iterator[int | Placed]:
    """Ends of the windows that a recording without a video fills, as the runtime cuts them by default."""
    for end_us in edges_us(first_us, Fraction(1_000_000, spec.event.window_us)):
        yield end_us
        if stream.t_next_us is None:
            return


def _view(packed: Packed, t_us: int) -> PackedPair:
    pair = packed.pair
    return PackedPair(
        t_us,
        None if pair.rgb is None else packed.rgb_image,
        None if pair.event is None else packed.event_image,
    )
