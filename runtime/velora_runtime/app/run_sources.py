"""Sources of a run, live or recorded: opened, preprocessed, started, synchronised and closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from velora_edge.errors import InputError, SourceError
from velora_edge.events.filters.event_preprocessing import FilteredStream
from velora_edge.preprocessing.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.sync import SyncOptions, choose_sync
from velora_edge.preprocessing.windows import SteadyEdges
from velora_runtime.cameras.camera_settings import CameraSettings, read_camera_settings
from velora_runtime.cameras.drivers.registry import EMULATE, open_live_events, open_live_rgb
from velora_runtime.cameras.feeds import LiveSetup, Patience

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from fractions import Fraction

    from velora_edge.bundle import Manifest
    from velora_edge.clock import Clock
    from velora_edge.events.accumulate.representations import RegistrationMap
    from velora_edge.events.base import Encoding, EventReader, EventStream
    from velora_edge.events.filters.event_preprocessing import EventPreprocessing
    from velora_edge.events.filters.filters import FilterChain
    from velora_edge.preprocessing.sources import RGBSource
    from velora_edge.preprocessing.sync import Sync
    from velora_runtime.cameras.live_events import EmulatedStream, LiveEvents
    from velora_runtime.cameras.live_rgb import LiveRGB
    from velora_runtime.pipeline.frame_source import Pace, RunInputs
    from velora_runtime.report import Delivery


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options of live cameras; `velora-live --help` explains each.

    Attributes:
        encoding: of raw words without a header.
        settings: path of the cameras' settings, or None.
        rate_cap: events a second that are let through; None: all.
        retry_s: how long a lost camera is tried again; None: for ever.
    """

    encoding: Encoding | None = None
    settings: str | None = None
    rate_cap: float | None = None
    retry_s: float | None = None


@dataclass(slots=True)
class RunSources:
    """Sources of a run. Single-threaded: the main thread.

    Attributes:
        reader: the event recording, or None.
        live_events: the live event camera, or None.
        emulated: events made of the RGB camera's pictures, or None.
        rgb: the RGB source, or None.
        live_rgb: the same where it is a live camera.
        stream: the events of whichever of the first three there is, from their beginning.
        settings: of the cameras.
    """

    reader: EventReader | None = None
    live_events: LiveEvents | None = None
    emulated: EmulatedStream | None = None
    rgb: RGBSource | None = None
    live_rgb: LiveRGB | None = None
    stream: EventStream | None = None
    settings: CameraSettings = field(default_factory=CameraSettings)

    @property
    def is_live(self) -> bool:
        """Whether one of the cameras is live."""
        return self.live_events is not None or self.live_rgb is not None

    def start(self) -> None:
        """Start live cameras, once everything else is ready.

        Raises:
            SourceError: if the event camera gives nothing.
        """
        if self.live_rgb is not None:
            self.live_rgb.start(hurry=self.live_events is not None)
        if self.live_events is not None:
            self.live_events.start(self.live_rgb)

    def warnings(self) -> list[str]:
        """Warnings, one sentence each; complete at the end of the run."""
        found = [*(self.reader.warnings if self.reader else ()), *(self.rgb.warnings if self.rgb else ())]
        return found + (self.live_events.warnings() if self.live_events else [])

    def as_dict(self) -> dict[str, Any]:
        """State and counts of live cameras, for the summary."""
        cameras = {"rgb": self.live_rgb, "event": self.live_events}
        return {name: camera.as_dict() for name, camera in cameras.items() if camera is not None}

    def deliveries(self) -> list[Callable[[], Delivery]]:
        """What tells of each live camera how much it has delivered, the event camera first."""
        return [camera.delivery for camera in (self.live_events, self.live_rgb) if camera is not None]

    def close(self) -> None:
        """Close all sources."""
        for source in (self.stream, self.live_events, self.reader, self.rgb):
            if source is not None:
                source.close()


def open_sources(
    events: str,
    rgb: str,
    sensor: tuple[int, int] | None,
    pace: Pace,
    live: LiveOptions,
    clock: Clock,
    stop: threading.Event,
    note: Callable[[str], None],
) -> RunSources:
    """Open what the user named.

    Args:
        events: the event source.
        rgb: the RGB source.
        sensor: width and height, where the source does not tell.
        pace: at max, live byte streams wait for their reader.
        live: of live cameras.
        clock: the host's.
        stop: ends waiting, and the run.
        note: gets lines for people, from any thread.

    Raises:
        InputError: if one of them cannot be used, or they cannot be brought together.
    """
    retry_us = None if live.retry_s is None else round(live.retry_s * 1e6)
    settings = read_camera_settings(live.settings)
    setup = LiveSetup(
        clock,
        stop,
        note,
        sensor,
        live.encoding,
        settings,
        live.rate_cap,
        Patience(retry_us=retry_us),
        pace == "max",
    )
    opened = RunSources(settings=settings)
    try:
        _open_rgb(opened, rgb, setup)
        _open_events(opened, events, setup)
        _check(opened, events, rgb)
    except BaseException:
        opened.close()
        raise
    return opened


def _open_rgb(opened: RunSources, text: str, setup: LiveSetup) -> None:
    opened.rgb = opened.live_rgb = open_live_rgb(text, setup)
    if opened.rgb is None:
        opened.rgb = open_rgb_source(text)


def _open_events(opened: RunSources, text: str, setup: LiveSetup) -> None:
    if text == EMULATE:
        from velora_runtime.cameras.live_events import EmulatedStream

        if opened.rgb is None:
            raise InputError(
                "--events emulate makes events of the RGB camera's pictures", remedy="give --rgb"
            )
        opened.stream = opened.emulated = EmulatedStream(opened.rgb, setup.settings.emulate)
        return
    opened.live_events = open_live_events(text, setup)
    if opened.live_events is not None:
        opened.stream = opened.live_events.stream
        return
    opened.reader = open_event_source(text, setup.sensor)
    opened.stream = None if opened.reader is None else opened.reader.stream()


def _check(opened: RunSources, events: str, rgb: str) -> None:
    if opened.live_rgb is not None and opened.reader is not None:
        raise SourceError(
            f"a live RGB camera ({rgb}) has nothing to do with a recording",
            path=events,
            remedy="give two live cameras or two recordings",
        )


def choose_inputs(
    opened: RunSources,
    begun: Begun,
    events: RunEvents,
    sync: SyncOptions,
    rate_hz: Fraction,
    clip_pairs: int,
    duration_us: int | None,
    clock: Clock,
    stop: threading.Event,
    note: Callable[[str], None],
) -> RunInputs:
    """Choose when pairs are made.

    Args:
        opened: the sources; live ones have begun to deliver.
        begun: where they begin.
        events: the events, as they are packed.
        sync: how the user wants frames to find their time.
        rate_hz: windows a second where there are only events, or while the RGB camera is away.
        clip_pairs: pairs from the first to the last of a clip: so many windows of a long gap are made.
        duration_us: of the run, or None.
        clock: the host's.
        stop: ends the run.
        note: gets a line about the choice.

    Raises:
        InputError: if the sources cannot be brought into step in that way.
    """
    from velora_runtime.pipeline.frame_source import LiveInstants, RunInputs

    stream = events.stream
    first_us = None if stream is None else stream.t_next_us
    if opened.rgb is None:
        next_event_us = None if stream is None or opened.is_live else lambda: stream.t_next_us
        edges = SteadyEdges(first_us or 0, rate_hz, next_event_us, lead=clip_pairs)
        return RunInputs(
            None,
            None,
            edges,
            duration_us,
            is_live=opened.is_live,
            count_filtered=events.count_dropped,
        )
    recorded_us = first_us if begun.recorded_us is None else begun.recorded_us
    way = _choose_sync(opened, sync, recorded_us, clock, stop, note)
    if stream is not None and opened.emulated is None:
        note(f"synchronised {way.line}")
    instants = None
    if opened.live_rgb is not None:
        stands_in = None if opened.live_events is None else opened.live_events.stream
        window_us = round(1_000_000 / rate_hz)
        instants = LiveInstants(opened.live_rgb, stands_in, window_us, clock, stop)
    return RunInputs(
        opened.rgb,
        way,
        None,
        duration_us,
        instants,
        is_live=opened.is_live,
        start_us=begun.start_us,
        watches_all=None if opened.emulated is None else opened.emulated.see,
        count_filtered=events.count_dropped,
    )


def _choose_sync(
    opened: RunSources,
    options: SyncOptions,
    first_us: int | None,
    clock: Clock,
    stop: threading.Event,
    note: Callable[[str], None],
) -> Sync:
    assert opened.rgb is not None
    if opened.live_rgb is not None and opened.live_events is not None:
        from velora_runtime.cameras.live_sync import choose_live_sync

        delay_us = opened.settings.rgb.delay_us
        return choose_live_sync(options, opened.live_rgb, opened.live_events, delay_us, clock, stop, note)
    if opened.live_events is not None and options.mode in ("trigger", "host"):
        raise InputError(
            f"--sync {options.mode} needs a live RGB camera beside the live event camera",
            remedy="use --sync timestamps or offset=US",
        )
    return choose_sync(options, opened.rgb, opened.reader, first_us)


@dataclass(frozen=True, slots=True)
class Begun:
    """Start of a run's sources.

    Attributes:
        stream: the events from there on; None without any.
        start_us: frames before it are left out; None: none is.
        recorded_us: time of the recording's first event, where the stream begins later.
    """

    stream: EventStream | None
    start_us: int | None = None
    recorded_us: int | None = None


def begin_at(opened: RunSources, start_s: float) -> Begun:
    """Let recordings begin later, counted from the first event, or from the first frame without events.

    Args:
        opened: its event stream is closed where another one begins later.
        start_s: seconds; 0 changes nothing.

    Raises:
        InputError: if a camera is live.
    """
    if not start_s:
        return Begun(opened.stream)
    if opened.is_live:
        raise InputError("--start is for recordings: a live camera begins now", remedy="leave it out")
    reader, offset_us = opened.reader, round(start_s * 1e6)
    if reader is not None and opened.stream is not None:
        recorded_us = opened.stream.t_next_us
        if recorded_us is None:
            return Begun(opened.stream)
        opened.stream.close()
        stream = reader.stream_from(recorded_us + offset_us)
        if stream.t_next_us is None:
            stream.close()
            raise InputError(
                f"--start {start_s:g} s is after the last event", path=reader.path, remedy="begin earlier"
            )
        return Begun(stream, recorded_us + offset_us, recorded_us)
    if opened.rgb is not None and len(times_us := opened.rgb.times_us()):
        return Begun(opened.stream, int(times_us[0]) + offset_us)
    return Begun(opened.stream)


@dataclass(frozen=True, slots=True)
class RunEvents:
    """A run's events as they are packed.

    Attributes:
        stream: behind the filters; None without events.
        registration: from the sensor to the model's image; None without events.
        chain: the filters, none where none was asked for.
    """

    stream: EventStream | None = None
    registration: RegistrationMap | None = None
    chain: FilterChain | None = None

    def count_dropped(self) -> dict[str, int]:
        """Events that filters have dropped so far, by the filter's name."""
        return {} if self.chain is None else self.chain.dropped

    def close(self) -> None:
        """Let go of files and devices."""
        if self.stream is not None:
            self.stream.close()


def preprocess_events(
    stream: EventStream | None, preprocessing: EventPreprocessing, manifest: Manifest, *, is_live: bool
) -> RunEvents:
    """Put filters before a stream, and make its registration map to the model's image.

    The cap on the event rate is here for recordings only: of a live camera, whole packets are dropped before
    they cost anything.

    Args:
        stream: the events; None without any.
        preprocessing: what the user asked for.
        manifest: of the model: its image, and how pictures are laid onto it.
        is_live: they are a live camera's.

    Raises:
        InputError: if a file cannot be used, or there is no such filter.
    """
    if stream is None:
        return RunEvents()
    sensor = (stream.width, stream.height)
    view = preprocessing.view(sensor)
    registration = view.registration(
        manifest.image_size, manifest.rgb.fit if view.is_rgb else manifest.event.fit
    )
    chain = (preprocessing.without_cap() if is_live else preprocessing).filter_chain(sensor)
    return RunEvents(FilteredStream(stream, chain) if chain.filters else stream, registration, chain)
