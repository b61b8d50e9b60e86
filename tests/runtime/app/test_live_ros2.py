"""velora-live on topics of ROS 2: a bag's own messages, byte for byte, at their recorded times."""

from __future__ import annotations

import json
import re
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from velora_runtime.ingest.live_stream import LEAST_GRACE_US

from tests import fakes_rclpy as fakes
from tests.fakes import write_tiny_bundle
from tests.peers import Run, assert_accounted, count_exact_windows
from velora_cli.live.live import command
from velora_edge.console import run
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
from rosbags.rosbag2 import Reader

from tests.ros_bags import write_bag

pytestmark = pytest.mark.slow
CLIP = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three pairs, windows of 20 ms."""
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    event = write_tiny_bundle(folder, CLIP).manifest.event.model_copy(update={"window_us": 20_000})
    return write_tiny_bundle(folder, CLIP, event=event).path


@pytest.fixture(scope="module")
def recording(shared_events: Path) -> Path:
    """A real EVT3 recording of 2.08 s with triggers, 640x480."""
    return shared_events / "ecpy_test1_evt3_triggers.raw"


@pytest.fixture(scope="module")
def bag(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording's words in packets, and pictures at 30 Hz beside them."""
    return write_bag(tmp_path_factory.mktemp("bags") / "bag", recording)


class Player:
    """Publishes a bag's messages as they are, once each topic is subscribed to, and goes away at the end.

    Args:
        bag: of ROS 2.
        graph: where.
        topics: which; None: all.
        stops_s: after so much of the bag, the node is destroyed, and started again after a second.

    Attributes:
        sent: messages on each topic.
        delays: of each message its time in the bag and by how much it left later, in seconds.
    """

    def __init__(
        self, bag: Path, graph: fakes.Graph, topics: tuple[str, ...], stops_s: float | None = None
    ) -> None:
        self.sent: dict[str, int] = dict.fromkeys(topics, 0)
        self.delays: list[tuple[float, float]] = []
        self._bag, self._graph, self._topics, self._stops_s = bag, graph, topics, stops_s
        self._thread = threading.Thread(target=self._play)
        self._begin()

    def __enter__(self) -> Player:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()

    def _begin(self) -> None:
        self._node = self._graph.node("player")
        kinds = {
            "/camera/events": ("event_camera_msgs", "EventPacket"),
            "/camera/image": ("sensor_msgs", "Image"),
        }
        self._publishers = {
            topic: self._node.create_publisher(
                fakes.message(*kinds[topic]), topic, fakes.QoSProfile(depth=1000)
            )
            for topic in self._topics
        }

    def _play(self) -> None:
        messages = list(self._messages())
        self._play_until(messages, self._stops_s)
        self._node.destroy_node()
        if self._stops_s is not None:
            time.sleep(1)
            self._begin()
            self._play_until(messages, None)
            self._node.destroy_node()

    def _play_until(self, messages: list[tuple[str, int, bytes]], stops_s: float | None) -> None:
        for topic in ("/camera/image", "/camera/events"):  # in this order they are opened
            until_s = time.monotonic() + 60
            while topic in self._publishers and not self._publishers[topic].get_subscription_count():
                if time.monotonic() > until_s:
                    return
                time.sleep(0.005)
            first = next((data for other, _, data in messages if other == topic), None)
            if topic == "/camera/image" and first is not None:
                self._publishers[topic].publish(first)
                self.sent[topic] += 1
        began_s = time.monotonic()
        for topic, t_ns, data in messages:
            if stops_s is not None and t_ns > stops_s * 1e9:
                return
            due_s = began_s + t_ns / 1e9
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.delays.append((t_ns / 1e9, time.monotonic() - due_s))
            self._publishers[topic].publish(data)
            self.sent[topic] += 1

    def _messages(self) -> Iterator[tuple[str, int, bytes]]:
        with Reader(self._bag) as reader:
            for connection, t_ns, data in reader.messages():
                if connection.topic in self._topics:
                    yield connection.topic, t_ns, bytes(data)


def run_live(folder: Path, model: Path, *args: object) -> Run:
    settings = folder / "cameras.yaml"
    settings.write_text("ros2: {depth: 5000}\n")  # a machine that is busy loses nothing
    files = ["--out", folder / "p.jsonl", "--summary", folder / "s.json", "--quiet", "--threads", 1]
    files += ["--cameras", settings]
    code = run(command, [str(one) for one in (model, *args, *files)], name="velora-live")
    lines = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    return Run(code, "", "", lines, json.loads((folder / "s.json").read_text()))


def test_all_events_and_triggers_of_a_bag_are_seen_at_their_own_speed(
    model: Path, bag: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fakes.installed() as graph, Player(bag, graph, ("/camera/events",)) as player:
        source = ("--events", "ros2://camera/events", "--rgb", "none", "--rate", 50, "--retry", 0)
        live = run_live(tmp_path, model, *source, "--perf", 0.5)
    told = capsys.readouterr()
    assert live.code == 0, told.err
    assert_accounted(live, CLIP)
    events = live.event_camera["events"]
    with open_events(recording) as reader:
        edges, first_us = len(reader.triggers()), int(reader.read().t_us.min())
    assert (events["received"], events["triggers"], events["gaps"]) == (343_474, edges, 0)
    assert sum(events["dropped"].values()) == events["garbage_bytes"] == 0
    # The player is a thread of this process: what it sends later than the run waits is no fault of the run.
    late_us = [
        first_us + at_s * 1e6
        for before, message in pairwise(player.delays)
        if message[1] * 1e6 > LEAST_GRACE_US
        for at_s in (before[0], message[0])
    ]
    exact, compared = count_exact_windows(live, recording, late_us)
    assert exact >= max(25, 0.6 * compared)
    assert live.event_camera["reasons"] == {"nobody publishes on it any more": 1}
    rates = r"events [\d,.]+/s  triggers [\d,.]+/s"
    line = rf"perf   {rates}  0 events dropped  0 packets dropped  delay [\d.]+ ms  drift .*ppm"
    assert re.search(rf"(?m)^{line}$", told.out), told.out
    assert len(re.findall(rf"(?m)^velora: {line}$", told.err)) >= 2, told.err


def test_what_a_run_says_of_two_topics_is_published_on_a_third(
    model: Path, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []
    with fakes.installed() as graph:
        listener = graph.node("listener")
        listener.create_subscription(
            fakes.message("std_msgs", "String"),
            "/velora/decisions",
            lambda message: heard.append(message.data),
            fakes.QoSProfile(depth=1000),
        )
        with Player(bag, graph, ("/camera/events", "/camera/image")) as player:
            live = run_live(
                tmp_path, model, "--events", "ros2://camera/events", "--rgb", "ros2://camera/image",
                "--sync", "host", "--retry", 0, "--sink", "ros2://velora/decisions",
            )  # fmt: skip
        executor = fakes.SingleThreadedExecutor(context=listener.context)
        executor.add_node(listener)
        for _ in live.lines:
            executor.spin_once(timeout_sec=0)
    told = capsys.readouterr()
    assert live.code == 0, told.err
    assert_accounted(live, CLIP)
    assert live.event_camera["events"]["received"] == 343_474
    frames = live.report["cameras"]["rgb"]["frames"]
    unheard = graph.unheard["/camera/image"]  # ROS 2 keeps the newest four for a host that is busy
    assert frames["received"] + unheard == player.sent["/camera/image"]
    assert len(live.lines) > 20
    assert [json.loads(text) for text in heard] == live.lines
    assert live.report["dropped"]["sinks"] == {"jsonl": 0, "ros2": 0}


def test_a_driver_that_goes_and_is_started_again_is_back(model: Path, bag: Path, tmp_path: Path) -> None:
    source = ("--events", "ros2://camera/events", "--rgb", "none", "--rate", 50, "--duration", 3.5)
    with fakes.installed() as graph, Player(bag, graph, ("/camera/events",), stops_s=0.7):
        live = run_live(tmp_path, model, *source)
    assert live.code == 0
    assert_accounted(live, CLIP)
    camera = live.event_camera
    assert (camera["connections"], camera["outages"]) == (2, 1)
    assert camera["events"]["gaps"] == 0
    assert live.lines[-1]["t_us"] > live.lines[0]["t_us"] + 2_500_000
