"""Predictions on a topic of ROS 2, over a stand-in for rclpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.inference.decision import Action
from velora_runtime.sinks.base import Result, SinkContext, open_sink
from velora_runtime.sinks.jsonl import encode_line
from velora_runtime.sinks.publishers import Ros2Sink

from tests import fakes_rclpy as fakes
from tests.fakes import tiny_manifest
from velora_cli.options import read_outputs
from velora_edge.datatypes import FramePair, Prediction
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
CONTEXT = SinkContext(tiny_manifest())
ACTION = Action(1, "wave", 0.9, 5, 5000, 4000)


def said(seq: int) -> Prediction:
    return Prediction(seq, 1000 * seq, "größe", 0.5, (("größe", 0.5),), 3, None)


@pytest.fixture
def graph() -> Iterator[fakes.Graph]:
    with fakes.installed() as graph:
        yield graph


class Listener:
    """Somebody's node that subscribes to strings."""

    def __init__(self, graph: fakes.Graph, topic: str, **qos: Any) -> None:
        self.got: list[str] = []
        node = graph.node("listener")
        node.create_subscription(
            fakes.message("std_msgs", "String"),
            topic,
            lambda message: self.got.append(message.data),
            fakes.QoSProfile(**qos),
        )
        self._executor = fakes.SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def hear(self, n: int) -> list[str]:
        for _ in range(n):
            self._executor.spin_once(timeout_sec=0)
        return self.got


def test_each_prediction_is_a_string_in_the_form_of_a_line(graph: fakes.Graph) -> None:
    listener = Listener(graph, "/velora")
    sink = open_sink("ros2", "ros2://velora", CONTEXT)
    assert isinstance(sink, Ros2Sink)
    for seq in range(3):
        item = sink.take(Result(FramePair(seq, seq, None, None), said(seq)))
        assert item is not None
        sink.write(item)
    assert listener.hear(4) == [encode_line(said(seq)).decode()[:-1] for seq in range(3)]
    sink.close()
    assert sink.lost == 0
    assert [node.name for node in graph.open if isinstance(node, fakes.Node)] == ["listener"]


def test_the_newest_action_comes_to_later_subscribers_too(graph: fakes.Graph) -> None:
    sink = Ros2Sink("/velora", CONTEXT)
    sink.write(sink.take_action(ACTION))
    listener = Listener(graph, "/velora/action", durability=fakes.DurabilityPolicy.TRANSIENT_LOCAL)
    assert listener.hear(2) == [encode_line(ACTION).decode()[:-1]]
    sink.close()


def test_pairs_without_a_prediction_are_not_published(graph: fakes.Graph) -> None:
    sink = Ros2Sink("ros2://velora", CONTEXT)
    assert sink.take(Result(FramePair(0, 0, None, None), None, 2)) is None
    sink.close()


def test_what_ros_refuses_is_counted_and_the_run_goes_on(graph: fakes.Graph) -> None:
    sink = Ros2Sink("ros2://velora", CONTEXT)
    graph.refuses = RuntimeError("failed to publish")
    sink.write(said(0))
    graph.refuses = None
    sink.write(said(1))
    assert sink.lost == 1
    sink.close()


def test_a_sink_that_cannot_begin_leaves_nothing_behind(graph: fakes.Graph) -> None:
    with pytest.raises(InputError, match=r"^ros2://a__b: cannot publish on /a__b: Invalid topic name"):
        Ros2Sink("ros2://a__b", CONTEXT)
    assert graph.open == []


def test_an_address_is_a_sink_by_its_scheme() -> None:
    given = {"quiet": True, "sinks": ("ros2://velora", "ros2=/velora", "ros2:///a=b")}
    assert read_outputs(given) == (
        ("ros2", "ros2://velora"),
        ("ros2", "/velora"),
        ("ros2", "ros2:///a=b"),
    )


def test_a_scheme_that_no_sink_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--sink: no sink is called 'ftp'; there are terminal, .*ros2"):
        read_outputs({"quiet": True, "sinks": ("ftp://a",)})
