"""A node of ROS 2 over a stand-in for rclpy, which is held against the installed one where there is one."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest
from velora_runtime.ros_node import Endpoint, RosNode, parse_topic

from tests import fakes_rclpy as fakes
from velora_edge.errors import CameraError, InputError

pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
STRING = "std_msgs/msg/String"


def test_the_stand_in_has_the_arguments_of_the_installed_rclpy() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: source /opt/ros/$ROS_DISTRO/setup.bash")
    for name in ("context.Context", "node.Node", "executors.SingleThreadedExecutor"):
        module, _, kind = name.partition(".")
        real, ours = getattr(importlib.import_module(f"rclpy.{module}"), kind), getattr(fakes, kind)
        for method in [m for m in vars(ours) if not m.startswith("_")]:
            taken = inspect.signature(getattr(ours, method)).parameters
            given = inspect.signature(getattr(real, method)).parameters
            assert set(taken) <= set(given), (name, method)
    real = importlib.import_module("rclpy.node").Node
    assert set(inspect.signature(fakes.Node).parameters) <= set(inspect.signature(real).parameters)
    qos = importlib.import_module("rclpy.qos")
    for policy in (fakes.HistoryPolicy, fakes.ReliabilityPolicy, fakes.DurabilityPolicy):
        for member in policy:
            assert getattr(qos, policy.__name__)[member.name] == member


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("ros2://event_camera/events", "/event_camera/events"),
        ("ros2:///event_camera/events", "/event_camera/events"),
        ("ROS2://events", "/events"),
        ("/velora/decisions", "/velora/decisions"),
    ],
)
def test_a_topic_is_from_the_root_on(text: str, topic: str) -> None:
    assert parse_topic(text) == topic


@pytest.mark.parametrize("text", ["ros2://", "ros2://a//b", "ros2://1a", "ros2://a b", "mqtt://a"])
def test_what_is_no_topic_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected ros2://TOPIC, .*; such as ros2://event_camera/events"):
        parse_topic(text)


def test_without_ros_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(InputError, match=r"^ros2://a: needs rclpy\.qos of ROS 2 .* source /opt/ros/"):
        RosNode("velora", "ros2://a")


def test_messages_that_are_not_installed_are_named_with_their_package() -> None:
    with fakes.installed("std_msgs"):
        node = RosNode("velora", "ros2://a")
        with pytest.raises(InputError, match=r"apt install ros-\$ROS_DISTRO-event-camera-msgs"):
            node.subscribe("/a", "event_camera_msgs/msg/EventPacket", print, 1, is_reliable=False)
        node.close()


def test_a_message_comes_as_it_was_serialised_on_the_thread_that_spins() -> None:
    with fakes.installed() as graph:
        node, got = RosNode("velora", "ros2://a"), list[bytes]()
        node.subscribe("/a", STRING, got.append, 5, is_reliable=True)
        publisher = graph.node().create_publisher(
            fakes.message("std_msgs", "String"), "/a", fakes.QoSProfile()
        )
        publisher.publish(fakes.message("std_msgs", "String")(data="wave"))
        assert got == []
        node.spin(0)
        assert got == [b"\0\1\0\0\5\0\0\0wave\0"]
        assert graph.threads == {"MainThread"}
        node.close()


def test_who_publishes_is_told_with_type_and_reliability() -> None:
    with fakes.installed() as graph:
        node, driver = RosNode("velora", "ros2://a"), graph.node()
        best = fakes.QoSProfile(reliability=fakes.ReliabilityPolicy.BEST_EFFORT)
        driver.create_publisher(fakes.message("std_msgs", "String"), "/a", best)
        driver.create_publisher(fakes.message("sensor_msgs", "Image"), "/a", fakes.QoSProfile())
        assert node.endpoints("/a") == [Endpoint(STRING, False), Endpoint("sensor_msgs/msg/Image", True)]
        assert node.endpoints("/b") == []
        node.close()


def test_a_publisher_that_keeps_messages_gives_them_to_whoever_comes_later() -> None:
    with fakes.installed() as graph:
        node, got = RosNode("velora", "ros2://a"), list[str]()
        node.publisher("/a", STRING, 1, is_kept=True)(data="wave")
        later, kept = graph.node("later"), fakes.DurabilityPolicy.TRANSIENT_LOCAL
        later.create_subscription(
            fakes.message("std_msgs", "String"),
            "/a",
            lambda message: got.append(message.data),
            fakes.QoSProfile(durability=kept),
        )
        executor = fakes.SingleThreadedExecutor(context=later.context)
        executor.add_node(later)
        executor.spin_once(timeout_sec=0)
        assert got == ["wave"]
        node.close()


def test_whatever_rclpy_raises_is_a_camera_error_in_one_line() -> None:
    with fakes.installed() as graph:
        node = RosNode("velora", "ros2://a")
        with pytest.raises(CameraError, match=r"^cannot subscribe to /a__b: Invalid topic name: /a__b$"):
            node.subscribe("/a__b", STRING, print, 1, is_reliable=True)
        node._context.try_shutdown()
        with pytest.raises(CameraError, match=r"^ROS 2 failed: ExternalShutdownException$"):
            node.spin(0)
        graph.refuses = RuntimeError("failed to initialize rcl: no RMW\nat line 5")
        with pytest.raises(CameraError, match=r"^cannot make a node: failed to initialize rcl: no RMW$"):
            RosNode("velora", "ros2://a")
        node.close()


def test_nothing_of_a_node_that_was_closed_is_left() -> None:
    with fakes.installed() as graph:
        node = RosNode("velora", "ros2://a")
        node.subscribe("/a", STRING, print, 1, is_reliable=True)
        node.publisher("/b", STRING, 1)
        assert (len(graph.open), len(graph.subscriptions), len(graph.publishers)) == (2, 1, 1)
        node.close()
        node.close()
        assert (graph.open, graph.subscriptions, graph.publishers) == ([], [], [])
