"""A ROS 2 node that recognises what two topics bring, and publishes the label: pair by pair, in its own loop.

    source /opt/ros/jazzy/setup.bash
    python examples/ros2_node.py --ros-args -r events:=/event_camera/events -r image:=/camera/image_raw

velora-live has ROS 2 sources and a sink of its own (docs/guides/cameras.md); this is for a node that has more
to do. It pairs by arrival: each picture with the events that came since the one before.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from event_camera_msgs.msg import EventPacket as EventMessage
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from velora_runtime import Recogniser

from velora_edge.datatypes import EventBatch
from velora_edge.events.formats.ros_messages import EventPacket, PacketDecoder

SENSOR_DATA = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


class RecogniserNode(Node):
    """Publishes the label of each pair on `label`. Single-threaded: the executor's thread."""

    def __init__(self, context: Context) -> None:
        super().__init__("velora", context=context)
        self._events: list[EventBatch] = []
        self._decoder: PacketDecoder | None = None
        self._recogniser: Recogniser | None = None
        self._labels = self.create_publisher(String, "label", QoSProfile(depth=10))
        self.create_subscription(EventMessage, "events", self.take_events, SENSOR_DATA)
        self.create_subscription(Image, "image", self.take_image, SENSOR_DATA)

    def take_events(self, message: Any) -> None:
        """Decode a packet of events."""
        if self._decoder is None:
            sensor = (message.width, message.height)
            self._decoder, self._recogniser = PacketDecoder(sensor), Recogniser("demo", sensor)
        packet = EventPacket(
            message.width,
            message.height,
            message.seq,
            message.time_base,
            message.encoding,
            bytes(message.events),
        )
        self._events.append(self._decoder.decode(packet))

    def take_image(self, message: Any) -> None:
        """Recognise a picture with the events since the one before."""
        if self._recogniser is None:
            return  # no event has come yet, so the sensor's size is not known
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        picture = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
        if message.encoding == "bgr8":
            picture = picture[..., ::-1]
        events, self._events = EventBatch.concatenate(self._events), []
        prediction = self._recogniser.see(picture, events)
        if prediction is not None:
            self._labels.publish(String(data=f"{prediction.label} {prediction.score:.2f}"))


def main() -> None:
    """Run until the node is stopped."""
    context = Context()
    context.init(args=sys.argv)
    node, executor = RecogniserNode(context), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        while context.ok():
            executor.spin_once(timeout_sec=1.0)
    except (ExternalShutdownException, KeyboardInterrupt):
        pass
    finally:
        node.destroy_node()
        context.try_shutdown()


if __name__ == "__main__":
    main()
