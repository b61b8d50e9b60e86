"""Topics of ROS 2 as cameras: what comes of their messages, what is lost, and what is refused."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.cameras.drivers import ros2
from velora_runtime.cameras.drivers.registry import is_live, open_live_events
from velora_runtime.cameras.drivers.ros2 import Ros2Events, Ros2Images
from velora_runtime.cameras.feeds import LiveSetup, Shot, WordLayout
from velora_runtime.ingest.packets import Decoded, Gap

from tests import fakes_rclpy as fakes
from velora_edge.clock import SystemClock
from velora_edge.errors import CameraError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")

from tests.events.formats.test_ros_bag import EVT3, array, header, packet, serialize, store

EVENTS, IMAGES = "ros2://camera/events", "ros2://camera/image"
BEST_EFFORT = fakes.ReliabilityPolicy.BEST_EFFORT


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros2, "OPEN_WAIT_S", 0.3)
    monkeypatch.setattr(ros2, "READ_WAIT_S", 0.01)


@pytest.fixture
def graph() -> Iterator[fakes.Graph]:
    with fakes.installed() as graph:
        yield graph


def setup_of(**settings: Any) -> LiveSetup:
    of_cameras = CameraSettings.model_validate({"ros2": settings})
    return LiveSetup(SystemClock(), threading.Event(), print, settings=of_cameras)


class Driver:
    """Somebody's node; what it publishes once it is subscribed to is `first`."""

    def __init__(
        self, graph: fakes.Graph, name: str = "EventPacket", topic: str = "/camera/events", **qos: Any
    ) -> None:
        package = {"EventPacket": "event_camera_msgs", "EventArray": "dvs_msgs"}.get(name, "sensor_msgs")
        self.node = graph.node()
        self.publisher = self.node.create_publisher(
            fakes.message(package, name), topic, fakes.QoSProfile(**qos)
        )

    def publish(self, *messages: bytes) -> None:
        for data in messages:
            self.publisher.publish(data)


@contextmanager
def opened(feed: Any, driver: Driver, *first: bytes) -> Iterator[Any]:
    """A feed that was opened while its driver published."""
    stop = threading.Event()

    def publish() -> None:
        while not driver.publisher.get_subscription_count() and not stop.wait(0.001):
            pass
        driver.publish(*first)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        feed.open()
        thread.join()  # all of it has come
        yield feed
    finally:
        stop.set()
        thread.join()
        feed.close()


def rows(item: Any) -> list[tuple[int, ...]]:
    assert isinstance(item, Decoded)
    batch = item.batch
    return list(zip(batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist(), strict=True))


# ---- events ---------------------------------------------------------------------------------------------


def test_the_words_of_packets_go_on_as_they_are(graph: fakes.Graph) -> None:
    feed, driver = Ros2Events(EVENTS, setup_of()), Driver(graph)
    messages = [packet(2, part, seq=i) for i, part in enumerate((EVT3[:5], EVT3[5:]))]
    with opened(feed, driver, *messages):
        assert (feed.sensor, feed.layout, feed.may_be_silent) == ((640, 480), WordLayout("EVT3"), False)
        assert [feed.read(), feed.read(), feed.read()] == [EVT3[:5], EVT3[5:], None]
    assert graph.threads == {threading.current_thread().name}
    assert [node.name for node in graph.open if isinstance(node, fakes.Node)] == ["driver"]


def test_missing_numbers_are_a_gap_before_what_comes_after(graph: fakes.Graph) -> None:
    feed = Ros2Events(EVENTS, setup_of())
    with opened(feed, Driver(graph), *(packet(2, EVT3, seq=seq) for seq in (7, 8, 11))):
        assert [feed.read() for _ in range(4)] == [EVT3, EVT3, Gap(2), EVT3]


def test_what_a_busy_host_does_not_take_in_time_is_lost_and_counted(graph: fakes.Graph) -> None:
    feed, driver = Ros2Events(EVENTS, setup_of(depth=2)), Driver(graph)
    with opened(feed, driver, packet(2, EVT3, seq=0)):
        driver.publish(*(packet(2, EVT3, seq=seq) for seq in range(1, 7)))
        assert [feed.read() for _ in range(5)] == [EVT3, Gap(4), EVT3, EVT3, None]


@pytest.mark.parametrize(
    ("encoding", "payload", "wanted"),
    [
        ("mono", np.array([[5, 2 | (3 | 1 << 15) << 16]], "<u4").tobytes(), [(1_000_000, 2, 3, 1)]),
        ("libcaer", np.array([[2 << 17 | 3 << 2 | 2, 7]], "<u4").tobytes(), [(1_000_007, 2, 3, 1)]),
    ],
)
def test_packets_of_other_encodings_are_decoded(
    graph: fakes.Graph, encoding: str, payload: bytes, wanted: list[tuple[int, ...]]
) -> None:
    feed = Ros2Events(EVENTS, setup_of())
    message = packet(2, payload, encoding, time_base=10**9, sensor=(8, 6))
    with opened(feed, Driver(graph), message):
        assert (feed.sensor, feed.layout, feed.may_be_silent) == ((8, 6), None, True)
        item = feed.read()
        assert rows(item) == wanted
        assert item.reached_us == wanted[-1][0]


def test_arrays_of_dvs_events_are_put_in_order_and_cut_to_the_sensor(graph: fakes.Graph) -> None:
    events = [(3_000_000, 1, 2, 0), (1_000_000, 3, 4, 1), (2_000_000, 8, 0, 1)]
    feed = Ros2Events(EVENTS, setup_of())
    with opened(feed, Driver(graph, "EventArray"), array(2, events, sensor=(8, 6))):
        item = feed.read()
        assert rows(item) == [(1000, 3, 4, 1), (3000, 1, 2, 0)]
        assert item.reached_us == 3000


def test_a_publisher_that_was_started_again_is_another_connection(graph: fakes.Graph) -> None:
    feed = Ros2Events(EVENTS, setup_of())
    with opened(feed, Driver(graph), *(packet(2, EVT3, seq=seq) for seq in (70, 0))):
        assert feed.read() == EVT3
        with pytest.raises(CameraError, match=r"^packet 0 came after 70: its publisher was started again$"):
            feed.read()


def test_a_topic_that_nobody_publishes_on_any_more_is_lost(graph: fakes.Graph) -> None:
    feed, driver = Ros2Events(EVENTS, setup_of()), Driver(graph)
    with opened(feed, driver, packet(2, EVT3)):
        assert feed.read() == EVT3
        assert feed.read() is None
        driver.node.destroy_node()
        with pytest.raises(CameraError, match=r"^nobody publishes on it any more$"):
            feed.read()


def test_after_a_loss_the_same_camera_goes_on_and_another_is_refused(graph: fakes.Graph) -> None:
    feed = Ros2Events(EVENTS, setup_of())
    with opened(feed, Driver(graph), packet(2, EVT3, seq=9)):
        pass
    with opened(feed, Driver(graph), packet(2, EVT3, seq=0)):
        assert feed.read() == EVT3
    other = Driver(graph)
    with (
        pytest.raises(CameraError, match=r"^another camera is there now: evt3, 320x240$"),
        opened(feed, other, packet(2, EVT3, sensor=(320, 240))),
    ):
        pass


@pytest.mark.parametrize(
    ("reliability", "driver_is_reliable", "is_heard"),
    [
        ("match", False, True),
        ("match", True, True),
        ("best_effort", True, True),
        ("reliable", False, False),
    ],
)
def test_the_subscription_asks_for_no_more_than_it_is_offered_unless_told_to(
    graph: fakes.Graph, reliability: str, driver_is_reliable: bool, is_heard: bool
) -> None:
    qos = {} if driver_is_reliable else {"reliability": BEST_EFFORT}
    feed, driver = Ros2Events(EVENTS, setup_of(reliability=reliability)), Driver(graph, **qos)
    if is_heard:
        with opened(feed, driver, packet(2, EVT3)):
            asked = graph.subscriptions[0].qos_profile.reliability
            assert asked == (
                BEST_EFFORT if reliability == "best_effort" else driver.publisher.qos_profile.reliability
            )
    else:
        with pytest.raises(CameraError, match=r"^nothing came for"):
            feed.open()


def test_a_topic_without_publishers_is_told(graph: fakes.Graph) -> None:
    with pytest.raises(
        SourceError, match=r"^ros2://camera/events: nobody publishes on /camera/events; check"
    ):
        open_live_events(EVENTS, setup_of())
    assert graph.open == []


def test_a_topic_of_something_else_is_refused_with_what_it_has(graph: fakes.Graph) -> None:
    Driver(graph, "Image")
    with pytest.raises(
        SourceError,
        match=r"expected messages of event_camera_msgs/\S+ or .*, the topic has sensor_msgs/msg/Image",
    ):
        Ros2Events(EVENTS, setup_of()).open()


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (packet(2, EVT3, "evt9"), "expected events encoded as one of evt2,"),
        (packet(2, EVT3, sensor=(0, 480)), "a sensor of 0x480 pixels"),
        (packet(2, EVT3)[:40], "a message of 40 bytes ends inside of a field"),
    ],
)
def test_a_damaged_message_is_the_cameras_error(graph: fakes.Graph, message: bytes, problem: str) -> None:
    feed = Ros2Events(EVENTS, setup_of())
    with (
        pytest.raises(CameraError, match=f"^a message that cannot be read: {problem}"),
        opened(feed, Driver(graph), message),
    ):
        pass


def test_one_address_is_a_camera_of_either_kind() -> None:
    assert is_live("ros2://a", "none")


# ---- pictures -------------------------------------------------------------------------------------------


def image(
    pixels: np.ndarray,
    encoding: str,
    *,
    padding: int = 0,
    big: bool = False,
    size: tuple[int, int] | None = None,
) -> bytes:
    """A message of sensor_msgs/Image; its stamp is 1 s and 2 ns."""
    types = store(2)
    height, width = pixels.shape[:2] if size is None else size
    rows = np.pad(pixels.reshape(len(pixels), -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=99)
    made = types.types["sensor_msgs/msg/Image"](
        header=header(types, 2), height=height, width=width, encoding=encoding, is_bigendian=int(big),
        step=rows.shape[1], data=rows.reshape(-1),
    )  # fmt: skip
    return serialize(types, 2, made, "sensor_msgs/msg/Image")


def compressed(data: bytes, told: str = "jpeg") -> bytes:
    types = store(2)
    made = types.types["sensor_msgs/msg/CompressedImage"](
        header=header(types, 2), format=told, data=np.frombuffer(data, np.uint8)
    )
    return serialize(types, 2, made, "sensor_msgs/msg/CompressedImage")


RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
GREY = RGB[:, :, 0].copy()


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (image(RGB, "rgb8"), RGB),
        (image(RGB, "rgb8", padding=5), RGB),
        (image(RGB[:, :, ::-1].copy(), "bgr8"), RGB),
        (image(np.dstack([RGB, GREY]), "rgba8"), RGB),
        (image(np.dstack([RGB[:, :, ::-1], GREY]), "bgra8"), RGB),
        (image(GREY, "mono8"), np.dstack([GREY] * 3)),
        (image(GREY.astype("<u2") << 8 | 0x7F, "mono16"), np.dstack([GREY] * 3)),
        (image((GREY.astype(">u2") << 8 | 0x7F).astype(">u2"), "mono16", big=True), np.dstack([GREY] * 3)),
        (image((RGB.astype("<u2") << 8), "rgb16"), RGB),
    ],
)
def test_pictures_become_rgb(graph: fakes.Graph, message: bytes, wanted: np.ndarray) -> None:
    feed = Ros2Images(IMAGES, setup_of())
    with opened(feed, Driver(graph, "Image", "/camera/image"), message):
        shot = feed.read()
        assert shot is not None
        np.testing.assert_array_equal(shot.render(), wanted)
        assert shot.render().flags.writeable
        assert (feed.size, shot.t_us, shot.clock) == ((4, 2), 1_000_000, "device")


@pytest.mark.parametrize(
    ("encoding", "red_at"), [("rggb", (0, 0)), ("bggr", (1, 1)), ("gbrg", (1, 0)), ("grbg", (0, 1))]
)
def test_a_red_scene_through_each_bayer_pattern_is_red(
    graph: fakes.Graph, encoding: str, red_at: tuple[int, int]
) -> None:
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = 200
    feed = Ros2Images(IMAGES, setup_of())
    with opened(feed, Driver(graph, "Image", "/camera/image"), image(mosaic, f"bayer_{encoding}8")):
        shot = feed.read()
    assert shot is not None
    assert shot.render()[4, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize(("encoding", "order"), [("uyvy", (1, 0)), ("yuv422_yuy2", (0, 1))])
def test_a_grey_scene_in_yuv_is_grey(graph: fakes.Graph, encoding: str, order: tuple[int, int]) -> None:
    pixels = np.full((2, 4, 2), 128, np.uint8)
    pixels[:, :, order[0]] = 235  # white in the range of video
    feed = Ros2Images(IMAGES, setup_of())
    with opened(feed, Driver(graph, "Image", "/camera/image"), image(pixels, encoding)):
        shot = feed.read()
    assert shot is not None
    assert shot.render().tolist() == np.full((2, 4, 3), 255).tolist()


def test_compressed_pictures_are_decoded_and_damaged_ones_passed_over(graph: fakes.Graph) -> None:
    png = cv2.imencode(".png", RGB[:, :, ::-1])[1].tobytes()
    feed, driver = Ros2Images(IMAGES, setup_of()), Driver(graph, "CompressedImage", "/camera/image")
    with opened(
        feed, driver, compressed(png), compressed(png[:50]), compressed(b"no picture"), compressed(png)
    ):
        shots = [feed.read() for _ in range(4)]
        assert [shot is not None for shot in shots] == [True, False, False, True]
        assert shots[3] is not None
        np.testing.assert_array_equal(shots[3].render(), RGB)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (image(GREY, "32FC1"), "expected pictures of rgb8, .* got '32FC1'"),
        (image(GREY, "rgb8"), "a picture of rgb8, 4x2, in rows of 4 bytes"),
        (image(GREY, "mono8", size=(3, 4)), "a picture of 3 rows of 4 bytes in 8 bytes"),
        (image(np.zeros((2, 3, 2), np.uint8), "uyvy"), "a picture of uyvy, 3x2, in rows of 6 bytes"),
    ],
)
def test_a_picture_that_cannot_be_read_is_told(graph: fakes.Graph, message: bytes, problem: str) -> None:
    feed = Ros2Images(IMAGES, setup_of())
    with (
        pytest.raises(CameraError, match=f"^a message that cannot be read: {problem}"),
        opened(feed, Driver(graph, "Image", "/camera/image"), message),
    ):
        pass


def test_only_the_newest_pictures_wait(graph: fakes.Graph) -> None:
    feed, driver = Ros2Images(IMAGES, setup_of()), Driver(graph, "Image", "/camera/image")
    with opened(feed, driver, image(GREY, "mono8")):
        assert feed.read() is not None
        driver.publish(*(image(np.full((2, 2), k, np.uint8), "mono8") for k in range(9)))
        shots = [feed.read() for _ in range(5)]
        assert [None if s is None else s.render()[0, 0, 0] for s in shots] == [5, 6, 7, 8, None]


# ---- anybody may publish --------------------------------------------------------------------------------


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A message with some of its bytes changed, or cut off."""
    made = bytearray(data)
    for place in rng.integers(0, len(made), rng.integers(1, 6)):
        made[place] = rng.choice((0, 1, 0x7F, 0xFF, int(rng.integers(256))))
    return bytes(made[: rng.integers(len(made) + 1)] if rng.random() < 0.3 else made)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (Ros2Events, "EventPacket", packet(2, EVT3)),
        (Ros2Events, "EventPacket", packet(2, bytes(range(64)), "libcaer_cmp")),
        (Ros2Events, "EventPacket", packet(2, bytes(range(64)), "mono", time_base=10**9)),
        (Ros2Events, "EventArray", array(2, [(k * 1000, k, k, 1) for k in range(9)])),
        (Ros2Images, "Image", image(RGB, "bgr8")),
        (Ros2Images, "CompressedImage", compressed(cv2.imencode(".png", RGB)[1].tobytes())),
    ],
)
def test_changed_bytes_of_a_message_cost_itself_or_the_connection(
    graph: fakes.Graph, kind: Any, name: str, message: bytes
) -> None:
    rng, topic = np.random.default_rng(7), "/camera/events"
    feed, driver = kind(f"ros2:/{topic}", setup_of(depth=1000)), Driver(graph, name, topic)
    refused = 0
    with opened(feed, driver, message):
        for _ in range(300):
            driver.publish(changed(message, rng))
            try:
                item = feed.read()
                if isinstance(item, Shot):
                    assert item.render().dtype == np.uint8
                elif isinstance(item, Decoded):
                    assert (np.diff(item.batch.t_us) >= 0).all()
                    assert not len(item.batch) or item.batch.x.max() < feed.sensor[0]
            except CameraError:
                refused += 1
    assert (refused > 20) is (kind is Ros2Events)
