"""Driver of iniVation's cameras and network streams: `inivation://[SERIAL]`, `inivation://HOST:PORT`.

Checked against dv-processing 2.0.4. Times are microseconds since 1970, set by the host as a camera is opened.
"""

from __future__ import annotations

import datetime
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import CameraError, ConfigError, MissingExtraError, install_line
from velora_runtime.cameras.feeds import READ_WAIT_S
from velora_runtime.ingest.packets import Decoded

if TYPE_CHECKING:
    from velora_runtime.cameras.camera_settings import InivationSettings
    from velora_runtime.cameras.feeds import LiveSetup

DEVICE_POLL_S = 0.001
_EDGES = {
    "EXTERNAL_SIGNAL_RISING_EDGE": 1,
    "EXTERNAL_SIGNAL_PULSE": 1,
    "EXTERNAL_SIGNAL_FALLING_EDGE": 0,
}
"""Trigger types that come from the input, and their polarity; others are the camera's own."""


class InivationEvents:
    """One camera, or one stream of events on the network. Single-threaded: the camera's thread.

    Args:
        text: what the user called it.
        setup: see `LiveSetup`.

    Raises:
        MissingExtraError: if dv-processing is not installed.
    """

    may_be_silent = True
    comes_back = True
    can_wait = False
    layout = None

    def __init__(self, text: str, setup: LiveSetup) -> None:
        try:
            import dv_processing  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise MissingExtraError("dv-processing", "inivation", text, error) from error
        self.name = text
        self.sensor = (0, 0)
        self._dv: Any = dv_processing
        self._settings = setup.settings.inivation
        self._input: Any = None
        self._reached_us = 0
        self._idle = threading.Event()

    def open(self) -> None:
        """Open the camera, or connect to the stream."""
        place = self.name.partition("://")[2]
        address = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", place)
        try:
            if address is not None:
                self._input = self._dv.io.NetworkReader(address[1].strip("[]"), int(address[2]))
            else:
                camera = self._dv.io.camera
                self._input = camera.open(place) if place else camera.open()
                configure(self._input, self._settings)
        except (RuntimeError, IndexError, ValueError) as error:
            raise CameraError(f"cannot be opened: {_first_line(error, place)}") from error
        size = self._input.getEventResolution() if self._input.isEventStreamAvailable() else None
        if size is None:
            raise CameraError("it gives no events; a stream of frames is no event camera")
        if self.sensor not in ((0, 0), (size[0], size[1])):
            raise CameraError(f"another camera is there now: {size[0]}x{size[1]}")
        self.sensor, self._reached_us = (size[0], size[1]), 0

    def read(self) -> Decoded | None:
        """The next events and edges; None if there were none in time."""
        for _ in range(round(READ_WAIT_S / DEVICE_POLL_S)):
            try:
                found = self._take()
                if found is None and not self._input.isRunning():
                    raise CameraError("it was unplugged, or the other side has gone")
            except RuntimeError as error:
                raise CameraError(f"it failed: {_first_line(error)}") from error
            if found is not None:
                return found
            self._idle.wait(DEVICE_POLL_S)
        return None

    def close(self) -> None:
        """Let go of it."""
        self._input = None

    def _take(self) -> Decoded | None:
        store = self._input.getNextEventBatch()
        edges = self._take_edges()
        reached_us = self._seek_us()
        if (store is None or store.isEmpty()) and not len(edges) and reached_us <= self._reached_us:
            return None
        batch = EventBatch.empty() if store is None or store.isEmpty() else as_batch(store, self.sensor)
        latest_us = int(batch.t_us[-1]) if len(batch) else 0
        self._reached_us = max(self._reached_us, reached_us, latest_us)
        return Decoded(batch, edges, max(latest_us, reached_us) or self._reached_us)

    def _take_edges(self) -> TriggerBatch:
        if not self._input.isTriggerStreamAvailable():
            return TriggerBatch.empty()
        found = [
            (trigger.timestamp, _EDGES[trigger.type.name])
            for trigger in self._input.getNextTriggerBatch() or ()
            if trigger.type.name in _EDGES
        ]
        if not found:
            return TriggerBatch.empty()
        times, polarities = zip(*found, strict=True)
        n = len(found)
        return TriggerBatch(np.array(times, np.int64), np.zeros(n, np.uint8), np.array(polarities, np.uint8))

    def _seek_us(self) -> int:
        """How far a camera has come, events or not; 0 where the input does not tell."""
        seek = getattr(self._input, "getEventSeekTime", None)
        return 0 if seek is None else int(seek())


def as_batch(store: Any, sensor: tuple[int, int]) -> EventBatch:
    """A dv-processing event store as arrays of our own, without events outside the sensor."""
    places = np.asarray(store.coordinates())
    batch = EventBatch(
        np.array(store.timestamps(), np.int64).reshape(-1),
        places[:, 0].astype(np.uint16),
        places[:, 1].astype(np.uint16),
        np.array(store.polarities(), np.uint8).reshape(-1),
    )
    is_inside = (batch.x < sensor[0]) & (batch.y < sensor[1])
    return batch if is_inside.all() else batch[is_inside]


def configure(camera: Any, settings: InivationSettings) -> None:
    """Bring a camera to the user's settings.

    Raises:
        ConfigError: if this model of camera has no such setting.
    """
    camera.setTimeInterval(datetime.timedelta(microseconds=settings.interval_us))
    if settings.roi is not None:
        roi = settings.roi
        camera.setCropArea((roi.x, roi.y, roi.width, roi.height))
    if hasattr(camera, "setDetectorRunning"):
        camera.setDetectorRisingEdges(settings.trigger_rising)
        camera.setDetectorFallingEdges(settings.trigger_falling)
        camera.setDetectorRunning(settings.trigger_rising or settings.trigger_falling)
    unknown = [name for name in settings.settings if not hasattr(camera, f"set{name}")]
    if unknown:
        known = sorted(name[3:] for name in dir(camera) if name.startswith("set"))
        raise ConfigError(
            [f"inivation.settings.{name}: this camera has {', '.join(known)}" for name in unknown]
        )
    for name, value in settings.settings.items():
        setter = getattr(camera, f"set{name}")
        try:
            setter(value)
        except (TypeError, RuntimeError) as error:
            raise ConfigError(
                [f"inivation.settings.{name}: {value!r} is refused: {_first_line(error)}"]
            ) from error


def list_inivation() -> list[str]:
    """Cameras that dv-processing sees, one source string each.

    Raises:
        ImportError: if it is not installed; says how to.
    """
    try:
        import dv_processing
    except ImportError as error:
        raise ImportError(install_line("inivation")) from error

    return [f"inivation://{found.serialNumber}" for found in dv_processing.io.camera.discover()]


def _first_line(error: BaseException, what: str = "") -> str:
    """The first line of a message of dv-processing that says something; the place in its source is none."""
    lines = [line.removeprefix("RuntimeError: ").strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not re.match(r"^/.*\(\d+\):", line)]
    if isinstance(error, IndexError):
        return "there is no camera"
    return re.sub(r"\s*\[system:.*", "", useful[0]) if useful else f"{type(error).__name__} {what}".strip()
