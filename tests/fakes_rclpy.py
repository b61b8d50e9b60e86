"""A stand-in for ROS 2's Python: contexts, nodes, executors, QoS and a graph in this process.

Names and arguments are those of rclpy 7 (Jazzy), of which ours are a part (`tests/runtime/test_ros_node.py`
compares them where ROS 2 is installed). As there: a subscription keeps `depth` messages and lets go of the
oldest; what QoS forbids is not heard; callbacks run on the thread that spins; a message goes through the
graph as CDR bytes, made and read by rosbags; a context that was shut down, and a node that was destroyed,
refuse everything.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESSAGES = {
    "event_camera_msgs": ("EventPacket",),
    "dvs_msgs": ("EventArray",),
    "sensor_msgs": ("Image", "CompressedImage"),
    "std_msgs": ("String",),
}


class HistoryPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2


class ReliabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2


class DurabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2


@dataclass
class QoSProfile:
    history: HistoryPolicy = HistoryPolicy.KEEP_LAST
    depth: int = 10
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE

    def hears(self, offered: QoSProfile) -> bool:
        """Whether a subscription that asks for this gets what a publisher offers."""
        is_asked_too_much = (
            self.reliability == ReliabilityPolicy.RELIABLE != offered.reliability,
            self.durability == DurabilityPolicy.TRANSIENT_LOCAL != offered.durability,
        )
        return not any(is_asked_too_much)


class InvalidTopicNameException(Exception):  # noqa: N818  (as are the next two: rclpy's names)
    """Like all of rclpy's, of no common base."""


class ExternalShutdownException(Exception):  # noqa: N818
    """Somebody shut the context down while it was spun."""


class InvalidHandle(RuntimeError):  # noqa: N818
    """What was destroyed was used."""


@dataclass
class TopicEndpointInfo:
    topic_type: str
    qos_profile: QoSProfile


@dataclass
class Graph:
    """What all nodes of this process see of each other.

    `threads`: names of the threads that callbacks ran on. `open`: nodes and contexts that are not closed.
    `refuses`: the error with which publishing, or making a node, ends. `unheard`: messages by topic that a
    subscription let go of, for newer ones or at its end.
    """

    publishers: list[Publisher] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    threads: set[str] = field(default_factory=set)
    open: list[Any] = field(default_factory=list)
    refuses: Exception | None = None
    unheard: Counter[str] = field(default_factory=Counter)

    def node(self, name: str = "driver") -> Any:
        """A node of somebody else's, in a context of its own."""
        context = Context(self)
        context.init(args=[])
        return Node(name, context=context)


class Context:
    def __init__(self, graph: Graph) -> None:
        self.graph, self._is_ok, self._has_begun = graph, False, False

    def init(
        self, args: list[str] | None = None, *, initialize_logging: bool = True, domain_id: int | None = None
    ) -> None:
        if self._has_begun:
            raise RuntimeError("Context.init() must only be called once")
        if self.graph.refuses is not None:
            raise self.graph.refuses
        self._is_ok = self._has_begun = True
        self.graph.open.append(self)

    def ok(self) -> bool:
        return self._is_ok

    def try_shutdown(self) -> None:
        if self._is_ok:
            self._is_ok = False
            self.graph.open.remove(self)
            with self.graph.changed:
                self.graph.changed.notify_all()


class Publisher:
    def __init__(self, node: Node, msg_type: Any, topic: str, qos_profile: QoSProfile) -> None:
        self.node, self.msg_type, self.topic, self.qos_profile = node, msg_type, topic, qos_profile
        self.kept: deque[bytes] = deque(maxlen=qos_profile.depth)

    def publish(self, msg: Any) -> None:
        graph = self.node.graph
        if self not in graph.publishers:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        if graph.refuses is not None:
            raise graph.refuses
        data = msg if isinstance(msg, bytes) else msg.serialize()
        with graph.changed:
            self.kept.append(data)
            for subscription in graph.subscriptions:
                subscription.offer(self, data)
            graph.changed.notify_all()

    def get_subscription_count(self) -> int:
        return sum(s.is_of(self) for s in self.node.graph.subscriptions)


class Subscription:
    def __init__(
        self,
        node: Node,
        msg_type: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos_profile: QoSProfile,
        *,
        raw: bool,
    ) -> None:
        self.node, self.msg_type, self.topic = node, msg_type, topic
        self.callback, self.qos_profile, self.raw = callback, qos_profile, raw
        self.waiting: deque[bytes] = deque(maxlen=qos_profile.depth)

    def is_of(self, publisher: Publisher) -> bool:
        is_same = (self.topic, self.msg_type.KIND) == (publisher.topic, publisher.msg_type.KIND)
        return is_same and self.qos_profile.hears(publisher.qos_profile)

    def offer(self, publisher: Publisher, data: bytes) -> None:
        if self.is_of(publisher):
            self.node.graph.unheard[self.topic] += len(self.waiting) == self.waiting.maxlen
            self.waiting.append(data)

    def call(self) -> None:
        data = self.waiting.popleft()
        self.node.graph.threads.add(threading.current_thread().name)
        self.callback(data if self.raw else self.msg_type.deserialize(data))


class Node:
    def __init__(
        self,
        node_name: str,
        *,
        context: Any = None,
        cli_args: list[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
    ) -> None:
        if not context.ok():
            raise RuntimeError("the given context is not valid")
        self.name, self.context, self.graph = node_name, context, context.graph
        self.graph.open.append(self)

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos_profile: QoSProfile,
        *,
        callback_group: Any = None,
        event_callbacks: Any = None,
        qos_overriding_options: Any = None,
        raw: bool = False,
    ) -> Subscription:
        self._check(topic)
        made = Subscription(self, msg_type, topic, callback, qos_profile, raw=raw)
        with self.graph.changed:
            for publisher in self.graph.publishers:
                if made.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                    for data in publisher.kept:
                        made.offer(publisher, data)
            self.graph.subscriptions.append(made)
        return made

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile,
        *,
        callback_group: Any = None,
        event_callbacks: Any = None,
        qos_overriding_options: Any = None,
        publisher_class: Any = None,
    ) -> Publisher:
        self._check(topic)
        made = Publisher(self, msg_type, topic, qos_profile)
        with self.graph.changed:
            self.graph.publishers.append(made)
        return made

    def get_publishers_info_by_topic(
        self, topic_name: str, no_mangle: bool = False
    ) -> list[TopicEndpointInfo]:
        self._check(topic_name)
        return [
            TopicEndpointInfo(p.msg_type.KIND, p.qos_profile)
            for p in tuple(self.graph.publishers)
            if p.topic == topic_name
        ]

    def destroy_node(self) -> None:
        with self.graph.changed:
            for subscription in (s for s in self.graph.subscriptions if s.node is self):
                self.graph.unheard[subscription.topic] += len(subscription.waiting)
            self.graph.publishers[:] = [p for p in self.graph.publishers if p.node is not self]
            self.graph.subscriptions[:] = [s for s in self.graph.subscriptions if s.node is not self]
            self.graph.open.remove(self)

    def _check(self, topic: str) -> None:
        if self not in self.graph.open:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        if "__" in topic:
            raise InvalidTopicNameException(f"Invalid topic name: {topic}")


class SingleThreadedExecutor:
    def __init__(self, *, context: Any = None) -> None:
        self._context, self._nodes = context, set[Node]()

    def add_node(self, node: Node) -> bool:
        self._nodes.add(node)
        return True

    def spin_once(self, timeout_sec: float | None = None) -> None:
        graph, until_s = self._context.graph, None
        if timeout_sec is not None:
            until_s = time.monotonic() + timeout_sec
        with graph.changed:
            while (ready := self._ready(graph)) is None:
                left_s = None if until_s is None else until_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return
                graph.changed.wait(left_s)
        ready.call()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        self._nodes.clear()
        return True

    def _ready(self, graph: Graph) -> Subscription | None:
        if not self._context.ok():
            raise ExternalShutdownException
        return next((s for s in graph.subscriptions if s.node in self._nodes and s.waiting), None)


def message_class(kind: str) -> Any:
    """A message as ROS 2's generator makes it: fields by name, and no others."""
    from tests.events.formats.test_ros_bag import store

    types = store(2)

    class Message:
        KIND = kind

        def __init__(self, **fields: Any) -> None:
            self.made = types.types[kind](**fields)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.made, name)

        def serialize(self) -> bytes:
            return bytes(types.serialize_cdr(self.made, kind))

        @classmethod
        def deserialize(cls, data: bytes) -> Any:
            return types.deserialize_cdr(data, kind)

    return Message


@contextmanager
def installed(*packages: str) -> Iterator[Graph]:
    """ROS 2 with these packages of messages; all without any, within `with`."""
    graph = Graph()
    modules = _modules(graph, packages or tuple(MESSAGES))
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if _root(name) in _roots()}
    sys.modules.update(modules)
    try:
        yield graph
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(kept)


def _roots() -> set[str]:
    return {"rclpy", *MESSAGES}


def _root(name: str) -> str:
    return name.partition(".")[0]


def _modules(graph: Graph, packages: tuple[str, ...]) -> dict[str, Any]:
    contents: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.context": {"Context": lambda: Context(graph)},
        "rclpy.node": {"Node": Node},
        "rclpy.executors": {
            "SingleThreadedExecutor": SingleThreadedExecutor,
            "ExternalShutdownException": ExternalShutdownException,
        },
        "rclpy.qos": {
            policy.__name__: policy
            for policy in (QoSProfile, HistoryPolicy, ReliabilityPolicy, DurabilityPolicy)
        },
    }
    for package in packages:
        contents[package] = {}
        contents[f"{package}.msg"] = {
            name: message_class(f"{package}/msg/{name}") for name in MESSAGES[package]
        }
    modules: dict[str, Any] = {}
    for name, members in contents.items():
        modules[name] = ModuleType(name)
        modules[name].__path__ = []
        vars(modules[name]).update(members)
    return modules


def message(package: str, name: str) -> Any:
    """A class of messages that are installed."""
    return getattr(importlib.import_module(f"{package}.msg"), name)
