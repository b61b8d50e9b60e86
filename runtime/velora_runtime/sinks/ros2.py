"""ROS 2 sink: one message a prediction, in the form of a line of `--out`, as std_msgs/String."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from velora_edge.datatypes import Prediction
from velora_edge.errors import CameraError, InputError
from velora_runtime.ros_node import STRING_TYPE, RosNode, parse_topic
from velora_runtime.sinks.base import Result, Sink
from velora_runtime.sinks.jsonl import encode_line

if TYPE_CHECKING:
    from velora_runtime.inference.decision import Action
    from velora_runtime.sinks.base import SinkContext

DEPTH = 10
"""Predictions that are kept for a subscriber that is slow."""


class Ros2Sink(Sink):
    """Publishes predictions on TOPIC, and on TOPIC/action starts and ends of actions, the newest of which
    comes to later subscribers, too. A subscriber that is slow or away costs messages, never time.

    Args:
        target: ros2://TOPIC.
        context: not used.

    Raises:
        InputError: if the target is no topic, or ROS 2 is not there.

    Attributes:
        lost: messages that ROS 2 refused.
    """

    name = "ros2"
    may_lose = True

    def __init__(self, target: str, context: SinkContext) -> None:
        topic = parse_topic(target)
        self.lost = 0
        with contextlib.ExitStack() as closing:
            try:
                self._node = RosNode("velora", target)
                closing.callback(self._node.close)
                self._publish = self._node.publisher(topic, STRING_TYPE, DEPTH)
                self._publish_action = self._node.publisher(f"{topic}/action", STRING_TYPE, 1, is_kept=True)
            except CameraError as error:
                raise InputError(str(error), path=target, remedy="see that ros2 topic list works") from error
            closing.pop_all()

    def take(self, result: Result) -> Prediction | None:
        """The prediction, where there is one."""
        return result.prediction

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: Prediction | Action) -> None:
        """Publish a message; lost where ROS 2 refuses it."""
        publish = self._publish if isinstance(item, Prediction) else self._publish_action
        try:
            publish(data=encode_line(item)[:-1].decode())
        except CameraError:
            self.lost += 1

    def close(self) -> None:
        """Leave ROS 2."""
        self._node.close()
