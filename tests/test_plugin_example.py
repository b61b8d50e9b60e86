"""The example of a plugin: installed by pip beside VELoRA-edge, then used by commands and by the API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that runs Python with the plugin installed; gives the finished process."""
    pytest.importorskip("hatchling", reason="needs hatchling, which builds the example without a network")
    target = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--no-index", "--target", target, str(ROOT / "examples" / "velora_plugin")], check=True
    )
    paths = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])

    def python(*given: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(
            [sys.executable, *given],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return python


def test_the_camera_is_recognised_and_the_sink_sends_each_prediction(python: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        address = f"udp=127.0.0.1:{listener.getsockname()[1]}"
        lines = tmp_path / "predictions.jsonl"
        done = python(
            *("-c", "from velora_cli.main import live; live()"),
            *("demo", "--events", "circle://", "--rgb", "none", "--rate", "20", "--duration", "3", "--quiet"),
            *("--sink", address, "--out", str(lines)),
        )
        assert done.returncode == 0, done.stderr
        written = [json.loads(line) for line in lines.read_text().splitlines()]
        sent = [json.loads(listener.recv(65536)) for _ in written]
    assert written
    assert sent == written
    assert all(record["events"] > 50 for record in written)


def test_the_format_is_read_by_the_api(python: Any, tmp_path: Path) -> None:
    rows = np.array([(10, 1, 2, 1), (20, 3, 1, 0)], [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    path = tmp_path / "recording"
    path.write_bytes(b"TXYP" + np.array([4, 3], "<u2").tobytes() + rows.tobytes())
    done = python(
        "-c",
        "import sys, velora_edge\n"
        "reader = velora_edge.open_events(sys.argv[1])\n"
        "events = reader.read()\n"
        "columns = (events.t_us, events.x, events.y, events.p)\n"
        "print(reader.format, reader.width, reader.height, *(column.tolist() for column in columns))",
        str(path),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "TXYP 4 3 [10, 20] [1, 3] [2, 1] [1, 0]")


def test_the_camera_is_listed(python: Any) -> None:
    done = python("-c", "from velora_cli.main import main; main()", "cameras", "--json")
    assert {
        "option": "events",
        "source": "circle://",
        "name": "velora-plugin-example",
        "trouble": "",
    } in json.loads(done.stdout)


def test_an_unknown_sink_is_refused_with_the_plugins_among_those_that_there_are(python: Any) -> None:
    done = python(
        *("-c", "from velora_cli.main import live; live()", "demo", "--events", "circle://"),
        *("--sink", "tcp=127.0.0.1:9"),
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: --sink: no sink is called 'tcp'; "
        "there are terminal, jsonl, video, publish, ros2, rerun, udp\n"
    )
