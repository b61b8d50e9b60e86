"""velora-live with cameras of neuromorphic-drivers, which are attached and not named."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.cameras.drivers.neuromorphic import NeuromorphicEvents
from velora_runtime.cameras.feeds import LiveSetup
from velora_runtime.cameras.live_events import LiveEvents
from velora_runtime.ingest.packets import CameraState

from tests.fakes_neuromorphic import FakeCamera, LinkPacket, plug_in
from velora_cli.live.live import command
from velora_edge.clock import SystemClock
from velora_edge.console import run
from velora_edge.datatypes import EventBatch
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytest.importorskip("neuromorphic_drivers", reason="needs neuromorphic-drivers: extra cameras")
STEP_US = 10_000


@pytest.fixture(autouse=True)
def nothing_else_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"event": [], "video": [], "argus": False}
    monkeypatch.setattr("velora_edge.doctor.host.cameras", lambda root: nothing)
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
    settings = tmp_path / "cameras.yaml"
    settings.write_text("neuromorphic: {longest_delay_ms: 60000}\n")  # a machine that is busy clears nothing
    with plug_in(camera) as nd:
        packets = davis_packets(nd, 3_000)
        camera.begin = lambda camera: let_run(camera, packets)
        args = ["demo", "--duration", "1", "--summary", str(tmp_path / "s.json"), "--quiet"]
        args += ["--cameras", str(settings)]
        assert run(command, args, name="velora-live") == 0
    told = capsys.readouterr().err
    assert "velora: --events neuromorphic://00051234: by neuromorphic-drivers\n" in told
    assert "velora: --rgb neuromorphic://00051234: the event camera's own frames\n" in told
    assert "velora: synchronised by timestamps: the two cameras share a clock\n" in told
    report = json.loads((tmp_path / "s.json").read_text())
    event, rgb = report["cameras"]["event"], report["cameras"]["rgb"]
    given = [n for n in camera.given if n]
    assert sum(given) == 3_000 - len(camera.packets)
    # Whatever was read was taken in, but for a read that the end of the run came upon.
    assert event["events"]["received"] in (100 * sum(given), 100 * sum(given[:-1]))
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


RATE_HZ = 10_000_000
PACKET_BYTES = 1 << 17
RING_PACKETS = 4096
"""The package's own memory; beyond it packets are lost."""


class FastRecording:
    """A real EVT3 recording over and over, its times drawn together to 10 million events a second.

    Args:
        path: of the recording.
        seconds: to give.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        with open_events(path) as reader:
            self.batch, self.edges = reader.read(), len(reader.triggers())
            words = np.frombuffer(path.read_bytes()[reader.payload_at :], "<u2")  # type: ignore[attr-defined]
        kind, value = words >> 12, (words & 0xFFF).astype(np.int64)
        high = value[np.maximum.accumulate(np.where(kind == 0x8, np.arange(len(words)), 0))]
        is_low = kind == 0x6
        times_us = (high << 12 | value)[is_low]
        self.loop_us = round(len(self.batch) / RATE_HZ * 1e6)
        self._times_us = np.maximum.accumulate(
            (times_us - times_us[0]) * (self.loop_us - 1) // (times_us[-1] - times_us[0])
        )
        # A word of the time's upper part before each of the lower part, and nowhere else.
        self._words = np.repeat(words, np.where(is_low, 2, np.where(kind == 0x8, 0, 1)))
        self._words = np.concatenate([np.array([0x6000, 0x6000], "<u2"), self._words])
        self._times_us = np.concatenate([self._times_us[:1], self._times_us])
        self._low = np.flatnonzero(self._words >> 12 == 0x6)[1::2]
        self.loops, self.given = round(seconds * RATE_HZ / len(self.batch)), 0
        self.n_packets = self.loops * -(-self._words.nbytes // PACKET_BYTES)

    @property
    def n_events(self) -> int:
        """In all of it."""
        return self.loops * len(self.batch)

    def more(self) -> list[LinkPacket]:
        """The packets of the next time through."""
        if self.given == self.loops:
            return []
        begin_us, times_us = self.loop_us * self.given, self._times_us + self.loop_us * self.given
        self.given += 1
        self._words[self._low - 1] = 0x8000 | times_us >> 12 & 0xFFF
        self._words[self._low] = 0x6000 | times_us & 0xFFF
        data = memoryview(self._words.tobytes())
        return [
            LinkPacket(
                data[at : at + PACKET_BYTES],
                (begin_us + self.loop_us * min(1.0, (at + PACKET_BYTES) / len(data))) / 1e6,
            )
            for at in range(0, len(data), PACKET_BYTES)
        ]


@contextmanager
def live(camera: FakeCamera, recording: FastRecording, **settings: Any) -> Iterator[LiveEvents]:
    """A camera that gives a recording from when it is opened."""

    def begin(camera: FakeCamera) -> None:
        let_run(camera, [])
        recording.given = 0
        camera.more = recording.more

    camera.begin = begin
    of_cameras = CameraSettings.model_validate({"neuromorphic": settings})
    with plug_in(camera):
        setup = LiveSetup(SystemClock(), threading.Event(), print, settings=of_cameras)
        events = LiveEvents(NeuromorphicEvents("neuromorphic://00051234", setup), setup)
        try:
            events.start(None)
            yield events
        finally:
            events.close()


def is_over(events: LiveEvents, recording: FastRecording) -> bool:
    """All of it was given, and nothing has come for a second."""
    return recording.given == recording.loops and events.camera.state is CameraState.STALLED


def read_windows(events: LiveEvents, is_done: Callable[[], bool]) -> Iterator[EventBatch]:
    """Events in windows of 20 ms, as they come."""
    stream = events.stream
    t_us = stream.t_next_us
    assert t_us is not None
    while not is_done():
        t_us += 20_000
        stream.await_window(t_us - 20_000, t_us)
        while len(batch := stream.read_batch(1 << 19, t_us)):
            yield batch


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_ten_million_events_a_second_come_through_as_they_are_in_the_file(shared_events: Path) -> None:
    seconds = float(os.environ.get("VELORA_FAST_CAMERA_S", "10"))
    recording = FastRecording(shared_events / "ecpy_test1_evt3_triggers.raw", seconds)
    n = len(recording.batch)
    wanted = EventBatch(*(np.tile(getattr(recording.batch, name), 5) for name in ("t_us", "x", "y", "p")))
    camera, read = FakeCamera(), 0
    with live(camera, recording, biases={"diff_on": 20}, longest_delay_ms=60_000) as events:
        counts = events.ingest.counts
        begun_s, wall_s, first = time.monotonic(), 1.0, events.stream.early
        for batch in read_windows(events, lambda: is_over(events, recording)):
            assert sum(counts.dropped.values()) == 0, f"this machine was too slow: {counts}"
            begin = (first + read) % n
            same = wanted[begin : begin + len(batch)]
            assert all(
                np.array_equal(getattr(batch, name), getattr(same, name)) for name in ("x", "y", "p")
            ), events.as_dict()
            read += len(batch)
            wall_s = time.monotonic() - begun_s
        said = events.as_dict()
    print(f"{read / wall_s / 1e6:.2f} Mev/s for {wall_s:.1f} s: {said}")
    assert (counts.received, first + read) == (recording.n_events, recording.n_events)
    assert (sum(counts.dropped.values()), counts.garbage_bytes, counts.lost_packets) == (0, 0, 0)
    assert (said["link"]["cleared"], said["link"]["overrun"], said["outages"]) == (0, 0, 0)
    assert said["link"]["backlog_peak"] < RING_PACKETS
    assert camera.opened[0]["type"] == "prophesee_evk4"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_host_that_stops_for_a_second_clears_what_waited_and_goes_on(shared_events: Path) -> None:
    recording = FastRecording(shared_events / "ecpy_test1_evt3_triggers.raw", 6.0)
    camera = FakeCamera(stops=[2.0])
    with live(camera, recording) as events:
        for batch in read_windows(events, lambda: is_over(events, recording)):
            assert (np.diff(batch.t_us) >= 0).all()
            assert (batch.x < 640).all()
            assert (batch.y < 480).all()
        said, counts = events.as_dict(), events.ingest.counts
    print(said)
    link = said["link"]
    assert counts.gaps >= 1
    assert counts.lost_packets == link["cleared"]
    waited = max(link["backlog_peak"], link["cleared"])
    assert waited >= 0.9 * recording.n_packets / 6  # what comes within a second
    lost_events = recording.n_events * link["cleared"] / recording.n_packets
    assert counts.received + lost_events == pytest.approx(recording.n_events, rel=0.05)
    assert (counts.garbage_bytes, counts.resyncs, said["outages"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_camera_that_was_unplugged_goes_on_with_its_settings(shared_events: Path) -> None:
    recording = FastRecording(shared_events / "ecpy_test1_evt3_triggers.raw", 3.0)
    camera, last_us = FakeCamera(), -1
    with live(camera, recording, biases={"bias_diff_on": 20}) as events:
        unplugged = False
        for batch in read_windows(
            events, lambda: len(camera.opened) == 2 and recording.given == recording.loops
        ):
            assert int(batch.t_us[0]) >= last_us
            last_us = int(batch.t_us[-1])
            if not unplugged and last_us > 1_000_000:
                camera.is_there, unplugged = False, True
                threading.Timer(0.4, lambda: setattr(camera, "is_there", True)).start()
        said = events.as_dict()
    assert (said["connections"], said["outages"], said["link"]["overrun"]) == (2, 1, 0)
    assert "it failed: Usb(Rusb(NoDevice))" in said["reasons"]
    assert camera.opened[0] == camera.opened[1]
    assert last_us > 3_000_000
