"""velora-live in a real ROS 2, rclpy with Fast DDS: a bag's messages in, decisions out, by two processes.

.ci/install-ros2 installs it; the tests are skipped where it is absent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from tests.fakes import write_tiny_bundle
from tests.peers import ROOT, assert_accounted, end_live, start_live

pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
pytestmark = pytest.mark.slow

from tests.ros_bags import write_bag  # noqa: E402

CLIP = 3
LIVE = (
    "import sys; from velora_runtime.cameras.drivers.ros2 import Ros2Events; "
    "Ros2Events.kinds = ('std_msgs/msg/String',); "
    "from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
)


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> str:
    """The Python of a ROS 2 that sees ours, in a domain of its own on this machine."""
    python = os.environ.get("VELORA_ROS2_PYTHON", str(ROOT / ".venv-ros2" / "bin" / "python"))
    if not Path(python).exists():
        pytest.skip("needs ROS 2's wheels: .ci/install-ros2")
    paths = [ROOT, ROOT / "runtime", ROOT / "export", sysconfig.get_path("purelib")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    monkeypatch.setenv("ROS_DOMAIN_ID", str(20 + os.getpid() % 80))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return python


def test_a_bag_goes_through_a_real_ros_and_decisions_come_back(
    ros: str, shared_events: Path, tmp_path: Path
) -> None:
    model = write_tiny_bundle(tmp_path / "tiny.velora", CLIP).path
    # The topic of decisions may take seconds until its listener has found it.
    bag = write_bag(tmp_path / "bag", shared_events / "ecpy_test1_evt3_triggers.raw", still_s=5)
    settings = tmp_path / "cameras.yaml"
    settings.write_text("ros2: {depth: 5000}\n")
    player = subprocess.Popen(
        [ros, "tests/peer_ros2.py", str(bag)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(2)  # a node that is not there after 5 s ends the run
    live = start_live(
        tmp_path, model, "--events", "ros2://camera/events", "--rgb", "ros2://camera/image", "--sync", "host",
        "--retry", 0, "--sink", "ros2://velora/decisions", "--cameras", settings, program=(ros, "-c", LIVE),
    )  # fmt: skip
    run = end_live(live, tmp_path)
    out, err = player.communicate(timeout=60)
    assert player.returncode == 0, err.decode()
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    events = run.event_camera["events"]
    assert (events["received"], events["gaps"], events["garbage_bytes"]) == (343_474, 0, 0)
    assert run.report["cameras"]["rgb"]["frames"]["received"] >= 50
    heard = [json.loads(line) for line in out.decode().splitlines()]
    assert len(heard) > 20
    assert heard == run.lines[-len(heard) :]
