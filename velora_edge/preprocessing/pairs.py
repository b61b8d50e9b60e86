"""Pairs of a recording: each picture with the events before it, packed as the runtime packs them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from velora_edge.bundle import EventInput
from velora_edge.clock import SystemClock
from velora_edge.errors import InputError
from velora_edge.manifest import RGBInput
from velora_edge.preprocessing.folder import is_recording
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.sources import NONE
from velora_edge.preprocessing.sync import SyncOptions, choose_sync, parse_mode
from velora_edge.preprocessing.windows import SteadyEdges, WindowRule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from velora_edge.datatypes import FitMode, FramePair
    from velora_edge.events.base import EventReader, EventStream
    from velora_edge.preprocessing.packer import PairForm
    from velora_edge.preprocessing.sources import RGBSource
    from velora_edge.preprocessing.sync import AlignedFrame

    PairTimes = Iterator[tuple[int, AlignedFrame | None]]


@dataclass(frozen=True, slots=True)
class _Form:
    """See `velora_edge.preprocessing.packer.PairForm`."""

    image_size: tuple[int, int]
    event: EventInput
    rgb: RGBInput


def pairs(
    recording: str | PathLike[str],
    rgb: str | PathLike[str] | None = None,
    size: tuple[int, int] | None = None,
    *,
    window_us: int = 33_333,
    representation: str = "polarity",
    fit: FitMode = "crop",
    sync: str = "auto",
    trigger_id: int | None = None,
    trigger_edge: Literal["rising", "falling"] = "rising",
    sensor: tuple[int, int] | None = None,
) -> Iterator[FramePair]:
    """Pictures of a recording, each with the frame of the events before it, as `velora-live` pairs them.

    ```python
    import velora_edge

    for pair in velora_edge.pairs("recording.raw", "video.mp4", (224, 224), sync="trigger"):
        print(pair.t_us, pair.skew_us, pair.rgb.image.shape, pair.event.image.shape, pair.event.events)
    ```

    Args:
        recording: an event file, or a folder that `--record` wrote, which brings its video.
        rgb: a video, a folder of images with `timestamps.txt`, or an AEDAT4 file with frames; None: the
            folder's video, and without one the events alone, in windows of one length.
        size: height and width of both images; None: each camera's own.
        window_us: the longest window; without pictures, the length of all.
        representation: polarity, counts, time_surface, voxel_grid or a plugin's.
        fit: how pictures are brought to another shape.
        sync: auto, timestamps, trigger, or offset=US; see `docs/guides/synchronisation.md`.
        trigger_id: the event camera's trigger input; None: the one with the most edges.
        trigger_edge: the edge that stands for a picture.
        sensor: width and height, for event files that do not tell.

    Returns:
        Pairs in time order. The event frame is None outside the event recording, uint8[H, W, 3] within.

    Raises:
        InputError: if the window has no length, or the two cannot be brought into step.
        ConfigError: if there is no such representation.
        RecordingError: if a file cannot be used.
        SourceError: if there is no such file.
    """
    if window_us <= 0:
        raise InputError(f"window_us: expected a length in microseconds above 0, got {window_us}")
    mode, _ = parse_mode(sync)
    if mode == "host":
        raise InputError(
            "sync: host is for live cameras", remedy="use auto, timestamps, trigger or offset=US"
        )
    events, video = str(recording), NONE if rgb is None else str(rgb)
    if rgb is None and is_recording(events):
        video = events
    return _pairs(
        events,
        video,
        size,
        EventInput(representation=representation, window_us=window_us, fit=fit),
        RGBInput(fit=fit),
        SyncOptions(sync, trigger_id, trigger_edge),
        sensor,
    )


def _pairs(
    events: str,
    video: str,
    size: tuple[int, int] | None,
    event: EventInput,
    rgb: RGBInput,
    sync: SyncOptions,
    sensor: tuple[int, int] | None,
) -> Iterator[FramePair]:
    reader = open_event_source(events, sensor)
    if reader is None:
        raise InputError("expected a recording of events, got none")
    with reader:
        form = _Form(size or (reader.height, reader.width), event, rgb)
        source = open_rgb_source(video)
        try:
            for pair in walk_pairs(reader, source, form, sync):
                yield _copy(pair, is_resized=size is not None)
        finally:
            if source is not None:
                source.close()


def walk_pairs(
    reader: EventReader, rgb: RGBSource | None, form: PairForm, sync: SyncOptions, *, lead: int = 0
) -> Iterator[Pair]:
    """All pairs of a recording in time order, by the runtime's packer, windows and synchronisation.

    Args:
        reader: the events.
        rgb: the pictures; None: windows follow each other.
        form: of the images.
        sync: how pictures find their time.
        lead: windows of a long gap that are made before the rest is passed over.

    Returns:
        The same pair again and again, each time with other content: copy what is to be kept.

    Raises:
        InputError: if the two cannot be brought into step.
        RecordingError: if a file cannot be used.
    """
    with reader.stream() as stream:
        first_us = stream.t_next_us
        if first_us is None:
            return
        rule = WindowRule(form.event.window_us, first_us if rgb is None else None)
        packer = Packer(form, stream, rule, SystemClock())
        packed = Pair.empty(form.image_size)
        if rgb is None:
            times = _even_times(stream, first_us, form.event.window_us, lead)
        else:
            times = _frame_times(reader, rgb, first_us, sync)
        for t_us, placed in times:
            if packer.accepts(t_us):
                packer.pack_into(packed, t_us, placed, 0)
                yield packed


def _even_times(stream: EventStream, first_us: int, window_us: int, lead: int) -> PairTimes:
    """Ends of the windows that a recording without pictures fills, as the runtime cuts them by default."""
    for end_us in SteadyEdges(first_us, Fraction(1_000_000, window_us), lambda: stream.t_next_us, lead=lead):
        yield end_us, None
        if stream.t_next_us is None:
            return


def _frame_times(reader: EventReader, rgb: RGBSource, first_us: int, options: SyncOptions) -> PairTimes:
    """Pictures on the event clock, with their times."""
    sync = choose_sync(options, rgb, reader, first_us)
    for frame in rgb:
        placed = sync.place(frame)
        if placed is not None:
            yield placed.t_us, placed


def _copy(packed: Pair, *, is_resized: bool) -> FramePair:
    """The pair with images of its own."""
    pair = packed.frames
    event = None if pair.event is None else replace(pair.event, image=packed.event_image.copy())
    rgb = pair.rgb
    if rgb is not None and is_resized:
        rgb = replace(rgb, image=packed.rgb_image.copy())
    return replace(pair, rgb=rgb, event=event)
