"""The examples, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import velora_runtime

from velora_edge.bundle import find_model

ROOT = Path(__file__).parents[1]
ASSETS = find_model("demo").parent
EVENTS, VIDEO = str(ASSETS / "demo.raw"), str(ASSETS / "demo.mp4")


def run(name: str, *given: Any, timeout_s: float = 120) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, given)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loop_prints_labels_and_how_many_there_were() -> None:
    *changes, last = run("loop.py", EVENTS, VIDEO).splitlines()
    assert len(changes) >= 2
    assert int(last.split()[0]) > 100


def test_pair_by_pair_prints_labels() -> None:
    lines = run("pair_by_pair.py", EVENTS, VIDEO).splitlines()
    assert len(lines) > 10
    assert {len(line.split()) for line in lines} >= {4}


def test_the_batch_holds_both_cameras_in_step(tmp_path: Path) -> None:
    said = run("batch.py", EVENTS, VIDEO, tmp_path / "pairs.npz")
    with np.load(tmp_path / "pairs.npz") as arrays:
        rgb, event, t_us = arrays["rgb"], arrays["event"], arrays["t_us"]
    assert rgb.shape == event.shape == (len(t_us), 112, 112, 3)
    assert np.all(np.diff(t_us) > 0)
    assert said.startswith(f"{len(t_us)} pairs")


def test_a_representation_of_ones_own_is_rendered(tmp_path: Path) -> None:
    run("representation.py", EVENTS, tmp_path / "balance.png")
    picture = cv2.imread(str(tmp_path / "balance.png"))
    assert picture is not None
    assert picture.shape == (240, 320, 3)
    assert {int(picture.min()) < 128, int(picture.max()) > 128} == {True}


def test_the_node_publishes_a_label_for_each_pair_of_a_bag(tmp_path: Path, shared_events: Path) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
    from rosbags.rosbag2 import Reader

    from tests import fakes_rclpy
    from tests.ros_bags import write_bag

    bag = write_bag(tmp_path / "bag", shared_events / "ecpy_test1_evt3_triggers.raw")
    with fakes_rclpy.installed() as graph, Reader(bag) as reader:
        example = runpy.run_path(str(ROOT / "examples" / "ros2_node.py"))
        node = example["RecogniserNode"](context := graph.node().context)
        executor = example["SingleThreadedExecutor"](context=context)
        executor.add_node(node)
        driver, heard = graph.node(), []
        label = fakes_rclpy.message("std_msgs", "String")
        driver.create_subscription(label, "label", heard.append, example["QoSProfile"](depth=1000))
        depth = example["QoSProfile"](depth=10)
        publishers = {
            topic: driver.create_publisher(fakes_rclpy.message(*kind), name, depth)
            for topic, name, kind in (
                ("/camera/events", "events", ("event_camera_msgs", "EventPacket")),
                ("/camera/image", "image", ("sensor_msgs", "Image")),
            )
        }
        for connection, _, data in reader.messages():
            publishers[connection.topic].publish(bytes(data))
            executor.spin_once(timeout_sec=0.0)
        pictures = sum(connection.topic == "/camera/image" for connection, _, _ in reader.messages())
        ears = fakes_rclpy.SingleThreadedExecutor(context=driver.context)
        ears.add_node(driver)
        for _ in range(pictures):
            ears.spin_once(timeout_sec=0.0)
    missing = velora_runtime.Recogniser("demo").missing
    assert len(heard) == pictures - (missing - 1)  # the pair that fills the clip is told already
    assert {len(message.data.split()) for message in heard} == {2}


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "examples").glob("*.py")])
def test_every_example_is_listed(name: str) -> None:
    assert f"[{name}]({name})" in (ROOT / "examples" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_classes_are_recorded_trained_and_recognised(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs timm (the extra train)")
    said = run("own_classes/own_classes.py", "--quick", "--work", tmp_path / "work", timeout_s=800)
    assert re.search(r"dropped while recording: \d+\n", said)
    takes = sorted(path.parent for path in (tmp_path / "work/set").glob("*/*/*/recording.json"))
    assert [f"{take.parts[-3]}/{take.parts[-2]}" for take in takes] == [
        f"{part}/{motion}-{colour}"
        for part, count in (("test", 1), ("train", 2))
        for motion in ("shake", "sway")
        for colour in ("blue", "red")
        for _ in range(count)
    ]
    assert "windows of 4 recordings, part test (held out from the model's training)" in said
    counts = [json.loads((tmp_path / f"work/{name}.json").read_text()) for name in ("replay", "live")]
    assert all(told > 40 for _, told in counts)
    # What is there is not made again.
    again = run("own_classes/own_classes.py", "--quick", "--work", tmp_path / "work", timeout_s=60)
    assert "== train: done before" in again
    assert "$ velora" not in again
