"""The nodes on the other side of velora-live in a real ROS 2: a bag's player, and a listener.

    .venv-ros2/bin/python tests/peer_ros2.py BAG

Publishes the bag's messages as they are, at their times, once each topic is subscribed to; at the end they go
away, and it prints what it heard of the decisions, until those do, as lines. Packets of events go as
std_msgs/String, for there are no wheels of event_camera_msgs: ROS 2 does not look into a serialised message.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image
from std_msgs.msg import String

TOPICS = {"/camera/image": Image, "/camera/events": String}
DECISIONS = "/velora/decisions"
DEPTH = 2000
PATIENCE_S = 60.0


def main() -> None:
    context = Context()
    context.init(args=[])
    node = Node("peer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard: list[str] = []
    node.create_subscription(String, DECISIONS, lambda message: heard.append(message.data), DEPTH)
    publishers = {topic: node.create_publisher(kind, topic, DEPTH) for topic, kind in TOPICS.items()}
    with Reader(Path(sys.argv[1])) as reader:
        messages = [(c.topic, t_ns, bytes(data)) for c, t_ns, data in reader.messages()]
    until_s = time.monotonic() + PATIENCE_S
    for topic, publisher in publishers.items():  # in the order in which they are opened
        while not publisher.get_subscription_count():
            assert time.monotonic() < until_s, f"nobody subscribes to {topic}"
            executor.spin_once(timeout_sec=0.01)
        if topic == "/camera/image":
            publisher.publish(next(data for other, _, data in messages if other == topic))
    began_s = time.monotonic()
    for topic, t_ns, data in messages:
        while (left_s := began_s + t_ns / 1e9 - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left_s)
        publishers[topic].publish(data)
    until_s = time.monotonic() + 2
    while time.monotonic() < until_s:
        executor.spin_once(timeout_sec=0.1)
    for publisher in publishers.values():
        node.destroy_publisher(publisher)
    until_s = time.monotonic() + PATIENCE_S
    while node.count_publishers(DECISIONS) and time.monotonic() < until_s:  # the run ends for want of topics
        executor.spin_once(timeout_sec=0.1)
    until_s = time.monotonic() + 1
    while time.monotonic() < until_s:
        executor.spin_once(timeout_sec=0.01)
    sys.stdout.write("".join(f"{line}\n" for line in heard))
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


if __name__ == "__main__":
    main()
