"""Event cameras by neuromorphic-drivers, without any SDK: `neuromorphic://[SERIAL]`.

EVK4, EVK3 HD, SilkyEvCam (VGA, HD), IDS uEye XCP-E and Lucid Triton hand out EVT3 words, which go into our
own kernels; DAVIS346 and DVXplorer are decoded by the package. A DAVIS's frames are an RGB source of the same
address, on the same clock. Checked against neuromorphic-drivers 0.18.2.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from velora_edge.console import RateLimitedNotes
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import CameraError, MissingExtraError, SourceError, install_line
from velora_runtime.cameras.camera_settings import check_bounds, make_configuration
from velora_runtime.cameras.feeds import READ_WAIT_S, Shot, WordLayout
from velora_runtime.ingest.packets import Decoded, Gap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_runtime.cameras.feeds import LiveSetup

SCHEME = "neuromorphic://"
FRAMES_KEPT = 8
CLEAR_READS = 512
"""Each is of 64 packets at most: the package's memory has 4096, and more come meanwhile."""
_WORDS = ("PROPHESEE_EVK4", "PROPHESEE_EVK3_HD", "CENTURYARKS_VGA", "LUCID_TRITON")
_FRAMES = "INIVATION_DAVIS346"
_RISING = (1, 2)
"""A DAVIS's edges: 0 falling, 1 rising, 2 a pulse."""

Kind = Literal["events", "frames"]


def import_drivers(source: str) -> Any:
    """The package.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import neuromorphic_drivers  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("neuromorphic-drivers", "cameras", source) from error
    return neuromorphic_drivers


@dataclasses.dataclass(slots=True)
class LinkCounts:
    """What became of the packets between the camera and us; written by whichever thread reads.

    Attributes:
        backlog: packets that waited when the last one was read.
        backlog_peak: the most of them so far.
        cleared: packets that had waited for too long, and were let go of unread.
        overrun: packets that the package let go of, as its own memory was full.
    """

    backlog: int = 0
    backlog_peak: int = 0
    cleared: int = 0
    overrun: int = 0


class _Connection:
    """One open camera, for the feed of its events, that of its frames, or both.

    `read` is called by each feed's thread: that of the events reads the camera, and that of the frames where
    there is no other.
    """

    def __init__(self, source: str, setup: LiveSetup) -> None:
        self.counts = LinkCounts()
        self.users: set[Kind] = set()
        self.is_lost = False
        self._nd, self._settings = import_drivers(source), setup.settings.neuromorphic
        self._rare, self._source = RateLimitedNotes(setup.note, setup.clock.now_us), source
        self._waiting: dict[Kind, deque[Any]] = {"events": deque(), "frames": deque(maxlen=FRAMES_KEPT)}
        self._changed, self._reading = threading.Condition(), threading.Lock()
        self._dropped = 0
        listed = _find(self._nd, source)
        self.model: str = listed.name.name
        configuration = make_configuration(getattr(self._nd, self.model.lower()), self._settings)
        try:
            self._device = self._nd.open(
                configuration,
                iterator_timeout=READ_WAIT_S,
                raw=self.model in _WORDS,
                serial=listed.serial,
            )
        except RuntimeError as error:
            raise CameraError(f"cannot be opened: {error}") from error
        try:
            check_bounds(self._device.biases_bounds(), self._settings)
        except BaseException:
            self._device.close()
            raise
        properties = self._device.properties()
        self.size = int(properties.width), int(properties.height)

    def read(self, kind: Kind) -> Any:
        """What comes next of one kind; None if nothing came in time.

        Raises:
            CameraError: if the camera is gone.
        """
        waiting = self._waiting[kind]
        if kind == "frames" and "events" in self.users:
            with self._changed:
                self._changed.wait_for(lambda: waiting or self.is_lost, READ_WAIT_S)
        elif not waiting:
            with self._reading:
                self._read_device()
        if not waiting and self.is_lost:
            raise CameraError("it was unplugged")
        return waiting.popleft() if waiting else None

    def close(self) -> None:
        """Let go of the camera."""
        self.is_lost = True
        with self._reading:
            self._device.close()

    def _read_device(self) -> None:
        if self.is_lost:
            return
        try:
            status, packet = next(self._device)
            ring = status.ring
            if ring is None:
                return
            self._keep(packet, status)
            self._count(ring)
            if status.delay() * 1000 > self._settings.longest_delay_ms:
                self._clear()
        except (RuntimeError, StopIteration) as error:
            self.is_lost = True
            raise CameraError(f"it failed: {str(error) or 'its stream ended'}") from error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _count(self, ring: Any) -> None:
        counts = self.counts
        counts.backlog = ring.backlog
        counts.backlog_peak = max(counts.backlog_peak, ring.backlog)
        counts.overrun += ring.dropped_packets - self._dropped
        self._dropped = ring.dropped_packets

    def _clear(self) -> None:
        """Let go of what has waited for too long: what is seen now matters, and the rest only grows older.

        Read and not looked at, for the package's `clear_backlog` does not tell how many packets it let go of.
        """
        cleared, before = 0, self.counts.overrun
        for _ in range(CLEAR_READS):
            if not self.counts.backlog or (ring := next(self._device)[0].ring) is None:
                break
            cleared += ring.raw_packets
            self._count(ring)
        self.counts.cleared += cleared
        if cleared:
            self._put(Gap(cleared + self.counts.overrun - before))
            line = f"{self._source}: the host was too slow: {cleared} packets of the camera were cleared"
            self._rare("slow", line)

    def _keep(self, packet: Any, status: Any) -> None:
        if self.model in _WORDS:
            if packet:
                self._keep_words(packet, status.ring)
            return
        if packet is None:
            return
        self._put(_decode(packet, self.size, status.ring.current_t))
        if "frames" in self.users:
            self._waiting["frames"].extend(map(_as_shot, getattr(packet, "frames", ())))

    def _keep_words(self, words: bytes, ring: Any) -> None:
        """Keep words, cut where the package let go of some before them."""
        begin, lost = 0, ring.dropped_packets - self._dropped
        for place in ring.overflow_indices or ():
            if place > begin:
                self._put(words[begin:place])
            self._put(Gap(lost))
            begin, lost = place, 0
        self._put(words[begin:])

    def _put(self, item: bytes | Decoded | Gap) -> None:
        if "events" in self.users:
            self._waiting["events"].append(item)


_OPEN: dict[str, _Connection] = {}
"""Cameras in use, by address: the feed of a camera's events and that of its frames share it."""
_OPENING = threading.Lock()


class _Feed:
    """What the feeds have in common: their part of a connection. Single-threaded: the camera's thread.

    Args:
        text: what the user called it; the same for a camera's events and its frames.
        setup: see `LiveSetup`.

    Raises:
        MissingExtraError: if neuromorphic-drivers is not installed.
    """

    may_be_silent = True
    comes_back = True
    can_wait = False
    kind: Kind = "events"

    def __init__(self, text: str, setup: LiveSetup) -> None:
        import_drivers(text)
        self.name = text
        self._setup = setup
        self._connection: _Connection | None = None

    def open(self) -> None:
        """Open the camera, or join the feed that has."""
        with _OPENING:
            connection = _OPEN.get(self.name)
            if connection is None or connection.is_lost or self.kind in connection.users:
                connection = _OPEN[self.name] = _Connection(self.name, self._setup)
            connection.users.add(self.kind)
        self._connection = connection
        try:
            self._join(connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; the camera is closed with the last feed, or when it is gone."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with _OPENING:
            connection.users.discard(self.kind)
            if connection.is_lost or not connection.users:
                connection.close()
                if _OPEN.get(self.name) is connection:
                    del _OPEN[self.name]

    def _join(self, connection: _Connection) -> None:
        """Take the connection for one's own.

        Raises:
            CameraError: if it is another camera's.
            SourceError: if it gives nothing of this kind.
        """

    def _read(self) -> Any:
        if self._connection is None:
            raise CameraError("it is closed")
        return self._connection.read(self.kind)


class NeuromorphicEvents(_Feed):
    """The events of one camera. Single-threaded: the camera's thread.

    Attributes:
        link: what became of the camera's packets, over all connections.
    """

    def __init__(self, text: str, setup: LiveSetup) -> None:
        super().__init__(text, setup)
        self.sensor = (0, 0)
        self.layout: WordLayout | None = None
        self.link = LinkCounts()

    def read(self) -> bytes | Decoded | Gap | None:
        """The next words, or events; or that some are missing."""
        found: bytes | Decoded | Gap | None = self._read()
        return found

    def _join(self, connection: _Connection) -> None:
        if self.sensor not in ((0, 0), connection.size):
            width, height = connection.size
            raise CameraError(f"another camera is there now: {width}x{height}")
        self.sensor = connection.size
        self.layout = WordLayout("EVT3") if connection.model in _WORDS else None
        self.may_be_silent = self.layout is None  # words of the time come whatever is seen
        connection.counts, connection._dropped = self.link, 0


class NeuromorphicFrames(_Feed):
    """The frames of a DAVIS346, grey as RGB, on its events' clock. Single-threaded: the camera's thread."""

    may_be_silent = False
    kind: Kind = "frames"

    def __init__(self, text: str, setup: LiveSetup) -> None:
        super().__init__(text, setup)
        self.size = (0, 0)

    def read(self) -> Shot | None:
        """The next frame."""
        found: Shot | None = self._read()
        return found

    def _join(self, connection: _Connection) -> None:
        if connection.model != _FRAMES:
            raise SourceError(
                f"this camera ({connection.model}) takes no pictures; a DAVIS346 does",
                path=self.name,
                remedy="give another camera to --rgb",
            )
        self.size = connection.size


def list_neuromorphic() -> list[str]:
    """Cameras that the package sees, one source string each.

    Raises:
        ImportError: if it is not installed; says how to. RuntimeError: if there are some, and none is usable.
    """
    try:
        listed = _list(import_drivers(SCHEME))
    except MissingExtraError as error:
        raise ImportError(install_line("cameras")) from error
    usable = [f"{SCHEME}{one.serial}" for one in listed if one.error is None and one.serial]
    if listed and not usable:
        raise RuntimeError(f"{listed[0].error or 'it tells no serial number'}: velora cameras --install-udev")
    return usable


def list_davis() -> list[str]:
    """Those of them that take pictures, likewise."""
    listed = _list(import_drivers(SCHEME))
    return [f"{SCHEME}{one.serial}" for one in listed if one.name.name == _FRAMES and one.error is None]


def _list(nd: Any) -> list[Any]:
    """Cameras; none where there is no USB at all, which the package tells as an error without a name."""
    try:
        return list(nd.list_devices())
    except RuntimeError as error:
        if str(error) == "Other error":
            return []
        raise


def _find(nd: Any, source: str) -> Any:
    """The camera that a source string names: the one of this serial number, or the first.

    Raises:
        CameraError: if it is not there, or nobody may use it.
    """
    serial = source.partition("://")[2]
    try:
        listed = [one for one in _list(nd) if not serial or one.serial in (serial, None)]
    except RuntimeError as error:
        raise CameraError(f"USB cannot be asked: {error}") from error
    usable = [one for one in listed if one.error is None and one.serial is not None]
    if usable:
        return usable[0]
    if listed:
        raise CameraError(f"cannot be used: {listed[0].error}; try velora cameras --install-udev")
    raise CameraError(f"no camera {serial} that neuromorphic-drivers knows".replace("  ", " "))


def _decode(packet: Any, sensor: tuple[int, int], reached_us: int) -> Decoded:
    """A packet of structured arrays as arrays of our own, without events outside the sensor."""
    batch = _as_batch(packet.polarity_events, sensor)
    latest_us = int(batch.t_us[-1]) if len(batch) else 0
    return Decoded(batch, _as_edges(packet.trigger_events), max(reached_us, latest_us))


def _as_batch(events: NDArray[Any] | None, sensor: tuple[int, int]) -> EventBatch:
    if events is None or not len(events):
        return EventBatch.empty()
    batch = EventBatch(
        *(events[name].astype(kind) for name, kind in (("t", "i8"), ("x", "u2"), ("y", "u2"), ("on", "u1")))
    )
    is_inside = (batch.x < sensor[0]) & (batch.y < sensor[1])
    return batch if is_inside.all() else batch[is_inside]


def _as_edges(edges: NDArray[Any] | None) -> TriggerBatch:
    if edges is None or not len(edges):
        return TriggerBatch.empty()
    names = edges.dtype.names or ()
    is_rising = edges["rising"] if "rising" in names else np.isin(edges["polarity"], _RISING)
    return TriggerBatch(edges["t"].astype(np.int64), edges["id"].astype(np.uint8), is_rising.astype(np.uint8))


def _as_shot(frame: Any) -> Shot:
    """A frame, at the middle of its exposure; its 10 bits are the upper ones of 16."""
    begin, end = frame.exposure_start_t, frame.exposure_end_t
    t_us = frame.t if begin is None or end is None else (begin + end) // 2
    pixels = frame.pixels
    return Shot(lambda: np.repeat((pixels >> 8).astype(np.uint8)[:, :, None], 3, axis=2), int(t_us))
