"""Topics of ROS 2 as cameras, `ros2://TOPIC`: events of event_camera_msgs or dvs_msgs, and pictures.

Messages are taken as they were serialised, and read without ROS 2's own Python classes: raw words of a packet
go into our kernels, as those of a camera do. A packet's number tells what was lost on the way.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import CameraError, RecordingError, SourceError
from velora_edge.events.formats.ros_messages import (
    ARRAY_TYPES,
    COMPRESSED_TYPE,
    ENCODINGS,
    IMAGE_TYPE,
    PACKET_TYPES,
    WORD_ENCODINGS,
    PacketDecoder,
    parse_array,
    parse_compressed,
    parse_image,
    parse_packet,
)
from velora_edge.limits import check_picture
from velora_edge.vision import decode_picture
from velora_runtime.cameras.feeds import OPEN_WAIT_S, READ_WAIT_S, Shot, WordLayout
from velora_runtime.ingest.packets import Decoded, Gap
from velora_runtime.ros_node import Endpoint, RosNode, import_ros, parse_topic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.events.formats.ros_messages import EventPacket, Picture
    from velora_runtime.cameras.feeds import LiveSetup

PICTURES_KEPT = 4
"""Pictures that wait in ROS 2 for a host that is busy; newer ones take their place."""
MOST_DAMAGED = 300
"""Pictures in a row that cannot be decoded; after these, the topic is subscribed to anew."""


class _Topic(ABC):
    """What the feeds have in common: a subscription.

    Single-threaded: the camera's thread, which spins the node.

    Args:
        text: what the user called it.
        setup: see `LiveSetup`.

    Raises:
        InputError: if it is no topic, or ROS 2 is not there.
    """

    may_be_silent = True
    comes_back = True
    kinds: tuple[str, ...] = ()
    depth = PICTURES_KEPT
    node_name = "velora"

    def __init__(self, text: str, setup: LiveSetup) -> None:
        self.name, self._setup = text, setup
        self._topic = parse_topic(text)
        import_ros("rclpy", text)
        self._node: RosNode | None = None
        self._came: deque[bytes] = deque()
        self._kind = ""

    @abstractmethod
    def _begin(self, data: bytes) -> None:
        """Learn from the first message what it is; it is read again.

        Raises:
            CameraError: if it is not what came before the connection was lost.
            RecordingError: if it is damaged.
        """

    def open(self) -> None:
        """Subscribe, and wait for a publisher and its first message."""
        until_us = self._setup.clock.now_us() + round(OPEN_WAIT_S * 1e6)
        self._came.clear()
        self._node = RosNode(self.node_name, self.name)
        try:
            self._subscribe(self._node, self._find_publisher(self._node, until_us))
            self._begin(self._first(self._node, until_us))
        except RecordingError as error:
            self.close()
            raise CameraError(f"a message that cannot be read: {error.problem}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave ROS 2."""
        node, self._node = self._node, None
        if node is not None:
            node.close()

    def _receive(self) -> bytes | None:
        """The next message; None if none came in time."""
        if self._node is None:
            raise CameraError("it is closed")
        if not self._came:
            self._node.spin(READ_WAIT_S)
        if self._came:
            return self._came.popleft()
        if not self._node.endpoints(self._topic):
            raise CameraError("nobody publishes on it any more")
        return None

    def _take(self, data: bytes) -> None:
        self._came.append(bytes(data))

    def _find_publisher(self, node: RosNode, until_us: int) -> list[Endpoint]:
        while not (found := node.endpoints(self._topic)):
            if self._setup.clock.now_us() >= until_us or self._setup.stop.is_set():
                raise CameraError(f"nobody publishes on {self._topic}")
            node.spin(READ_WAIT_S)
        usable = [one for one in found if one.kind in self.kinds]
        if not usable:
            raise SourceError(
                f"expected messages of {' or '.join(self.kinds)}, the topic has "
                + ", ".join(sorted({one.kind for one in found})),
                path=self.name,
                remedy="choose another of ros2 topic list -t",
            )
        return usable

    def _subscribe(self, node: RosNode, publishers: list[Endpoint]) -> None:
        self._kind = publishers[0].kind
        asked = self._setup.settings.ros2.reliability
        is_reliable = all(one.is_reliable for one in publishers) if asked == "match" else asked == "reliable"
        node.subscribe(self._topic, self._kind, self._take, self.depth, is_reliable=is_reliable)

    def _first(self, node: RosNode, until_us: int) -> bytes:
        """The first message, which stays where it is."""
        while not self._came:
            if self._setup.clock.now_us() >= until_us or self._setup.stop.is_set():
                raise CameraError(f"nothing came for {OPEN_WAIT_S:.0f} s")
            node.spin(READ_WAIT_S)
        return self._came[0]


class Ros2Events(_Topic):
    """The events of one topic. Single-threaded: the camera's thread.

    Attributes:
        sensor: width and height, pixels, as packets tell.
        layout: of raw words; None where packets are decoded here.
    """

    can_wait = False
    kinds = (*PACKET_TYPES, *ARRAY_TYPES)
    node_name = "velora_events"

    def __init__(self, text: str, setup: LiveSetup) -> None:
        super().__init__(text, setup)
        self.sensor = (0, 0)
        self.layout: WordLayout | None = None
        self.depth = setup.settings.ros2.depth
        self._is_known = False
        self._seq: int | None = None
        self._decoder = PacketDecoder((0, 0))
        self._reached_us = 0
        self._items: deque[bytes | Decoded | Gap] = deque()

    def read(self) -> bytes | Decoded | Gap | None:
        """The next words, or events; or that packets are missing before them."""
        if not self._items:
            data = self._receive()
            if data is None:
                return None
            try:
                self._keep(data)
            except RecordingError as error:
                raise CameraError(f"a message that cannot be read: {error.problem}") from error
        return self._items.popleft()

    def _begin(self, data: bytes) -> None:
        sensor, encoding = self._look(data)
        if not (0 < sensor[0] <= 65536 and 0 < sensor[1] <= 65536):
            raise RecordingError(f"a sensor of {sensor[0]}x{sensor[1]} pixels")
        if encoding and encoding not in ENCODINGS:
            raise RecordingError(
                f"expected events encoded as one of {', '.join(ENCODINGS)}, got {encoding!r}"
            )
        layout = WordLayout(WORD_ENCODINGS[encoding]) if encoding in WORD_ENCODINGS else None
        if self._is_known and (sensor, layout) != (self.sensor, self.layout):
            raise CameraError(f"another camera is there now: {encoding or 'arrays'}, {sensor[0]}x{sensor[1]}")
        self.sensor, self.layout, self._is_known = sensor, layout, True
        self.may_be_silent = layout is None  # words of the time come whatever is seen
        self._seq, self._reached_us = None, 0
        self._decoder = PacketDecoder(sensor)
        self._items.clear()

    def _look(self, data: bytes) -> tuple[tuple[int, int], str]:
        """Sensor and encoding of a message; no encoding where it is an array of events."""
        if self._kind in ARRAY_TYPES:
            return parse_array(data, True)[:2], ""
        packet = parse_packet(data, True)
        return (packet.width, packet.height), packet.encoding.lower()

    def _keep(self, data: bytes) -> None:
        if self._kind in ARRAY_TYPES:
            self._put(parse_array(data, True)[2], TriggerBatch.empty())
            return
        packet = parse_packet(data, True)
        self._check(packet)
        if self._seq is not None and packet.seq > self._seq + 1:
            self._items.append(Gap(packet.seq - self._seq - 1))
        self._seq = packet.seq
        if self.layout is None:
            self._put(self._decoder.decode(packet), self._decoder.take_triggers())
        else:
            self._items.append(packet.payload)

    def _check(self, packet: EventPacket) -> None:
        """Whether a packet continues those before it.

        Raises:
            CameraError: if it does not: what it has is of another clock.
        """
        if self._seq is not None and packet.seq <= self._seq:
            raise CameraError(f"packet {packet.seq} came after {self._seq}: its publisher was started again")
        encoding = WORD_ENCODINGS.get(packet.encoding.lower())
        expected = None if self.layout is None else self.layout.encoding
        if (packet.width, packet.height, encoding) != (*self.sensor, expected):
            raise CameraError(
                f"another camera is there now: {packet.encoding}, {packet.width}x{packet.height}"
            )

    def _put(self, batch: EventBatch, edges: TriggerBatch) -> None:
        """Queue events in time order and inside the sensor, whatever the publisher says."""
        is_inside = (batch.x < self.sensor[0]) & (batch.y < self.sensor[1])
        batch = batch if is_inside.all() else batch[is_inside]
        if len(batch) and (np.diff(batch.t_us) < 0).any():
            order = np.argsort(batch.t_us, kind="stable")
            batch = EventBatch(batch.t_us[order], batch.x[order], batch.y[order], batch.p[order])
        times = [int(part.t_us[-1]) for part in (batch, edges) if len(part)]
        self._reached_us = max(self._reached_us, *times) if times else self._reached_us
        self._items.append(Decoded(batch, edges, self._reached_us))


class Ros2Images(_Topic):
    """The pictures of one topic, on the clock of their headers. Single-threaded: the camera's thread.

    Attributes:
        size: width and height, pixels, of the first.
    """

    may_be_silent = False
    kinds = (IMAGE_TYPE, COMPRESSED_TYPE)
    node_name = "velora_rgb"

    def __init__(self, text: str, setup: LiveSetup) -> None:
        super().__init__(text, setup)
        self.size = (0, 0)
        self._damaged = 0

    def read(self) -> Shot | None:
        """The next picture; one that is damaged is passed over."""
        data = self._receive()
        if data is None:
            return None
        try:
            shot = self._shot(data)
        except RecordingError as error:
            self._damaged += 1
            if self._damaged > MOST_DAMAGED:
                raise CameraError(f"nothing that comes can be decoded: {error.problem}") from error
            return None
        self._damaged = 0
        return shot

    def _begin(self, data: bytes) -> None:
        height, width = self._shot(data).render().shape[:2]
        self.size, self._damaged = (width, height), 0

    def _shot(self, data: bytes) -> Shot:
        if self._kind == IMAGE_TYPE:
            picture = parse_image(data, True)
            check_layout(picture)
            render = functools.partial(as_rgb, picture)
        else:
            picture = parse_compressed(data, True)
            render = functools.partial(_same, _decode(picture))
        return Shot(render, picture.t_us or None)


def _same(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image


def _decode(picture: Picture) -> NDArray[np.uint8]:
    """A compressed picture, decoded where it came: one that is damaged is known before anybody wants it."""
    try:
        image = decode_picture(picture.payload)
    except ValueError as error:
        raise RecordingError(f"a compressed picture: {error}") from error
    if image is None:
        raise RecordingError(f"{len(picture.payload)} bytes of {picture.encoding!r} hold no picture")
    return image


_GREY, _BGR = cv2.COLOR_GRAY2RGB, cv2.COLOR_BGR2RGB
_LAYOUTS: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (1, 3, None),
    "bgr8": (1, 3, _BGR),
    "8uc3": (1, 3, _BGR),  # as OpenCV has it, which names it so
    "rgba8": (1, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (1, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, _GREY),
    "8uc1": (1, 1, _GREY),
    "mono16": (2, 1, _GREY),
    "rgb16": (2, 3, None),
    "bgr16": (2, 3, _BGR),
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGRBG2RGB),
    "uyvy": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": (1, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": (1, 2, cv2.COLOR_YUV2RGB_YUY2),
}
"""Bytes of a channel, channels, OpenCV's conversion; names: sensor_msgs/image_encodings.hpp."""


def check_layout(picture: Picture) -> None:
    """Hold a picture's rows against its encoding.

    Raises:
        RecordingError: if it is of an encoding that is not read, or its rows are too short.
    """
    layout = _LAYOUTS.get(picture.encoding.lower())
    if layout is None:
        raise RecordingError(f"expected pictures of {', '.join(_LAYOUTS)}, got {picture.encoding!r}")
    try:
        check_picture(picture.width, picture.height, len(picture.payload))
    except ValueError as error:
        raise RecordingError(f"a picture: {error}") from error
    row = picture.width * layout[0] * layout[1]
    if min(picture.width, picture.height) < 2 or picture.step < row or (layout[1] == 2 and picture.width % 2):
        raise RecordingError(
            f"a picture of {picture.encoding}, {picture.width}x{picture.height}, "
            f"in rows of {picture.step} bytes"
        )


def as_rgb(picture: Picture) -> NDArray[np.uint8]:
    """A picture that was checked, as uint8[H, W, 3], RGB; of 16 bits the upper 8."""
    size, channels, code = _LAYOUTS[picture.encoding.lower()]
    rows = np.frombuffer(picture.payload, np.uint8, picture.step * picture.height)
    rows = rows.reshape(picture.height, picture.step)[:, : picture.width * size * channels]
    if size == 2:
        rows = rows[:, ::2] if picture.is_big_endian else rows[:, 1::2]
    pixels: Any = np.array(rows).reshape(picture.height, picture.width, channels)
    return pixels if code is None else cv2.cvtColor(pixels, code)
