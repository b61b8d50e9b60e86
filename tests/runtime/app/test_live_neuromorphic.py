"""velora-live with cameras of neuromorphic-drivers, which are attached and not named."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.fakes_neuromorphic import FakeCamera, LinkPacket, plug_in
from velora_cli.live.live import command
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("neuromorphic_drivers", reason="needs neuromorphic-drivers: extra cameras")
STEP_US = 10_000


@pytest.fixture(autouse=True)
def nothing_else_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"event": [], "video": [], "argus": False}
    monkeypatch.setattr("velora_edge.doctor.cameras.cameras", lambda root: nothing)
    for library in ("metavision_hal", "dv_processing"):
        monkeypatch.setitem(sys.modules, library, None)


def let_run(camera: FakeCamera, packets: list[LinkPacket]) -> None:
    """Give a camera these packets from now on."""
    start_s = time.monotonic()
    camera.now_s = lambda: time.monotonic() - start_s
    camera.packets = list(packets)


def davis_packets(nd: Any, n: int) -> list[LinkPacket]:
    """Packets of 10 ms with 100 events each, and a frame in every fourth."""
    rng, packets = np.random.default_rng(2), []
    for k in range(n):
        packet = nd.Davis346Packet()
        events = np.empty(100, [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])
        events["t"] = STEP_US * k + 100 * np.arange(100)
        events["x"], events["y"] = rng.integers(0, 346, 100), rng.integers(0, 260, 100)
        events["on"] = rng.integers(0, 2, 100)
        packet.polarity_events, packet.trigger_events, packet.frames = events, None, []
        if k % 4 == 0:
            frame = nd.Frame()
            frame.exposure_start_t, frame.exposure_end_t = STEP_US * k, STEP_US * k + 4_000
            frame.t, frame.pixels = STEP_US * k + 9_000, rng.integers(0, 65_472, (260, 346)).astype(np.uint16)
            packet.frames = [frame]
        packets.append(LinkPacket(packet, due_s=STEP_US * (k + 1) / 1e6, reached_us=STEP_US * (k + 1)))
    return packets


def test_the_attached_cameras_are_taken_where_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = FakeCamera("iniVation DAVIS 346", bounds=(0, 2047))
    with plug_in(camera) as nd:
        packets = davis_packets(nd, 3_000)
        camera.begin = lambda camera: let_run(camera, packets)
        args = ["demo", "--duration", "1", "--summary", str(tmp_path / "s.json"), "--quiet"]
        assert run(command, args, name="velora-live") == 0
    told = capsys.readouterr().err
    assert "velora: --events neuromorphic://00051234: by neuromorphic-drivers\n" in told
    assert "velora: --rgb neuromorphic://00051234: the event camera's own frames\n" in told
    assert "velora: synchronised by timestamps: the two cameras share a clock\n" in told
    report = json.loads((tmp_path / "s.json").read_text())
    event, rgb = report["cameras"]["event"], report["cameras"]["rgb"]
    assert event["events"]["received"] == 100 * (3_000 - len(camera.packets))
    assert (event["events"]["lost_packets"], event["link"]["cleared"], len(camera.opened)) == (0, 0, 1)
    assert rgb["frames"]["received"] >= 20
    assert report["pairs"] >= 15


def test_without_any_camera_the_run_says_what_is_missing_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with plug_in():
        assert run(command, ["demo"], name="velora-live") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: no camera is attached; attach one, and look with velora cameras; "
        "or give recordings: velora-live MODEL --events FILE --rgb FILE"
    )
