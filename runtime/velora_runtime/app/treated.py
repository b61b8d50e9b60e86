"""The event camera's stream as a run takes it: from a time on, filtered, and laid onto the model's image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_edge.events.filters.filtered import FilteredStream

if TYPE_CHECKING:
    from velora_edge.bundle import Manifest
    from velora_edge.events.accumulate.registration import RegistrationMap
    from velora_edge.events.filters.filters import FilterChain
    from velora_edge.events.filters.treatment import Treatment
    from velora_runtime.app.run_sources import RunSources


@dataclass(frozen=True, slots=True)
class Treated:
    """What a treatment made of a run's events.

    Attributes:
        registration: from the sensor to the model's image; None without events.
        chain: the filters, none where none was asked for.
    """

    registration: RegistrationMap | None = None
    chain: FilterChain | None = None

    def count_dropped(self) -> dict[str, int]:
        """Events that filters have dropped so far, by the filter's name."""
        return {} if self.chain is None else self.chain.dropped


def begin_at(opened: RunSources, start_s: float) -> None:
    """Let recordings begin later, counted from the first event, or from the first frame without events.

    Args:
        opened: its stream is replaced.
        start_s: seconds; 0 changes nothing.

    Raises:
        InputError: if a camera is live.
    """
    if not start_s:
        return
    if opened.is_live:
        raise InputError("--start is for recordings: a live camera begins now", remedy="leave it out")
    reader, start_us = opened.reader, round(start_s * 1e6)
    if reader is not None and opened.stream is not None:
        opened.begins_us = opened.stream.t_next_us
        if opened.begins_us is not None:
            opened.stream.close()
            opened.start_us = opened.begins_us + start_us
            opened.stream = reader.stream_from(opened.start_us)
            if opened.stream.t_next_us is None:
                raise InputError(
                    f"--start {start_s:g} s is after the last event", path=reader.path, remedy="begin earlier"
                )
    elif opened.rgb is not None and len(times_us := opened.rgb.times_us()):
        opened.start_us = int(times_us[0]) + start_us


def treat_events(opened: RunSources, treatment: Treatment, manifest: Manifest) -> Treated:
    """Put filters before the stream, and find its way onto the model's image.

    The cap on the event rate is here for recordings only: of a live camera, whole packets are dropped before
    they cost anything.

    Args:
        opened: its stream is replaced where there are filters.
        treatment: what the user asked for.
        manifest: of the model: its image, and how pictures are laid onto it.

    Raises:
        InputError: if a file cannot be used, or there is no such filter.
    """
    stream = opened.stream
    if stream is None:
        return Treated()
    sensor = (stream.width, stream.height)
    view = treatment.view(sensor)
    registration = view.registration(
        manifest.image_size, manifest.rgb.fit if view.is_rgb else manifest.event.fit
    )
    if opened.live_events is not None:
        treatment = treatment.without_cap()
    chain = treatment.filter_chain(sensor)
    if chain.filters:
        opened.stream = FilteredStream(stream, chain)
    return Treated(registration, chain)
