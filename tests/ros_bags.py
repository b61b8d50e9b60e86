"""A bag of ROS 2 with a real recording's words in packets, and pictures beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from velora_runtime.ingest.scanner import RawScanner

from tests.events.formats.test_ros_bag import PACKET, header, packet, serialize, store
from tests.peers import read_paced

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "sensor_msgs/msg/Image"
FRAME_NS = 33_333_333


STILL_US = 20_000
"""Between packets of a camera that sees nothing."""


def write_bag(path: Path, recording: Path, still_s: float = 0) -> Path:
    """Write a recording's words to /camera/events at their times, and pictures at 30 Hz to /camera/image.

    Args:
        path: of the bag.
        recording: of EVT3.
        still_s: for so long before it the camera sees nothing: its words tell the time alone.
    """
    pieces = read_paced(recording).pieces
    begin_us = RawScanner("EVT3", (640, 480)).scan(pieces[0][1]).t_reached_us
    assert begin_us is not None
    packets = [
        (still_s - before_us / 1e6, time_words(begin_us - before_us))
        for before_us in range(round(still_s * 1e6), 0, -STILL_US)
    ]
    packets += [(still_s + due_s, words) for due_s, words in pieces]
    messages = [
        (round(due_s * 1e9), "/camera/events", PACKET, packet(2, words, seq=i))
        for i, (due_s, words) in enumerate(packets)
    ]
    messages += [
        (t_ns, "/camera/image", IMAGE, picture(t_ns, k % 256))
        for k, t_ns in enumerate(range(0, messages[-1][0], FRAME_NS))
    ]
    types = store(2)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            topic: writer.add_connection(topic, kind, typestore=types)
            for topic, kind in {message[1:3] for message in messages}
        }
        for t_ns, topic, _, data in sorted(messages, key=lambda message: message[0]):
            writer.write(topics[topic], t_ns, data)
    return path


def time_words(t_us: int) -> bytes:
    """What an EVT3 camera sends that sees nothing: TIME_HIGH and TIME_LOW."""
    return np.array([0x8000 | t_us >> 12 & 0xFFF, 0x6000 | t_us & 0xFFF], "<u2").tobytes()


def picture(t_ns: int, k: int) -> bytes:
    """A grey picture of 64x48 in bgr8, taken at that time."""
    types, about = store(2), header(store(2), 2)
    about.stamp.sec, about.stamp.nanosec = 1_700_000_000 + t_ns // 10**9, t_ns % 10**9
    made = types.types[IMAGE](
        header=about, height=48, width=64, encoding="bgr8", is_bigendian=0, step=192,
        data=np.full(48 * 192, k, np.uint8),
    )  # fmt: skip
    return serialize(types, 2, made, IMAGE)
