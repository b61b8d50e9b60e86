"""Node of ROS 2: subscriptions to serialised messages, publishers, and the thread that callbacks run on.

rclpy comes with ROS 2 and is of its Python; it is imported where a node is made. Run with rclpy 9.1.2 over
Fast DDS; what is called of it is in 3.3 (Humble) and 7 (Jazzy), too.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from velora_edge.errors import CameraError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEME = "ros2"
STRING_TYPE = "std_msgs/msg/String"
_TOPIC = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")


def parse_topic(text: str) -> str:
    """The topic in `ros2://TOPIC`, or a topic alone, from the root on.

    Raises:
        InputError: if it is none.
    """
    scheme, separator, rest = text.partition("://")
    topic = "/" + (rest if separator and scheme.lower() == SCHEME else text).strip("/")
    if not _TOPIC.fullmatch(topic):
        raise InputError(
            "expected ros2://TOPIC, whose parts are letters, digits and _",
            path=text,
            remedy="such as ros2://event_camera/events; ros2 topic list has all",
        )
    return topic


def import_ros(module: str, purpose: str) -> Any:
    """A module of ROS 2.

    Raises:
        InputError: if it is not there for this Python.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise InputError(
            f"needs {module} of ROS 2 ({error})",
            path=purpose,
            remedy=f"apt install ros-$ROS_DISTRO-{package}, source /opt/ros/$ROS_DISTRO/setup.bash, run in "
            "ROS 2's own Python: docs/guides/cameras.md",
        ) from error


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who publishes on a topic.

    Attributes:
        kind: type of the messages, such as sensor_msgs/msg/Image.
        is_reliable: it sends again what was lost on the way.
    """

    kind: str
    is_reliable: bool


class RosNode:
    """A node, alone in its context. Single-threaded: one thread at a time, on which callbacks run, too.

    It takes neither the process's signals nor its arguments. The domain is that of ROS_DOMAIN_ID.

    Args:
        name: of the node.
        purpose: what it is for, as the user called it.

    Raises:
        InputError: if ROS 2 is not there.
        CameraError: if it refuses.
    """

    def __init__(self, name: str, purpose: str) -> None:
        self._purpose = purpose
        self._qos: Any = import_ros("rclpy.qos", purpose)
        self._context = import_ros("rclpy.context", purpose).Context()
        self._node: Any = None
        self._executor: Any = None
        try:
            with _told("cannot make a node"):
                self._begin(name)
        except BaseException:
            self.close()
            raise

    def endpoints(self, topic: str) -> list[Endpoint]:
        """Who publishes on a topic, as far as it has come around."""
        with _told("cannot look for publishers"):
            found = self._node.get_publishers_info_by_topic(topic)
        reliable = self._qos.ReliabilityPolicy.RELIABLE
        return [Endpoint(one.topic_type, one.qos_profile.reliability == reliable) for one in found]

    def subscribe(
        self, topic: str, kind: str, take: Callable[[bytes], None], depth: int, *, is_reliable: bool
    ) -> None:
        """Let `take` be called with each message as it was serialised, in CDR, within `spin`.

        Args:
            topic: from the root on.
            kind: type of its messages.
            take: must not raise.
            depth: messages that wait for `spin`; newer ones take the place of older.
            is_reliable: ask publishers to send again what was lost; those that do not are not heard.
        """
        message = _import_message(kind, self._purpose)
        with _told(f"cannot subscribe to {topic}"):
            self._node.create_subscription(
                message, topic, take, self._profile(depth, is_reliable=is_reliable), raw=True
            )

    def publisher(self, topic: str, kind: str, depth: int, *, is_kept: bool = False) -> Callable[..., None]:
        """A function that publishes a message of the fields that it is given by name.

        Args:
            topic: from the root on.
            kind: type of its messages.
            depth: messages that are kept for subscribers that are slow.
            is_kept: those that come later get them, too.
        """
        message = _import_message(kind, self._purpose)
        with _told(f"cannot publish on {topic}"):
            made = self._node.create_publisher(
                message, topic, self._profile(depth, is_reliable=True, is_kept=is_kept)
            )

        def publish(**fields: Any) -> None:
            with _told(f"cannot publish on {topic}"):
                made.publish(message(**fields))

        return publish

    def spin(self, wait_s: float) -> None:
        """Wait for a message, at most `wait_s`, and hand it to its callback."""
        with _told("ROS 2 failed"):
            self._executor.spin_once(timeout_sec=wait_s)

    def close(self) -> None:
        """Leave ROS 2. May be called again."""
        executor, self._executor = self._executor, None
        node, self._node = self._node, None
        with contextlib.suppress(CameraError), _told("cannot be closed"):
            if executor is not None:
                executor.shutdown()
            if node is not None:
                node.destroy_node()
            self._context.try_shutdown()

    def _begin(self, name: str) -> None:
        self._context.init(args=[])
        self._node = import_ros("rclpy.node", self._purpose).Node(
            name,
            context=self._context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = import_ros("rclpy.executors", self._purpose).SingleThreadedExecutor(
            context=self._context
        )
        self._executor.add_node(self._node)

    def _profile(self, depth: int, *, is_reliable: bool, is_kept: bool = False) -> Any:
        qos = self._qos
        reliability, durability = qos.ReliabilityPolicy, qos.DurabilityPolicy
        return qos.QoSProfile(
            history=qos.HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=reliability.RELIABLE if is_reliable else reliability.BEST_EFFORT,
            durability=durability.TRANSIENT_LOCAL if is_kept else durability.VOLATILE,
        )


def _import_message(kind: str, purpose: str) -> Any:
    """The class of a type of message, such as std_msgs/msg/String."""
    package, _, name = kind.split("/")
    return getattr(import_ros(f"{package}.msg", purpose), name)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever rclpy raises, as a CameraError: its exceptions have no base class of their own."""
    try:
        yield
    except (CameraError, InputError):
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise CameraError(f"{what}: {reason}") from error
