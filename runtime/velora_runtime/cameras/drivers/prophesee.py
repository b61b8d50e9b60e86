"""Driver of Prophesee's cameras by the Metavision SDK or OpenEB, 4.x and 5.x: `prophesee://[SERIAL]`.

The SDK comes from Prophesee's installer, not from the index, so it is looked for when it is used. Up to 4.4
HAL hands out a buffer's bytes, which go into our own kernels; from 4.5 on a buffer is opaque to Python, and
the SDK's decoder makes events of it. (Signatures: OpenEB 4.0.0 to 5.1.1, hal/python/bindings.)

`wait_next_buffer` is not used: it holds Python's lock while it waits, and all other threads with it.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import CameraError, ConfigError, SourceError
from velora_runtime.cameras.feeds import OPEN_WAIT_S, READ_WAIT_S, WordLayout
from velora_runtime.ingest.packets import Decoded

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding
    from velora_runtime.cameras.camera_settings import PropheseeSettings
    from velora_runtime.cameras.feeds import LiveSetup

INSTALL_PAGE = "https://docs.prophesee.ai/stable/installation/index.html"
DEVICE_POLL_S = 0.001
_ENCODINGS: dict[str, Encoding] = {"EVT2": "EVT2", "EVT3": "EVT3"}
"""Of which the words can be walked as they are; EVT2.1's order of halves is known to the SDK alone."""


def import_hal(source: str) -> Any:
    """The SDK's module.

    Raises:
        SourceError: if it is not installed, or for another Python.
    """
    try:
        return importlib.import_module("metavision_hal")
    except ImportError as error:
        raise SourceError(
            f"needs the Metavision SDK's Python module metavision_hal ({error})",
            path=source,
            remedy=f"install the SDK or OpenEB for this Python: {INSTALL_PAGE}",
        ) from error


class PropheseeEvents:
    """One camera. Single-threaded: the camera's thread.

    Args:
        text: what the user called it.
        setup: see `LiveSetup`.

    Raises:
        SourceError: if the SDK is not installed.
    """

    may_be_silent = False
    comes_back = True
    can_wait = False

    def __init__(self, text: str, setup: LiveSetup) -> None:
        self.name, self.sensor = text, (0, 0)
        self.layout: WordLayout | None = None
        self._hal = import_hal(text)
        self._settings = setup.settings.prophesee
        self._device: Any = None
        self._stream: Any = None
        self._decoder: Any = None
        self._first: Any = None
        self._events: list[Any] = []
        self._edges: list[Any] = []
        self._idle = threading.Event()

    def open(self) -> None:
        """Open the camera, bring it to the user's settings, and wait for its first buffer."""
        serial = self.name.partition("://")[2]
        try:
            self._device = self._hal.DeviceDiscovery.open(serial)
        except RuntimeError as error:
            raise CameraError(f"cannot be opened: {_first_line(error)}") from error
        if self._device is None:
            raise CameraError(f"no Prophesee camera {serial}".rstrip())
        try:
            self._begin()
        except RuntimeError as error:
            self.close()
            raise CameraError(f"it failed: {_first_line(error)}") from error
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes | Decoded | None:
        """The next buffer: its bytes, or its events."""
        try:
            buffer = self._next(READ_WAIT_S)
            if buffer is None:
                return None
            return buffer.tobytes() if self.layout is not None else self._decode(buffer)
        except RuntimeError as error:
            raise CameraError(f"it failed: {_first_line(error)}") from error

    def close(self) -> None:
        """Stop the camera and let go of it: HAL closes a device that nobody holds."""
        stream, self._stream, self._decoder, self._device = self._stream, None, None, None
        self._first = None
        if stream is not None:
            with contextlib.suppress(RuntimeError):  # it was unplugged: there is nothing to stop
                stream.stop()

    def _begin(self) -> None:
        geometry = self._device.get_i_geometry()
        sensor = geometry.get_width(), geometry.get_height()
        if self.sensor not in ((0, 0), sensor):
            raise CameraError(f"another camera is there now: {sensor[0]}x{sensor[1]}")
        self.sensor = sensor
        configure(self._hal, self._device, self._settings)
        self._stream = self._device.get_i_events_stream()
        self._stream.start()
        self._first = self._next(OPEN_WAIT_S)
        if self._first is None:
            raise CameraError(f"nothing came for {OPEN_WAIT_S:.0f} s")
        self.layout = self._find_layout(self._first)
        if self.layout is None:
            self._decoder = self._device.get_i_events_stream_decoder()
            self._device.get_i_event_cd_decoder().add_event_buffer_callback(self._take_events)
            triggers = self._device.get_i_event_ext_trigger_decoder()
            if triggers is not None:
                triggers.add_event_buffer_callback(self._take_edges)

    def _find_layout(self, buffer: Any) -> WordLayout | None:
        """How the buffer's bytes are to be read; None where HAL gives none, or only the SDK knows."""
        if not isinstance(buffer, np.ndarray):
            return None
        said = self._device.get_i_hw_identification().get_current_data_encoding_format()
        encoding = _ENCODINGS.get(str(said).partition(";")[0])
        return None if encoding is None else WordLayout(encoding)

    def _next(self, wait_s: float) -> Any:
        """The next buffer, which is valid until the one after it; None if there is none in time."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        for _ in range(round(wait_s / DEVICE_POLL_S)):
            answer = self._stream.poll_buffer()
            if answer < 0:
                raise CameraError("it was unplugged")
            if answer:
                return self._stream.get_latest_raw_data()
            self._idle.wait(DEVICE_POLL_S)
        return None

    def _decode(self, buffer: Any) -> Decoded:
        self._decoder.decode(buffer)
        events, self._events = self._events, []
        edges, self._edges = self._edges, []
        batch = _as_batch(events, self.sensor)
        reached_us = int(self._decoder.get_last_timestamp())
        latest_us = int(batch.t_us[-1]) if len(batch) else reached_us
        return Decoded(batch, _as_triggers(edges), max(reached_us, latest_us))

    def _take_events(self, events: Any) -> None:
        self._events.append(events)

    def _take_edges(self, edges: Any) -> None:
        self._edges.append(edges.copy())  # HAL's own memory, unlike the events


def configure(hal: Any, device: Any, settings: PropheseeSettings) -> None:
    """Bring a camera to the user's settings.

    Raises:
        ConfigError: with every setting that the camera does not have, or refuses.
    """
    problems = [
        *_set_biases(device, settings),
        *_set_roi(hal, device, settings),
        *_set_erc(device, settings),
        *_enable_triggers(hal, device, settings),
    ]
    if problems:
        raise ConfigError(problems)


def list_prophesee() -> list[str]:
    """Cameras that the SDK sees, one source string each.

    Raises:
        ImportError: if it is not installed; says how to.
    """
    try:
        hal = importlib.import_module("metavision_hal")
    except ImportError as error:
        raise ImportError(f"install the Metavision SDK: {INSTALL_PAGE}") from error
    return [f"prophesee://{serial}" for serial in hal.DeviceDiscovery.list()]


def _set_biases(device: Any, settings: PropheseeSettings) -> list[str]:
    if not settings.biases:
        return []
    facility = device.get_i_ll_biases()
    if facility is None:
        return ["prophesee.biases: this camera has none that can be set"]
    known, problems = facility.get_all_biases(), []
    for name, value in settings.biases.items():
        if name not in known:
            problems.append(f"prophesee.biases.{name}: this camera has {', '.join(sorted(known))}")
        elif reason := _refusal(lambda name=name, value=value: facility.set(name, value)):
            problems.append(f"prophesee.biases.{name}: {value} is refused{reason}")
    return problems


def _set_roi(hal: Any, device: Any, settings: PropheseeSettings) -> list[str]:
    if not settings.roi:
        return []
    facility = device.get_i_roi()
    if facility is None:
        return ["prophesee.roi: this camera has no regions"]
    most = facility.get_max_supported_windows_count()
    if len(settings.roi) > most:
        return [f"prophesee.roi: this camera has {most} regions at most, got {len(settings.roi)}"]
    windows = [hal.I_ROI.Window(r.x, r.y, r.width, r.height) for r in settings.roi]
    facility.set_mode(hal.I_ROI.Mode.ROI)
    reason = _refusal(lambda: facility.set_windows(windows)) or _refusal(lambda: facility.enable(True))
    return [f"prophesee.roi: refused{reason}"] if reason else []


def _set_erc(device: Any, settings: PropheseeSettings) -> list[str]:
    if settings.erc is None:
        return []
    facility = device.get_i_erc_module()
    if facility is None:
        return ["prophesee.erc: this camera has no event rate control"]
    rate = settings.erc.events_per_s
    if rate is not None and (reason := _refusal(lambda: facility.set_cd_event_rate(rate))):
        least, most = facility.get_min_supported_cd_event_rate(), facility.get_max_supported_cd_event_rate()
        return [f"prophesee.erc.events_per_s: {rate} is refused{reason}; this camera takes {least} to {most}"]
    reason = _refusal(lambda: facility.enable(settings.erc.enabled if settings.erc else False))
    return [f"prophesee.erc.enabled: refused{reason}"] if reason else []


def _enable_triggers(hal: Any, device: Any, settings: PropheseeSettings) -> list[str]:
    """Trigger inputs; that a camera has none is a problem only where others than the usual are asked for."""
    facility = device.get_i_trigger_in()
    is_usual = settings.trigger_in == ("main",)
    if facility is None:
        return [] if is_usual or not settings.trigger_in else ["prophesee.trigger_in: this camera has none"]
    # 4.0.0 has the channels beside the class.
    channels = getattr(hal.I_TriggerIn, "Channel", None) or hal.Channel
    problems = []
    for name in settings.trigger_in:
        reason = _refusal(lambda name=name: facility.enable(getattr(channels, name.upper())))
        if reason and not is_usual:
            problems.append(f"prophesee.trigger_in: {name} is refused{reason}")
    return problems


def _refusal(call: Any) -> str:
    """Why a call was refused, to be put after a word; empty where it was not."""
    try:
        answer = call()
    except (RuntimeError, ValueError) as error:
        return f": {_first_line(error)}"
    return " by the camera" if answer is False else ""


def _as_batch(arrays: list[Any], sensor: tuple[int, int]) -> EventBatch:
    """Arrays of the SDK's EventCD (x u2, y u2, p i2, t i8) as one batch, without those outside the sensor."""
    arrays = [array for array in arrays if len(array)]
    if not arrays:
        return EventBatch.empty()
    events = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    batch = EventBatch(
        events["t"].astype(np.int64),
        events["x"].astype(np.uint16),
        events["y"].astype(np.uint16),
        (events["p"] > 0).astype(np.uint8),
    )
    is_inside = (batch.x < sensor[0]) & (batch.y < sensor[1])
    return batch if is_inside.all() else batch[is_inside]


def _as_triggers(arrays: list[Any]) -> TriggerBatch:
    """Arrays of the SDK's EventExtTrigger (p i2, t i8, id i2) as one batch."""
    if not arrays:
        return TriggerBatch.empty()
    edges = np.concatenate(arrays)
    return TriggerBatch(
        edges["t"].astype(np.int64), edges["id"].astype(np.uint8), (edges["p"] > 0).astype(np.uint8)
    )


def _first_line(error: BaseException) -> str:
    """What an error of HAL says: its message comes in a frame of dashes, below its own name."""
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line.strip("-") and line != "Metavision HAL exception"]
    return useful[0] if useful else type(error).__name__
